/* Attention by tile registers: of a bf16 cache, GROUP slots at a time. */
#pragma once
#include "attention.h"
#include "panels_by_tiles.h"

#define TOGETHER 3   /* tile registers of query heads that share keys and values */

INLINE long down(long slot) { return slot / GROUP * GROUP; }

#if TILES

/* Slots [from, to) of a cache row, `from` a multiple of GROUP: what all tokens of a group see there, or one of them. */
typedef struct {
    long row, from, to;
    int token; /* or -1 */
} Stretch;

/* Where it keeps what. */
typedef struct {
    uint16_t *queries; /* [tiles, size / GROUP, 2, BLOCK, BLOCK, 2]: pairs of a query's numbers, both parts */
    float *scores;     /* [tiles, BLOCK, stride], of which GROUP at a time become the two bf16 parts of their weights */
    uint16_t *values;  /* [blocks, size / BLOCK, BLOCK, BLOCK, 2]: pairs of slots */
    long base, length, stride; /* slots from `base` on */
    int tiles, per_tile;       /* tokens of a tile */
} Desk;

INLINE void transpose(const float *x, float *y, long stride, int from, int to) {
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_load_ps(x + 16 * i);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            const __m512d first = _mm512_castps_pd(b[i + j]), second = _mm512_castps_pd(b[i + 2 + j]);
            a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(first, second));
            a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(first, second));
        }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512 low = _mm512_shuffle_f32x4(a[i], a[4 + i], 0x88), high = _mm512_shuffle_f32x4(a[i], a[4 + i], 0xdd);
        const __m512 next = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0x88);
        const __m512 last = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0xdd);
        b[i] = _mm512_shuffle_f32x4(low, next, 0x88);
        b[8 + i] = _mm512_shuffle_f32x4(low, next, 0xdd);
        b[4 + i] = _mm512_shuffle_f32x4(high, last, 0x88);
        b[12 + i] = _mm512_shuffle_f32x4(high, last, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        if (i >= from && i < to) _mm512_storeu_ps(y + i * stride, b[i]);
}

/* GROUP keys or values from a slot on, `width` numbers apart; where fewer are left, a copy with zeros behind them. */
INLINE const uint16_t *whole(const uint16_t *from, long left, int size, long *width, uint16_t *copy) {
    if (left >= GROUP) return from;
    memset(copy, 0, GROUP * size * sizeof *copy);
    for (long t = 0; t < left; t++) memcpy(copy + t * size, from + t * *width, size * sizeof *copy);
    *width = size;
    return copy;
}

INLINE const uint16_t *block_of(const Shape *s, const void *cache, int kv, int values, const Stretch *seen, long at,
                                long *width, uint16_t *copy) {
    const Slots slots = in_cache(s, cache, seen->row, kv, values, at);
    *width = slots.width;
    const long next = at + GROUP < seen->to ? slots.at + GROUP * slots.width : slots.at;
    for (int t = 0; t < GROUP && slots.ahead && next != slots.at && at + GROUP + t < seen->to; t++) {
        fetch(s, slots, next + t * slots.width);
        fetch(s, slots, next + t * slots.width + slots.ahead);
    }
    return whole((const uint16_t *)slots.memory + slots.at, seen->to - at, s->size, width, copy);
}

/* A query head's scaled numbers as one column of its tiles. */
static void place_query(const Shape *s, const float *q, uint32_t *column) {
    const __m512 scale = _mm512_set1_ps(s->scale);
    for (int i = 0; i < s->size; i += GROUP) {
        uint32_t pairs[2][BLOCK] __attribute__((aligned(64)));
        split(_mm512_mul_ps(_mm512_loadu_ps(q + i), scale), _mm512_mul_ps(_mm512_loadu_ps(q + i + BLOCK), scale),
              (__m512i *)pairs);
        for (int part = 0; part < 2; part++)
            for (int n = 0; n < BLOCK; n++, column += BLOCK) *column = pairs[part][n];
    }
}

/* Products of a tile's query heads with GROUP keys: into rows [first, last) of its scores. */
INLINE void tile_scores(const Shape *s, const uint16_t *keys, long width, const uint16_t *queries, int first, int last,
                        float *scores, long stride) {
    float sums[2][BLOCK][BLOCK] __attribute__((aligned(64)));
    written();
    _tile_zero(0);
    _tile_zero(1);
    for (int i = 0; i < s->size; i += GROUP, queries += 2 * BLOCK * GROUP) {
        _tile_loadd(4, keys + i, 2 * width);
        _tile_loadd(5, keys + BLOCK * width + i, 2 * width);
        for (int part = 0; part < 2; part++) {
            _tile_loadd(6, queries + part * BLOCK * GROUP, VECTOR);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 5, 6);
        }
    }
    _tile_stored(0, sums[0], 4 * BLOCK);
    _tile_stored(1, sums[1], 4 * BLOCK);
    transpose(sums[0][0], scores, stride, first, last);
    transpose(sums[1][0], scores + BLOCK, stride, first, last);
}

