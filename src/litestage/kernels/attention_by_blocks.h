/* Attention over a bf16 cache, GROUP slots at a time: which, and in what order products of bf16 want them. */
#pragma once
#include "attention.h"

INLINE long down(long slot) { return slot / GROUP * GROUP; }

#if DOTS

/* Slots [from, to) of a cache row, `from` a multiple of GROUP: what all tokens of a group see there, or one of them. */
typedef struct {
    long row, from, to;
    int token; /* or -1 */
} Stretch;

/* x [16, 16], its rows `width` numbers apart; of what it becomes, the rows [from, to). */
INLINE void transpose(const float *x, long width, float *y, long stride, int from, int to) {
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(x + width * i);
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

/* A weight of 0 would spread what is not finite to tokens that may not see it; those that may have it in their keys. */
INLINE __m512i only_finite(__m512i x) {
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    return _mm512_maskz_mov_epi16(_mm512_cmpneq_epi16_mask(_mm512_and_si512(x, exponent), exponent), x);
}

/* GROUP values with neighbouring slots side by side: panels [size / BLOCK][BLOCK, BLOCK, 2], `apart` numbers from each
 * other. */
INLINE void pair_slots(int size, const uint16_t *from, long width, uint16_t *values, long apart) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                         36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int p = 0; p < BLOCK; p++, from += 2 * width)
        for (int i = 0; i < size; i += GROUP) {
            const __m512i first = only_finite(_mm512_loadu_si512(from + i));
            const __m512i second = only_finite(_mm512_loadu_si512(from + width + i));
            uint16_t *at = values + i / BLOCK * apart + p * GROUP;
            _mm512_store_si512(at, _mm512_permutex2var_epi16(first, low, second));
            _mm512_store_si512(at + apart, _mm512_permutex2var_epi16(first, high, second));
        }
}

#endif
