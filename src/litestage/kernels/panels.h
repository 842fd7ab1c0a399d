/* Products of a block of rows with two panels, `apart` bytes from each other: y[2][rows, PANEL]. Each sum runs over
 * ascending groups, so that any way to share out rows, panels and registers gives the same bits. */
#pragma once
#include "inputs.h"

#define LANES 8      /* output rows of a short vector: half a panel */
#define PAIR 32      /* rows of a block, or of two by tile registers */
#if WIDE
/* Rows of a block: sums of two panels, and of bytes those of a group as well, are all in registers. */
static const int TALL[] = {12, 6, 6};
#else
static const int TALL[] = {4, 4, 4};
#endif

typedef float Sums[PAIR][PANEL];

#if WIDE

INLINE __m512i four_bytes(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

INLINE __m512 halves(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

/* Weights of four columns and PANEL rows, as bytes without a sign: of int8 128 more than they are. */
INLINE __m512i columns_of(int format, const uint8_t *record, int four) {
    if (format == INT8)
        return _mm512_xor_si512(_mm512_loadu_si512(record + 2 * PANEL + four * VECTOR), _mm512_set1_epi8(-128));
    const __m512i both = _mm512_loadu_si512(record + 4 * PANEL + four / 2 * VECTOR);
    return _mm512_and_si512(four % 2 ? _mm512_srli_epi16(both, 4) : both, _mm512_set1_epi8(15));
}

/* Of bytes, each group's sum is exact; scales of weight and input meet before it does. */
INLINE void bytes_panels(int format, const uint8_t *w, long apart, int groups, const Block *x, int high, Sums *y) {
    __m512 acc[2][6];
    const int8_t *bytes = x->bytes;
    for (int r = 0; r < high; r++) acc[0][r] = acc[1][r] = _mm512_setzero_ps();
    for (int g = 0; g < groups; g++, w += RECORD[format], bytes += high * GROUP) {
        __m512i sum[2][6];
        for (int r = 0; r < high; r++)
            sum[0][r] = sum[1][r] = format == INT8 ? _mm512_set1_epi32(x->offsets[g * high + r]) : _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int four = 0; four < GROUP / 4; four++) {
            const __m512i first = columns_of(format, w, four), second = columns_of(format, w + apart, four);
#pragma GCC unroll 6
            for (int r = 0; r < high; r++) {
                __m512i numbers = four_bytes(bytes + r * GROUP + 4 * four);
                KEEP(numbers);
                sum[0][r] = _mm512_dpbusd_epi32(sum[0][r], first, numbers);
                sum[1][r] = _mm512_dpbusd_epi32(sum[1][r], second, numbers);
            }
        }
#pragma GCC unroll 2
        for (int q = 0; q < 2; q++) {
            const __m512 scale = halves(w + q * apart);
            const __m512 minimum = format == INT4 ? halves(w + q * apart + 2 * PANEL) : scale;
#pragma GCC unroll 6
            for (int r = 0; r < high; r++) {
                const __m512 scaled = _mm512_mul_ps(scale, _mm512_set1_ps(x->scales[g * high + r]));
                acc[q][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[q][r]), scaled, acc[q][r]);
                if (format == INT4) acc[q][r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x->sums[g * high + r]), acc[q][r]);
            }
        }
    }
    for (int r = 0; r < high; r++) {
        _mm512_storeu_ps(y[0][r], acc[0][r]);
        _mm512_storeu_ps(y[1][r], acc[1][r]);
    }
}

INLINE void bf16_panels(const uint8_t *w, long apart, int groups, const Block *x, int high, Sums *y) {
    const __m512i second = _mm512_set1_epi32(0xffff0000);
    const float *values = x->values;
    __m512 acc[2][12];
    for (int r = 0; r < high; r++) acc[0][r] = acc[1][r] = _mm512_setzero_ps();
    for (int g = 0; g < groups; g++, values += high * GROUP)
#pragma GCC unroll 2
        for (int i = 0; i < GROUP; i += 2, w += VECTOR) {
            const __m512i both[2] = {_mm512_loadu_si512(w), _mm512_loadu_si512(w + apart)};
#pragma GCC unroll 2
            for (int odd = 0; odd < 2; odd++) {
                __m512 numbers[2];
#pragma GCC unroll 2
                for (int q = 0; q < 2; q++)
                    numbers[q] = _mm512_castsi512_ps(odd ? _mm512_and_si512(both[q], second) : _mm512_slli_epi32(both[q], 16));
#pragma GCC unroll 12
                for (int r = 0; r < high; r++) {
                    __m512 value = _mm512_set1_ps(values[r * GROUP + i + odd]);
                    KEEP(value);
                    acc[0][r] = _mm512_fmadd_ps(numbers[0], value, acc[0][r]);
                    acc[1][r] = _mm512_fmadd_ps(numbers[1], value, acc[1][r]);
                }
            }
        }
    for (int r = 0; r < high; r++) {
        _mm512_storeu_ps(y[0][r], acc[0][r]);
        _mm512_storeu_ps(y[1][r], acc[1][r]);
    }
}