/* exp, as exp_of; NaN stays what it is. */
INLINE __m512 exp_of_sixteen(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-87.0f), x);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    const __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f),
                                     _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693359375f), x));
    __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(1.98756915e-4f), _mm512_set1_ps(1.39819995e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.33345191e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.16657959e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.66666655e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.00000012e-1f));
    p = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r), _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* Which of GROUP slots from `at` on lie in [from, to). */
INLINE uint32_t within(long at, long from, long to) {
    const uint64_t below = from <= at ? 0 : from - at >= GROUP ? 0xffffffff : (1ull << (from - at)) - 1;
    const uint64_t up_to = to <= at ? 0 : to - at >= GROUP ? 0xffffffff : (1ull << (to - at)) - 1;
    return up_to & ~below;
}

/* A row of scores to the parts of its weights, zero but for the slots [from, to); one over their sum. */
static float weigh(const Shape *s, float *scores, long from, long to, long length) {
    for (long t = from; t < to && s->cap > 0; t++) scores[t] = tanhf(scores[t] / s->cap) * s->cap;
    __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps(), other = sum;
    for (long t = down(from); t < to; t += GROUP) {
        const uint32_t seen = within(t, from, to);
        most = _mm512_mask_max_ps(most, seen, most, _mm512_loadu_ps(scores + t));
        most = _mm512_mask_max_ps(most, seen >> BLOCK, most, _mm512_loadu_ps(scores + t + BLOCK));
    }
    const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (long t = 0; t < length; t += GROUP) {
        const uint32_t seen = within(t, from, to);
        __m512i parts[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        if (seen) {
            const __m512 first = _mm512_sub_ps(_mm512_loadu_ps(scores + t), largest);
            const __m512 second = _mm512_sub_ps(_mm512_loadu_ps(scores + t + BLOCK), largest);
            const __m512 weight = _mm512_maskz_mov_ps(seen, exp_of_sixteen(first));
            const __m512 next = _mm512_maskz_mov_ps(seen >> BLOCK, exp_of_sixteen(second));
            sum = _mm512_add_ps(sum, weight);
            other = _mm512_add_ps(other, next);
            split(weight, next, parts);
        }
        memcpy(scores + t, parts, sizeof parts);
    }
    return 1.0f / _mm512_reduce_add_ps(_mm512_add_ps(sum, other));
}

/* A weight of 0 would spread what is not finite to tokens that may not see it; those that may have it in their keys. */
INLINE __m512i only_finite(__m512i x) {
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    return _mm512_maskz_mov_epi16(_mm512_cmpneq_epi16_mask(_mm512_and_si512(x, exponent), exponent), x);
}

/* GROUP values with neighbouring slots side by side: [size / BLOCK, BLOCK, BLOCK, 2] */
INLINE void pair_slots(int size, const uint16_t *from, long width, uint16_t *values) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                         36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int p = 0; p < BLOCK; p++, from += 2 * width)
        for (int i = 0; i < size; i += GROUP) {
            const __m512i first = only_finite(_mm512_loadu_si512(from + i));
            const __m512i second = only_finite(_mm512_loadu_si512(from + width + i));
            uint16_t *at = values + (long)i / BLOCK * BLOCK * GROUP + p * GROUP;
            _mm512_store_si512(at, _mm512_permutex2var_epi16(first, low, second));
            _mm512_store_si512(at + BLOCK * GROUP, _mm512_permutex2var_epi16(first, high, second));
        }
}

/* Add GROUP weighted values to tiles 0 to 3: BLOCK query heads, up to 4 * BLOCK numbers of each. */
INLINE void tile_mix(const uint16_t *weights, long stride, const uint16_t *values, int wide) {
    written();
    _tile_loadd(6, weights, stride);
    _tile_loadd(7, weights + GROUP, stride);
    _tile_loadd(4, values, VECTOR);
    _tile_loadd(5, values + BLOCK * GROUP, VECTOR);
    _tile_dpbf16ps(0, 6, 4);
    _tile_dpbf16ps(0, 7, 4);
    _tile_dpbf16ps(1, 6, 5);
    _tile_dpbf16ps(1, 7, 5);
    if (wide == 2) return;
    _tile_loadd(4, values + 2 * BLOCK * GROUP, VECTOR);
    _tile_loadd(5, values + 3 * BLOCK * GROUP, VECTOR);
    _tile_dpbf16ps(2, 6, 4);
    _tile_dpbf16ps(2, 7, 4);
    _tile_dpbf16ps(3, 6, 5);
    _tile_dpbf16ps(3, 7, 5);
}

/* What a tile's query heads make of all stretches: sums[BLOCK, size]. A stretch that one token sees adds nothing to the
 * others of its tile. */
