/* Attention over the cache, on any processor. */
#pragma once
#include "numbers.h"

#define SHARING 3    /* query heads that share widened keys and values */
#define KEYS 4       /* keys that share queries */
#define ABREAST 4    /* vectors of a value that share a weight */
#define CHUNK 64     /* so many at a time */
#define AHEAD 12     /* cache slots */

typedef struct {
    int heads, kv_heads, size, window; /* window: tokens that are seen, or 0 for all */
    float scale, cap;                  /* cap: of the scores, or 0 */
    int narrow;                        /* the cache is bf16 */
    long slots;                        /* of a cache row */
} Shape;

INLINE Eight eight_of(const void *cache, long at, int narrow) {
    if (!narrow) return load((const float *)cache + at);
#if VECTORS
    const __m128i half = _mm_loadu_si128((const __m128i *)((const uint16_t *)cache + at));
    return (Eight)_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
#else
    EightHalves half;
    memcpy(&half, (const uint16_t *)cache + at, sizeof half);
    return (Eight)(__builtin_convertvector(half, EightInts) << 16);
#endif
}

INLINE void store(void *cache, long at, int narrow, int size, const float *x) {
    if (narrow) {
        uint16_t *half = (uint16_t *)cache + at;
        for (int i = 0; i < size; i++) half[i] = to_bf16(x[i]);
    } else {
        memcpy((float *)cache + at, x, size * sizeof(float));
    }
}

static void turn(float *head, const float *norm, float eps, const float *cos, const float *sin, int size) {
    if (norm) {
        const float scale = inverse_rms(head, size, eps);
        for (int i = 0; i < size; i += 8) put(head + i, load(head + i) * scale * load(norm + i));
    }
    if (cos)
        for (int i = 0, j = size / 2; i < size / 2; i++, j++) {
            const float a = head[i], b = head[j];
            head[i] = a * cos[i] + b * sin[i];
            head[j] = b * cos[j] + a * sin[j];
        }
}

/* The sums of four vectors, each in the order of `sum_of`. */
INLINE void sums_of(const Eight *x, float scale, float *sums) {
#if VECTORS
    __m128 half[4];
    for (int i = 0; i < 4; i++)
        half[i] = _mm_add_ps(_mm256_castps256_ps128((__m256)x[i]), _mm256_extractf128_ps((__m256)x[i], 1));
    _MM_TRANSPOSE4_PS(half[0], half[1], half[2], half[3]);
    const __m128 sum = _mm_add_ps(_mm_add_ps(half[0], half[2]), _mm_add_ps(half[1], half[3]));
    _mm_storeu_ps(sums, _mm_mul_ps(sum, _mm_set1_ps(scale)));
#else
    for (int i = 0; i < 4; i++) sums[i] = sum_of(x[i]) * scale;
#endif
}

/* What some query heads of one KV head, at one token, see: the slots [from, to) of a cache row. */
typedef struct {
    const float *q;      /* [count, size] */
    float *scores, *y;   /* [count, stride], from slot `from` on; [count, size] */
    long from, to, stride, row;
} Query;

/* Keys or values of slots, `width` numbers apart: in the cache, or a copy of some. */
typedef struct {
    const void *memory;
    int narrow;
    long at, width, ahead; /* what is at `ahead` from each key will be read next, or 0 */
} Slots;

/* Slots lie too far apart for the processor to foresee which lines of memory come next. */
INLINE void fetch(const Shape *s, Slots from, long at) {
    const long size = from.narrow ? 2 : 4;
    for (long i = 0; i < s->size * size; i += 64) __builtin_prefetch((const char *)from.memory + at * size + i);
}

/* Scores of `count` queries with `length` keys. What lies behind each row of scores is spare. */
INLINE void score(const Shape *s, const float *q, int count, int narrow, Slots keys, long length, long stride,
                  float *scores) {
    const int E = s->size;
    for (long t = 0; t < length; t += KEYS) {
        Eight dot[SHARING][KEYS];
        long at[KEYS];
        for (int k = 0; k < KEYS; k++) {
            at[k] = keys.at + (t + k < length ? t + k : length - 1) * keys.width;
            for (int h = 0; h < count; h++) dot[h][k] = each(0);
            if (keys.ahead) {
                fetch(s, keys, at[k] + AHEAD * keys.width);
                fetch(s, keys, at[k] + AHEAD * keys.width + keys.ahead);
            }
        }
        for (int i = 0; i < E; i += 8)
            for (int k = 0; k < KEYS; k++) {
                const Eight key = eight_of(keys.memory, at[k] + i, narrow);
                for (int h = 0; h < count; h++) dot[h][k] = fused(load(q + h * E + i), key, dot[h][k]);
            }
        for (int h = 0; h < count; h++) sums_of(dot[h], s->scale, scores + h * stride + t);
    }
}

/* Scores to weights that sum to 1; what lies between length and stride is spare. */
INLINE void softmax(float *scores, long length, float cap) {
    if (cap > 0)
        for (long t = 0; t < length; t++) scores[t] = tanhf(scores[t] / cap) * cap;
    for (long t = length; t % 8; t++) scores[t] = -INFINITY;
    Eight most = each(-INFINITY), sum = each(0);
    for (long t = 0; t < length; t += 8) most = larger(most, load(scores + t));
    const float largest = largest_of(most);
    for (long t = 0; t < length; t += 8) {
        const Eight p = exp_of(load(scores + t) - largest);
        put(scores + t, p);
    }
    for (long t = length; t % 8; t++) scores[t] = 0;
    for (long t = 0; t < length; t += 8) sum += load(scores + t);
    const float inverse = 1.0f / sum_of(sum);
    for (long t = 0; t < length; t += 8) put(scores + t, load(scores + t) * inverse);
}

