/* Attention of many tokens of one cache row: 16 queries side by side in a vector, so that a key or value is read once for
 * all of them. Each query's sums are taken in the order of `attend`, to the same bits. */
#pragma once
#include "attention.h"

#define SIDE 16      /* queries of a vector */
#define VECTORS_OF 3 /* vectors of queries that share keys and values */
#define SLICE 48     /* slots at a time */
#define KEY_PAIR 2   /* keys that share queries */
#define COLUMNS 8    /* numbers of a value that share weights */

#if WIDE

/* SIDE queries, and what they work with. */
typedef struct {
    float *q;          /* [size, SIDE] */
    float *scores;     /* [slots, SIDE], then their weights */
    float *sums;       /* [size, SIDE] */
    __m512i lengths;   /* slots that each sees */
    long least, length; /* slots that all see, and that any sees */
} Side;

INLINE __mmask16 seeing(const Side *side, long t) {
    return _mm512_cmpgt_epi32_mask(side->lengths, _mm512_set1_epi32(t));
}

/* As `exp_of`. */
INLINE __m512 exp_of_side(__m512 x) {
    const __m512 whole = _mm512_set1_ps(12582912.0f);
    x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(88.0f));
    const __m512 n = _mm512_sub_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504f), whole), whole);
    const __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f),
                                     _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693359375f), x));
    __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(1.98756915e-4f), _mm512_set1_ps(1.39819995e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.33345191e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.16657959e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.66666655e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.00000012e-1f));
    const __m512i power = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
    p = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r), _mm512_set1_ps(1.0f));
    return _mm512_mul_ps(p, _mm512_castsi512_ps(power));
}

/* As `sum_of`. */
INLINE __m512 sum_of_sides(const __m512 *x) {
    const __m512 even = _mm512_add_ps(_mm512_add_ps(x[0], x[4]), _mm512_add_ps(x[2], x[6]));
    return _mm512_add_ps(even, _mm512_add_ps(_mm512_add_ps(x[1], x[5]), _mm512_add_ps(x[3], x[7])));
}

/* Scores of `count` keys, `width` numbers apart, by the queries of so many vectors. Of a sum's eight parts the even ones
 * come first, then the odd ones: so many fit into registers. */
INLINE void score_keys(const Shape *s, const Side *sides, int vectors, int count, const float *keys, long width, long t) {
    for (int odd = 0; odd < 2; odd++) {
        __m512 dot[VECTORS_OF][KEY_PAIR][4];
        for (int v = 0; v < vectors; v++)
            for (int k = 0; k < count; k++)
                for (int j = 0; j < 4; j++) dot[v][k][j] = _mm512_setzero_ps();
        for (int i = odd; i < s->size; i += 8)
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                __m512 key[KEY_PAIR];
                for (int k = 0; k < count; k++) {
                    key[k] = _mm512_set1_ps(keys[k * width + i + 2 * j]);
                    KEEP(key[k]);
                }
#pragma GCC unroll 3
                for (int v = 0; v < vectors; v++) {
                    __m512 numbers = _mm512_load_ps(sides[v].q + (i + 2 * j) * SIDE);
                    KEEP(numbers);
                    for (int k = 0; k < count; k++) dot[v][k][j] = _mm512_fmadd_ps(numbers, key[k], dot[v][k][j]);
                }
            }
        for (int v = 0; v < vectors; v++)
            for (int k = 0; k < count; k++) {
                float *score = sides[v].scores + (t + k) * SIDE;
                const __m512 *x = dot[v][k];
                const __m512 sum = _mm512_add_ps(_mm512_add_ps(x[0], x[2]), _mm512_add_ps(x[1], x[3]));
                const __m512 all = _mm512_mul_ps(_mm512_add_ps(_mm512_load_ps(score), sum), _mm512_set1_ps(s->scale));
                _mm512_store_ps(score, odd ? all : sum);
            }
    }
}

/* Scores of the slots [from, to), whose keys begin at `keys`. */
INLINE void score_slots(const Shape *s, const Side *sides, int vectors, const float *keys, long width, long from, long to) {
    long t = from;
    for (; t + KEY_PAIR <= to; t += KEY_PAIR, keys += KEY_PAIR * width)
        score_keys(s, sides, vectors, KEY_PAIR, keys, width, t);
    if (t < to) score_keys(s, sides, vectors, 1, keys, width, t);
}

/* Scores to weights that sum to 1; zero for what a query does not see. */
static void weigh_side(const Shape *s, Side *side) {
    __m512 most = _mm512_set1_ps(-INFINITY), sum[8];
    for (int j = 0; j < 8; j++) sum[j] = _mm512_setzero_ps();
    for (long n = 0; n < side->length * SIDE && s->cap > 0; n++)
        side->scores[n] = tanhf(side->scores[n] / s->cap) * s->cap;
    for (long t = 0; t < side->length; t++)
        most = _mm512_mask_max_ps(most, seeing(side, t), most, _mm512_load_ps(side->scores + t * SIDE));
    for (long t = 0; t < side->length; t += 8)
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            float *scores = side->scores + (t + j) * SIDE; /* up to 7 beyond are spare */
            const __m512 weight = exp_of_side(_mm512_sub_ps(_mm512_load_ps(scores), most));
            const __m512 seen = _mm512_maskz_mov_ps(seeing(side, t + j), weight);
            sum[j] = _mm512_add_ps(sum[j], seen);
            _mm512_store_ps(scores, seen);
        }
    const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.0f), sum_of_sides(sum));
    for (float *weight = side->scores; weight < side->scores + side->length * SIDE; weight += SIDE)
        _mm512_store_ps(weight, _mm512_mul_ps(_mm512_load_ps(weight), inverse));
}