static void mix_tile(const Shape *s, const Desk *desk, int tile, const Stretch *stretches, int several, int count,
                     float *sums) {
    const float *scores = desk->scores + tile * BLOCK * desk->stride;
    for (int i = 0; i < s->size; i += 4 * BLOCK) {
        const int wide = s->size - i < 4 * BLOCK ? 2 : 4;
        const uint16_t *values = desk->values + (long)i * GROUP;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (const Stretch *seen = stretches; seen < stretches + several; seen++) {
            const int own = seen->token >= 0, apart = own && seen->token / desk->per_tile != tile;
            uint16_t alone[BLOCK][2 * GROUP] __attribute__((aligned(64)));
            if (own && !apart) memset(alone, 0, sizeof alone);
            for (long at = seen->from; at < seen->to; at += GROUP, values += (long)s->size * GROUP) {
                if (apart) continue;
                const float *weights = scores + at - desk->base;
                const int column = own ? seen->token % desk->per_tile * count : 0;
                for (int h = column; h < column + count && own; h++)
                    memcpy(alone[h], weights + h * desk->stride, sizeof alone[h]);
                if (own) tile_mix(alone[0], sizeof alone[0], values, wide);
                else tile_mix((const uint16_t *)weights, 4 * desk->stride, values, wide);
            }
        }
        _tile_stored(0, sums + i, 4 * s->size);
        _tile_stored(1, sums + i + BLOCK, 4 * s->size);
        if (wide == 2) continue;
        _tile_stored(2, sums + i + 2 * BLOCK, 4 * s->size);
        _tile_stored(3, sums + i + 3 * BLOCK, 4 * s->size);
    }
}

/* Room for a group's work in the thread's memory. */
static Desk desk_of(const Shape *s, int many, int count, const Stretch *stretches, int several) {
    Desk desk = {.base = stretches->from, .per_tile = BLOCK / count};
    long to = 0, blocks = 0;
    for (const Stretch *seen = stretches; seen < stretches + several; seen++) {
        if (seen->from < desk.base) desk.base = seen->from;
        if (seen->to > to) to = seen->to;
        blocks += (seen->to - seen->from + GROUP - 1) / GROUP;
    }
    desk.length = down(to - desk.base + GROUP - 1);
    desk.stride = desk.length + BLOCK; /* not a multiple of a page */
    desk.tiles = (many + desk.per_tile - 1) / desk.per_tile;
    const size_t queries = (size_t)desk.tiles * BLOCK * s->size * 2 * sizeof(uint16_t);
    const size_t scores = (size_t)desk.tiles * BLOCK * desk.stride * sizeof(float);
    const size_t values = (size_t)blocks * GROUP * s->size * sizeof(uint16_t);
    char *place = reserve(queries + scores + values);
    desk.queries = (uint16_t *)place;
    desk.scores = (float *)(place + queries);
    desk.values = (uint16_t *)(place + queries + scores);
    return desk;
}

/* What `count` heads of one KV head of `many` tokens make of what they see. */
static void attend_by_tiles(const Shape *s, const Query *queries, int many, int count, const void *cache, int kv,
                            const Stretch *stretches, int several) {
    const Desk desk = desk_of(s, many, count, stretches, several);
    const long per_tile = (long)BLOCK * s->size * 2;
    uint16_t copy[GROUP * s->size] __attribute__((aligned(64)));
    float sums[BLOCK][s->size] __attribute__((aligned(64))), inverse[BLOCK];
    for (int n = 0; n < many; n++)
        for (int h = 0; h < count; h++) {
            const int column = n % desk.per_tile * count + h;
            uint32_t *place = (uint32_t *)(desk.queries + n / desk.per_tile * per_tile) + column;
            place_query(s, queries[n].q + (long)h * s->size, place);
        }
    uint16_t *values = desk.values;
    long width;
    for (const Stretch *seen = stretches; seen < stretches + several; seen++)
        for (long at = seen->from; at < seen->to; at += GROUP, values += (long)GROUP * s->size) {
            const int own = seen->token >= 0, tile = own ? seen->token / desk.per_tile : 0;
            const int first = own ? seen->token % desk.per_tile * count : 0, last = own ? first + count : BLOCK;
            const uint16_t *keys = block_of(s, cache, kv, 0, seen, at, &width, copy);
            for (int t = tile; t < (own ? tile + 1 : desk.tiles); t++)
                tile_scores(s, keys, width, desk.queries + t * per_tile, first, last,
                            desk.scores + t * BLOCK * desk.stride + at - desk.base, desk.stride);
            const uint16_t *from = block_of(s, cache, kv, 1, seen, at, &width, copy);
            pair_slots(s->size, from, width, values);
        }
    for (int tile = 0; tile < desk.tiles; tile++) {
        const int first = tile * desk.per_tile, end = first + desk.per_tile < many ? first + desk.per_tile : many;
        for (int column = 0; column < (end - first) * count; column++) {
            const Query *query = queries + first + column / count;
            float *scores = desk.scores + (tile * BLOCK + column) * desk.stride;
            inverse[column] = weigh(s, scores, query->from - desk.base, query->to - desk.base, desk.length);
        }
        mix_tile(s, &desk, tile, stretches, several, count, sums[0]);
        for (int column = 0; column < (end - first) * count; column++) {
            float *y = queries[first + column / count].y + (long)(column % count) * s->size;
            for (int i = 0; i < s->size; i += 8) put(y + i, load(sums[column] + i) * inverse[column]);
        }
    }
}

#endif