/* Add weighted sums of `length` values to y, `wide` vectors of each at a time. */
INLINE void mix(const Shape *s, const float *weights, int count, int wide, int narrow, Slots values, long length,
                long stride, float *y) {
    const int E = s->size;
    for (int i = 0; i < E; i += 8 * wide) {
        Eight sum[SHARING][ABREAST];
        for (int h = 0; h < count; h++)
            for (int j = 0; j < wide; j++) sum[h][j] = load(y + h * E + i + 8 * j);
        long from = values.at + i;
        for (long t = 0; t < length; t++, from += values.width)
            for (int j = 0; j < wide; j++) {
                const Eight value = eight_of(values.memory, from + 8 * j, narrow);
                for (int h = 0; h < count; h++) sum[h][j] = fused(value, each(weights[h * stride + t]), sum[h][j]);
            }
        for (int h = 0; h < count; h++)
            for (int j = 0; j < wide; j++) put(y + h * E + i + 8 * j, sum[h][j]);
    }
}

/* The loops above, for numbers that are known when they are compiled. */
#define FOR_EACH(LOOP)                                                                                 \
    if (slots.narrow) {                                                                                \
        if (count == 3) { LOOP(3, 1) } else if (count == 2) { LOOP(2, 1) } else { LOOP(1, 1) }         \
    } else {                                                                                           \
        if (count == 3) { LOOP(3, 0) } else if (count == 2) { LOOP(2, 0) } else { LOOP(1, 0) }         \
    }

static void score_few(const Shape *s, const float *q, int count, Slots slots, long length, long stride, float *scores) {
#define SCORE(N, NARROW) score(s, q, N, NARROW, slots, length, stride, scores);
    FOR_EACH(SCORE)
}

static void mix_few(const Shape *s, const float *weights, int count, Slots slots, long length, long stride, float *y) {
#define MIX(N, NARROW)                                                                     \
    if (s->size % 32 == 0) mix(s, weights, N, 4, NARROW, slots, length, stride, y);        \
    else if (s->size % 16 == 0) mix(s, weights, N, 2, NARROW, slots, length, stride, y);   \
    else mix(s, weights, N, 1, NARROW, slots, length, stride, y);
    FOR_EACH(MIX)
}

/* Keys of a cache row's slots from one on, or values; keys have their values fetched with them. */
static Slots in_cache(const Shape *s, const void *cache, long row, int kv, int values, long from) {
    const long apart = (long)s->kv_heads * s->size, width = 2 * apart;
    return (Slots){cache, s->narrow, (row * s->slots + from) * width + (long)kv * s->size + values * apart, width,
                   values ? 0 : apart};
}

/* A copy of `length` of them, side by side and wide. */
static Slots copied(const Shape *s, Slots from, long length, float *copy) {
    for (long t = 0, at = from.at; t < length; t++, at += from.width) {
        fetch(s, from, at + AHEAD * from.width);
        for (int i = 0; i < s->size; i += 8) put(copy + t * s->size + i, eight_of(from.memory, at + i, from.narrow));
    }
    return (Slots){copy, 0, 0, s->size, 0};
}

/* Score some heads of a token with the keys of the slots [from, to), or mix their values, a few heads at a time. */
static void walk(const Shape *s, const Query *query, int count, int values, Slots slots, long from, long to) {
    if (to <= from) return;
    for (int h = 0, few; h < count; h += few) {
        few = count - h == 4 ? 2 : count - h < SHARING ? count - h : SHARING;
        float *scores = query->scores + h * query->stride + (from - query->from);
        if (values) mix_few(s, scores, few, slots, to - from, query->stride, query->y + (long)h * s->size);
        else score_few(s, query->q + (long)h * s->size, few, slots, to - from, query->stride, scores);
    }
}

/* What tokens make of what they see, by `count` heads of one KV head. The slots [low, high) of cache row `row` stand for
 * their own: these are read once, a chunk at a time. Sums run over ascending slots, shared or not. */
static void attend(const Shape *s, const Query *queries, int many, int count, const void *cache, int kv, long row,
                   long low, long high, float *copy) {
    for (int values = 0; values < 2; values++) {
        for (const Query *query = queries; query < queries + many; query++)
            walk(s, query, count, values, in_cache(s, cache, query->row, kv, values, query->from), query->from, low);
        for (long from = low, to; from < high; from = to) {
            to = from + CHUNK < high ? from + CHUNK : high;
            const Slots slots = copied(s, in_cache(s, cache, row, kv, values, from), to - from, copy);
            for (int n = 0; n < many; n++) walk(s, queries + n, count, values, slots, from, to);
        }
        for (const Query *query = queries; query < queries + many; query++) {
            walk(s, query, count, values, in_cache(s, cache, query->row, kv, values, high), high, query->to);
            for (int h = 0; h < count && !values; h++)
                softmax(query->scores + h * query->stride, query->to - query->from, s->cap);
        }
    }
}