INLINE void panels_of(int format, const uint8_t *w, long apart, int groups, const Block *x, int high, Sums *y) {
    if (format == BF16) bf16_panels(w, apart, groups, x, high, y);
    else bytes_panels(format, w, apart, groups, x, high, y);
}

#elif VECTORS

INLINE __m256i four_bytes(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}

INLINE __m256 halves(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

/* Sums over four neighbouring bytes, unsigned times signed, in 8 lanes. */
INLINE __m256i dot_four(__m256i unsigned_bytes, __m256i signed_bytes) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned_bytes, signed_bytes), _mm256_set1_epi16(1));
}

/* `w` is a panel's first record, `half` its first eight output rows or the other eight. */
INLINE void int4_half(const uint8_t *w, int half, int groups, const Block *x, int high, __m256 *acc) {
    const __m256i low = _mm256_set1_epi8(15);
    for (int g = 0; g < groups; g++, w += RECORD[INT4]) {
        const uint8_t *content = w + 4 * PANEL + VECTOR / 2 * half;
        __m256 scale = halves(w + 2 * LANES * half), minimum = halves(w + 2 * PANEL + 2 * LANES * half);
        __m256i bits[8];
        for (int j = 0; j < 4; j++) {
            __m256i both = _mm256_loadu_si256((const __m256i *)(content + VECTOR * j));
            bits[2 * j] = _mm256_and_si256(both, low);
            bits[2 * j + 1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        }
        for (int r = 0; r < high; r++) {
            const int8_t *bytes = x->bytes + (g * high + r) * GROUP;
            /* 8 sums of two products of at most 15 * 127 fit 16 bits */
            __m256i sum16 = _mm256_maddubs_epi16(bits[0], four_bytes(bytes));
            for (int j = 1; j < 8; j++)
                sum16 = _mm256_add_epi16(sum16, _mm256_maddubs_epi16(bits[j], four_bytes(bytes + 4 * j)));
            __m256i sum = _mm256_madd_epi16(sum16, _mm256_set1_epi16(1));
            __m256 scaled = _mm256_mul_ps(scale, _mm256_set1_ps(x->scales[g * high + r]));
            acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scaled, acc[r]);
            acc[r] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(x->sums[g * high + r]), acc[r]);
        }
    }
}

INLINE void int8_half(const uint8_t *w, int half, int groups, const Block *x, int high, __m256 *acc) {
    for (int g = 0; g < groups; g++, w += RECORD[INT8]) {
        const uint8_t *content = w + 2 * PANEL + VECTOR / 2 * half;
        __m256 scale = halves(w + 2 * LANES * half);
        __m256i sum[4];
        for (int r = 0; r < high; r++) sum[r] = _mm256_setzero_si256();
        for (int j = 0; j < 8; j++) {
            __m256i bytes = _mm256_loadu_si256((const __m256i *)(content + VECTOR * j)), size = _mm256_abs_epi8(bytes);
            for (int r = 0; r < high; r++) {
                const __m256i four = four_bytes(x->bytes + (g * high + r) * GROUP + 4 * j);
                sum[r] = _mm256_add_epi32(sum[r], dot_four(size, _mm256_sign_epi8(four, bytes)));
            }
        }
        for (int r = 0; r < high; r++) {
            __m256 scaled = _mm256_mul_ps(scale, _mm256_set1_ps(x->scales[g * high + r]));
            acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r]), scaled, acc[r]);
        }
    }
}

