/* Attention by products of bf16: of a bf16 cache, with queries and weights rounded to bf16 as well. Keys are panels of
 * 16 slots, values panels of 16 numbers. Each query's sums run over its slots from a multiple of GROUP on, whoever else is
 * there: what it does not see adds zeros. */
#pragma once
#include "attention_by_blocks.h"
#include "panels.h"

#define ABREAST_ROWS 12 /* query heads of a block */

#if DOTS

/* Where it keeps what. */
typedef struct {
    uint16_t *queries; /* a block of query heads: [size / GROUP, high, GROUP] */
    uint16_t *weights; /* of a block: [length / GROUP, high, GROUP] */
    uint16_t *values;  /* [size / PANEL][blocks, GROUP / 2, PANEL, 2] */
    uint16_t *alone;   /* what one token has of a block's queries or weights */
    float *scores;     /* [rows, length] */
    float *sums;       /* of a block: [size / PANEL, PAIR, PANEL] */
    long base, length, blocks; /* slots from `base` on; GROUPs of slots in all stretches */
    int rows, high;    /* query heads, and those of a block but the last */
} Table;

/* Room for a group's work in the thread's memory. */
static Table table_of(const Shape *s, int many, int count, const Stretch *stretches, int several) {
    Table table = {.base = stretches->from, .rows = many * count, .high = ABREAST_ROWS / count * count};
    long to = 0;
    for (const Stretch *seen = stretches; seen < stretches + several; seen++) {
        if (seen->from < table.base) table.base = seen->from;
        if (seen->to > to) to = seen->to;
        table.blocks += (seen->to - seen->from + GROUP - 1) / GROUP;
    }
    table.length = down(to - table.base + GROUP - 1);
    const size_t queries = (size_t)table.rows * s->size, weights = (size_t)table.rows * table.length;
    const size_t values = (size_t)table.blocks * GROUP * s->size, longest = table.length > s->size ? table.length : s->size;
    const size_t alone = (size_t)ABREAST_ROWS * longest;
    char *place = reserve((queries + weights + values + alone) * sizeof(uint16_t) +
                          (weights + (size_t)PAIR * s->size) * sizeof(float));
    table.values = (uint16_t *)place;
    table.scores = (float *)(table.values + values);
    table.queries = (uint16_t *)(table.scores + weights);
    table.weights = table.queries + queries;
    table.alone = table.weights + weights;
    table.sums = (float *)(table.alone + alone);
    return table;
}

/* Query heads of a block from row `first` on. */
INLINE int rows_of(const Table *table, int first) {
    return table->rows - first < table->high ? table->rows - first : table->high;
}

/* Rows [first, first + few) of a block [groups, high, GROUP]: as they lie if these are all of them, or a copy. */
INLINE const uint16_t *some_rows(const Table *table, const uint16_t *block, long groups, int high, int first, int few) {
    if (few == high) return block;
    for (long g = 0; g < groups; g++)
        memcpy(table->alone + g * few * GROUP, block + (g * high + first) * GROUP, few * GROUP * sizeof *block);
    return table->alone;
}

/* Products of `high` rows with two panels, `apart` numbers from each other, added to y[2][high, PANEL]. */
INLINE void dots(const uint16_t *panels, long apart, long groups, const uint16_t *x, int high, Sums *y) {
    __m512 acc[2][ABREAST_ROWS];
    for (int r = 0; r < high; r++) acc[0][r] = _mm512_loadu_ps(y[0][r]), acc[1][r] = _mm512_loadu_ps(y[1][r]);
    for (long g = 0; g < groups; g++, x += high * GROUP)
#pragma GCC unroll 2
        for (int i = 0; i < GROUP; i += 2, panels += 2 * PANEL) {
            const __m512bh first = (__m512bh)_mm512_loadu_si512(panels);
            const __m512bh second = (__m512bh)_mm512_loadu_si512(panels + apart);
#pragma GCC unroll 12
            for (int r = 0; r < high; r++) {
                __m512i two = four_bytes((const int8_t *)(x + r * GROUP + i));
                KEEP(two);
                acc[0][r] = _mm512_dpbf16_ps(acc[0][r], first, (__m512bh)two);
                acc[1][r] = _mm512_dpbf16_ps(acc[1][r], second, (__m512bh)two);
            }
        }
    for (int r = 0; r < high; r++) {
        _mm512_storeu_ps(y[0][r], acc[0][r]);
        _mm512_storeu_ps(y[1][r], acc[1][r]);
    }
}