/* Add weighted values to COLUMNS numbers of each sum. What a query does not see may be no number. */
INLINE void mix_columns(const Side *sides, int vectors, int first, const float *values, long width, long from, long to) {
    __m512 sum[VECTORS_OF][COLUMNS];
    long whole = to;
    for (int v = 0; v < vectors; v++) {
        if (sides[v].least < whole) whole = sides[v].least > from ? sides[v].least : from;
        for (int i = 0; i < COLUMNS; i++) sum[v][i] = _mm512_load_ps(sides[v].sums + (first + i) * SIDE);
    }
    for (long t = from; t < to; t++, values += width) {
        __m512 weights[VECTORS_OF];
        for (int v = 0; v < vectors; v++) weights[v] = _mm512_load_ps(sides[v].scores + t * SIDE);
#pragma GCC unroll 8
        for (int i = 0; i < COLUMNS; i++) {
            __m512 value = _mm512_set1_ps(values[first + i]);
            KEEP(value);
            if (t < whole)
                for (int v = 0; v < vectors; v++) sum[v][i] = _mm512_fmadd_ps(weights[v], value, sum[v][i]);
            else
                for (int v = 0; v < vectors; v++)
                    sum[v][i] = _mm512_mask3_fmadd_ps(weights[v], value, sum[v][i], seeing(sides + v, t));
        }
    }
    for (int v = 0; v < vectors; v++)
        for (int i = 0; i < COLUMNS; i++) _mm512_store_ps(sides[v].sums + (first + i) * SIDE, sum[v][i]);
}

INLINE void score_or_mix(const Shape *s, const Side *sides, int vectors, int values, const float *numbers, long width,
                         long from, long to) {
    if (!values) score_slots(s, sides, vectors, numbers, width, from, to);
    for (int i = 0; i < s->size && values; i += COLUMNS) mix_columns(sides, vectors, i, numbers, width, from, to);
}

/* Whether it is worth it: tokens of one row that see it from the same slot on. */
static int side_by_side(const Query *queries, int many, int count) {
    if (many * count < SIDE / 2 || many * count > VECTORS_OF * SIDE) return 0;
    for (int n = 1; n < many; n++)
        if (queries[n].row != queries->row || queries[n].from != queries->from) return 0;
    return 1;
}

static long longest(const Query *queries, int many) {
    long most = 0;
    for (int n = 0; n < many; n++)
        if (queries[n].to - queries[n].from > most) most = queries[n].to - queries[n].from;
    return most;
}

/* Queries into their vectors. */
static void arrange(const Shape *s, const Query *queries, int many, int count, float *place, Side *sides, long slots) {
    for (int v = 0, n = 0; v * SIDE < many * count; v++) {
        Side *side = sides + v;
        int32_t lengths[SIDE];
        *side = (Side){place, place + 2L * s->size * SIDE, place + (long)s->size * SIDE, .least = slots, .length = 0};
        place += (2L * s->size + slots + 8) * SIDE;
        memset(side->sums, 0, s->size * SIDE * sizeof(float));
        for (int lane = 0; lane < SIDE; lane++, n++) { /* where there is none, the last one again */
            const int m = n < many * count ? n : many * count - 1;
            const Query *query = queries + m / count;
            const float *q = query->q + (long)(m % count) * s->size;
            for (int i = 0; i < s->size; i++) side->q[i * SIDE + lane] = q[i];
            lengths[lane] = query->to - query->from;
            if (lengths[lane] < side->least) side->least = lengths[lane];
            if (lengths[lane] > side->length) side->length = lengths[lane];
        }
        side->lengths = _mm512_loadu_si512(lengths);
    }
}

/* What tokens of one row make of what they see, by `count` heads of one KV head. */
static void attend_side_by_side(const Shape *s, const Query *queries, int many, int count, const void *cache, int kv) {
    const int vectors = (many * count + SIDE - 1) / SIDE;
    const long from = queries->from, slots = longest(queries, many);
    const size_t room = (2L * s->size + slots + 8) * SIDE * vectors;
    float *place = reserve((room + SLICE * s->size) * sizeof(float)), *copy = place + room;
    Side sides[VECTORS_OF];
    arrange(s, queries, many, count, place, sides, slots);
    for (int values = 0; values < 2; values++) {
        for (long at = 0, to; at < slots; at = to) {
            to = at + SLICE < slots ? at + SLICE : slots;
            Slots seen = in_cache(s, cache, queries->row, kv, values, from + at);
            if (seen.narrow) seen = copied(s, seen, to - at, copy);
            const float *numbers = (const float *)seen.memory + seen.at;
            if (vectors == 3) score_or_mix(s, sides, 3, values, numbers, seen.width, at, to);
            else if (vectors == 2) score_or_mix(s, sides, 2, values, numbers, seen.width, at, to);
            else score_or_mix(s, sides, 1, values, numbers, seen.width, at, to);
        }
        for (int v = 0; v < vectors && !values; v++) weigh_side(s, sides + v);
    }
    for (int n = 0; n < many * count; n++) {
        float *y = queries[n / count].y + (long)(n % count) * s->size;
        for (int i = 0; i < s->size; i++) y[i] = sides[n / SIDE].sums[i * SIDE + n % SIDE];
    }
}

#endif