/* Both halves at once, so that sums do not wait for each other. */
INLINE void bf16_halves(const uint8_t *w, int groups, const Block *x, int high, __m256 acc[][2]) {
    const __m256i second = _mm256_set1_epi32(0xffff0000);
    const float *values = x->values;
    for (int g = 0; g < groups; g++, values += high * GROUP)
        for (int i = 0; i < GROUP; i += 2, w += VECTOR) {
            __m256 even[2], odd[2];
            for (int p = 0; p < 2; p++) {
                __m256i both = _mm256_loadu_si256((const __m256i *)(w + p * VECTOR / 2));
                even[p] = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
                odd[p] = _mm256_castsi256_ps(_mm256_and_si256(both, second));
            }
            for (int r = 0; r < high; r++) {
                const float *two = values + r * GROUP + i;
                for (int p = 0; p < 2; p++) {
                    acc[r][p] = _mm256_fmadd_ps(_mm256_broadcast_ss(two), even[p], acc[r][p]);
                    acc[r][p] = _mm256_fmadd_ps(_mm256_broadcast_ss(two + 1), odd[p], acc[r][p]);
                }
            }
        }
}

INLINE void panel_of(int format, const uint8_t *w, int groups, const Block *x, int high, float y[][PANEL]) {
    if (format == BF16) {
        __m256 acc[4][2];
        for (int r = 0; r < high; r++) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
        bf16_halves(w, groups, x, high, acc);
        for (int r = 0; r < high; r++)
            for (int p = 0; p < 2; p++) _mm256_storeu_ps(y[r] + p * LANES, acc[r][p]);
        return;
    }
    for (int p = 0; p < 2; p++) {
        __m256 acc[4];
        for (int r = 0; r < high; r++) acc[r] = _mm256_setzero_ps();
        if (format == INT4) int4_half(w, p, groups, x, high, acc);
        else int8_half(w, p, groups, x, high, acc);
        for (int r = 0; r < high; r++) _mm256_storeu_ps(y[r] + p * LANES, acc[r]);
    }
}

#else

/* The same numbers for any processor; what the compiler makes of it. */
INLINE void panel_of(int format, const uint8_t *w, int groups, const Block *x, int high, float y[][PANEL]) {
    for (int r = 0; r < high; r++)
        for (int lane = 0; lane < PANEL; lane++) {
            const uint8_t *at = w;
            float acc = 0;
            for (int g = 0; g < groups; g++, at += RECORD[format]) {
                const uint16_t *half = (const uint16_t *)at;
                const long n = g * high + r;
                int sum = 0;
                for (int i = 0; i < GROUP; i++) {
                    if (format == BF16) acc += x->values[n * GROUP + i] * bf16_at(at, lane, i);
                    else if (format == INT8) sum += int8_at(at, lane, i) * x->bytes[n * GROUP + i];
                    else sum += int4_at(at, lane, i) * x->bytes[n * GROUP + i];
                }
                if (format == BF16) continue;
                acc += sum * (from_fp16(half[lane]) * x->scales[n]);
                if (format == INT4) acc += from_fp16(half[PANEL + lane]) * x->sums[n];
            }
            y[r][lane] = acc;
        }
}

#endif

#if !WIDE

INLINE void panels_of(int format, const uint8_t *w, long apart, int groups, const Block *x, int high, Sums *y) {
    for (int q = 0; q < 2; q++) panel_of(format, w + q * apart, groups, x, high, y[q]);
}

#endif

/* The loops above, for a format and a number of rows that are known when they are compiled. */
static void multiply_block(int format, const uint8_t *w, long apart, int groups, const Block *x, Sums *y) {
#define HIGH(FORMAT, N) \
    case FORMAT * PAIR + N: panels_of(FORMAT, w, apart, groups, x, N, y); break;
#define UP_TO_FOUR(FORMAT) HIGH(FORMAT, 1) HIGH(FORMAT, 2) HIGH(FORMAT, 3) HIGH(FORMAT, 4)
    switch (format * PAIR + x->high) {
        UP_TO_FOUR(BF16) UP_TO_FOUR(INT8) UP_TO_FOUR(INT4)
#if WIDE
        HIGH(BF16, 5) HIGH(BF16, 6) HIGH(BF16, 7) HIGH(BF16, 8) HIGH(BF16, 9) HIGH(BF16, 10) HIGH(BF16, 11) HIGH(BF16, 12)
        HIGH(INT8, 5) HIGH(INT8, 6) HIGH(INT4, 5) HIGH(INT4, 6)
#endif
    }
}