static void add_products(const uint16_t *panels, long apart, long groups, const uint16_t *x, int high, Sums *y) {
#define ROWS(N) \
    case N: dots(panels, apart, groups, x, N, y); break;
    switch (high) {
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
    }
}

/* Scores of GROUP keys with the query heads that see them. */
static void score_block(const Shape *s, const Table *table, const uint16_t *keys, long width, long at, int first, int end) {
    uint16_t panels[2][s->size * PANEL] __attribute__((aligned(64)));
    for (int q = 0; q < 2; q++)
        for (int i = 0; i < s->size; i += GROUP)
            transpose((const float *)(keys + q * PANEL * width + i), width / 2, (float *)(panels[q] + i * PANEL), PANEL, 0,
                      PANEL);
    for (int row = first / table->high * table->high, high; row < end; row += high) {
        Sums sums[2] __attribute__((aligned(64)));
        high = rows_of(table, row);
        const int from = first > row ? first - row : 0, few = (end - row < high ? end - row : high) - from;
        const uint16_t *queries = some_rows(table, table->queries + (long)row * s->size, s->size / GROUP, high, from, few);
        for (int r = 0; r < few; r++)
            for (int q = 0; q < 2; q++) _mm512_store_ps(sums[q][r], _mm512_setzero_ps());
        add_products(panels[0], s->size * PANEL, s->size / GROUP, queries, few, sums);
        for (int r = 0; r < few; r++)
            for (int q = 0; q < 2; q++)
                _mm512_storeu_ps(table->scores + (row + from + r) * table->length + at + q * PANEL,
                                 _mm512_load_ps(sums[q][r]));
    }
}

/* A row of scores to weights, `apart` numbers from one GROUP to the next, zero but for the slots [from, to); one over
 * their sum. */
static float weigh_row(const Shape *s, float *scores, long from, long to, long length, uint16_t *weights, long apart) {
    for (long t = from; t < to && s->cap > 0; t++) scores[t] = tanhf(scores[t] / s->cap) * s->cap;
    __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps(), other = sum;
    for (long t = down(from); t < to; t += GROUP) {
        const uint32_t seen = within(t, from, to);
        most = _mm512_mask_max_ps(most, seen, most, _mm512_loadu_ps(scores + t));
        most = _mm512_mask_max_ps(most, seen >> PANEL, most, _mm512_loadu_ps(scores + t + PANEL));
    }
    const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (long t = 0; t < length; t += GROUP, weights += apart) {
        const uint32_t seen = within(t, from, to);
        __m512 weight = _mm512_setzero_ps(), next = weight;
        if (seen) {
            weight = _mm512_sub_ps(_mm512_loadu_ps(scores + t), largest);
            next = _mm512_sub_ps(_mm512_loadu_ps(scores + t + PANEL), largest);
            weight = _mm512_maskz_mov_ps(seen, exp_of_sixteen(weight));
            next = _mm512_maskz_mov_ps(seen >> PANEL, exp_of_sixteen(next));
            sum = _mm512_add_ps(sum, weight);
            other = _mm512_add_ps(other, next);
        }
        _mm512_storeu_si512(weights, (__m512i)_mm512_cvtne2ps_pbh(next, weight));
    }
    return 1.0f / _mm512_reduce_add_ps(_mm512_add_ps(sum, other));
}

