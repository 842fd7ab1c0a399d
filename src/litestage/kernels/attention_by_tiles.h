/* Attention by tile registers: of a bf16 cache, GROUP slots at a time. */
#pragma once
#include "attention_by_blocks.h"
#include "panels_by_tiles.h"

#define TOGETHER 3   /* tile registers of query heads that share keys and values */

#if TILES

/* Where it keeps what. */
typedef struct {
    uint16_t *queries; /* [tiles, size / GROUP, 2, BLOCK, BLOCK, 2]: pairs of a query's numbers, both parts */
    float *scores;     /* [tiles, BLOCK, stride], of which GROUP at a time become the two bf16 parts of their weights */
    uint16_t *values;  /* [blocks, size / BLOCK, BLOCK, BLOCK, 2]: pairs of slots */
    long base, length, stride; /* slots from `base` on */
    int tiles, per_tile;       /* tokens of a tile */
} Desk;

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
    transpose(sums[0][0], BLOCK, scores, stride, first, last);
    transpose(sums[1][0], BLOCK, scores + BLOCK, stride, first, last);
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
            pair_slots(s->size, from, width, values, BLOCK * GROUP);
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