/* Weighted values of all stretches, added up for a block of query heads from `row` on. */
static void mix_block(const Shape *s, const Table *table, const Stretch *stretches, int several, int count, int row,
                      const uint16_t *weights) {
    const int high = rows_of(table, row);
    const uint16_t *values = table->values;
    for (const Stretch *seen = stretches; seen < stretches + several; seen++) {
        const long groups = (seen->to - seen->from + GROUP - 1) / GROUP, from = (seen->from - table->base) / GROUP;
        const int own = seen->token >= 0, first = own ? seen->token * count - row : 0, few = own ? count : high;
        if (groups > 0 && first >= 0 && first < high) {
            const uint16_t *some = some_rows(table, weights + from * high * GROUP, groups, high, first, few);
            for (int i = 0; i < s->size; i += 2 * PANEL) {
                float *sums = table->sums + (long)i * PAIR + first * PANEL;
                add_products(values + i * table->blocks * GROUP, PANEL * table->blocks * GROUP, groups, some, few,
                             (Sums *)sums);
            }
        }
        values += groups > 0 ? groups * GROUP * PANEL : 0;
    }
}

/* Scores and values of all stretches to their places. */
static void read_stretches(const Shape *s, const Table *table, int count, const void *cache, int kv,
                           const Stretch *stretches, int several) {
    uint16_t copy[GROUP * s->size] __attribute__((aligned(64))), *values = table->values;
    long width;
    for (const Stretch *seen = stretches; seen < stretches + several; seen++)
        for (long at = seen->from; at < seen->to; at += GROUP, values += GROUP * PANEL) {
            const int own = seen->token >= 0, first = own ? seen->token * count : 0, end = own ? first + count : table->rows;
            const uint16_t *keys = block_of(s, cache, kv, 0, seen, at, &width, copy);
            score_block(s, table, keys, width, at - table->base, first, end);
            const uint16_t *from = block_of(s, cache, kv, 1, seen, at, &width, copy);
            pair_slots(s->size, from, width, values, PANEL * table->blocks * GROUP);
        }
}

/* What `count` heads of one KV head of `many` tokens make of what they see. */
static void attend_by_dots(const Shape *s, const Query *queries, int many, int count, const void *cache, int kv,
                           const Stretch *stretches, int several) {
    const Table table = table_of(s, many, count, stretches, several);
    const __m512 scale = _mm512_set1_ps(s->scale);
    for (int n = 0; n < table.rows; n++) {
        const int first = n / table.high * table.high, high = rows_of(&table, first);
        uint16_t *place = table.queries + (long)first * s->size + (n - first) * GROUP;
        const float *q = queries[n / count].q + (long)(n % count) * s->size;
        for (int i = 0; i < s->size; i += GROUP, place += high * GROUP) {
            const __m512 low = _mm512_mul_ps(_mm512_loadu_ps(q + i), scale);
            const __m512 rest = _mm512_mul_ps(_mm512_loadu_ps(q + i + PANEL), scale);
            _mm512_storeu_si512(place, (__m512i)_mm512_cvtne2ps_pbh(rest, low));
        }
    }
    read_stretches(s, &table, count, cache, kv, stretches, several);
    for (int row = 0, high; row < table.rows; row += high) {
        float inverse[ABREAST_ROWS];
        high = rows_of(&table, row);
        uint16_t *weights = table.weights + (long)row * table.length;
        for (int r = 0; r < high; r++) {
            const Query *query = queries + (row + r) / count;
            inverse[r] = weigh_row(s, table.scores + (row + r) * table.length, query->from - table.base,
                                   query->to - table.base, table.length, weights + r * GROUP, (long)high * GROUP);
        }
        memset(table.sums, 0, (size_t)s->size * PAIR * sizeof(float));
        mix_block(s, &table, stretches, several, count, row, weights);
        for (int r = 0; r < high; r++) {
            float *y = queries[(row + r) / count].y + (long)((row + r) % count) * s->size;
            for (int i = 0; i < s->size; i += 8)
                put(y + i, load(table.sums + (i / PANEL * PAIR + r) * PANEL + i % PANEL) * inverse[r]);
        }
    }
}

#endif
