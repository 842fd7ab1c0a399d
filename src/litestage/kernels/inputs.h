/* The input of a product: norm or gate first, then laid out in blocks of rows as its weights want it. */
#pragma once
#include "weights.h"

enum { PLAIN, NORMED, SILU, GELU_TANH };

/* Rows of input that go through a panel together. Bytes have a scale a group, and their sum: for int4 the sum of the
 * numbers they stand for, for int8 -128 times that of the bytes. Parts are an fp32's two halves in bf16. */
typedef struct {
    union {
        const float *values;   /* [groups, high, GROUP] */
        const int8_t *bytes;   /* [groups, high, GROUP] */
        const uint16_t *parts; /* [groups, 2, high, GROUP] */
    };
    const float *scales; /* [groups, high] */
    union {
        const float *sums;
        const int32_t *offsets;
    };
    int high;
} Block;

/* All of them: blocks of `high` rows. By tile registers the last one is as high as the others, else it ends with the input. */
typedef struct {
    int format, in, tiles, high;
    long count, size; /* rows; bytes of a row's numbers */
    char *numbers;
    float *scales, *sums, *squeezed; /* squeezed[count, rank] */
} Input;

/* Room for the input behind `place`, or with none how much is needed. */
static size_t lay_out(Input *input, int rank, char *place) {
    const size_t padded = (input->count + input->high - 1) / input->high * input->high, groups = input->in / GROUP;
    input->size = input->format == BF16 ? 4L * input->in : input->in;
    input->numbers = place;
    input->scales = (float *)(place + padded * input->size);
    input->sums = input->scales + padded * groups;
    input->squeezed = input->sums + padded * groups;
    return padded * (input->size + (2 * groups + rank) * sizeof(float));
}

/* The block that row `first` begins. */
INLINE Block block_at(const Input *input, long first) {
    const long left = input->count - first, groups = input->in / GROUP;
    return (Block){{(const float *)(input->numbers + first * input->size)},
                   input->scales + first * groups,
                   {input->sums + first * groups},
                   input->tiles || left > input->high ? input->high : left};
}

static void prologue(int kind, const float *x, const float *norm, float eps, int in, float *y) {
    if (kind == NORMED) {
        const float scale = inverse_rms(x, in, eps);
        for (int i = 0; i < in; i += 8) put(y + i, load(x + i) * scale * load(norm + i));
    } else if (kind == PLAIN) {
        memcpy(y, x, in * sizeof(float));
    } else {
        for (int i = 0; i < in; i += 8) {
            Eight gate = load(x + i), power = gate;
            if (kind == GELU_TANH) /* twice the tanh's argument */
                power = (gate + gate * gate * gate * 0.044715f) * 1.5957691216f;
            put(y + i, gate / (exp_of(-power) + 1.0f) * load(x + in + i));
        }
    }
}

/* A group of numbers as bytes with a scale; what they add up to. */
#if WIDE

INLINE int to_bytes(const float *x, int8_t *bytes, float *scale) {
    const __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + GROUP / 2);
    const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(first), _mm512_abs_ps(second)));
    const __m512 inverse = _mm512_set1_ps(most > 0 ? 127.0f / most : 0);
    const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(first, inverse));
    const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(second, inverse));
    _mm_storeu_si128((__m128i *)bytes, _mm512_cvtepi32_epi8(low));
    _mm_storeu_si128((__m128i *)(bytes + GROUP / 2), _mm512_cvtepi32_epi8(high));
    *scale = most / 127.0f;
    return _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
}

#else

INLINE int to_bytes(const float *x, int8_t *bytes, float *scale) {
    Eight sizes = each(0);
    for (int i = 0; i < GROUP; i += 8) sizes = larger(sizes, larger(load(x + i), -load(x + i)));
    const float most = largest_of(sizes);
    const float inverse = most > 0 ? 127.0f / most : 0;
    int sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < GROUP; i++) {
        int value = (int)rintf(x[i] * inverse);
        bytes[i] = (int8_t)value;
        sum += value;
    }
    *scale = most / 127.0f;
    return sum;
}

#endif

#if TILES

/* GROUP numbers as two bf16 parts. */
INLINE void split(__m512 first, __m512 second, __m512i *parts) {
    parts[0] = (__m512i)_mm512_cvtne2ps_pbh(second, first);
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(parts[0]));
    const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(parts[0], 1));
    first = _mm512_sub_ps(first, _mm512_castsi512_ps(_mm512_slli_epi32(low, 16)));
    second = _mm512_sub_ps(second, _mm512_castsi512_ps(_mm512_slli_epi32(high, 16)));
    parts[1] = (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

/* A group of numbers as the sum of two bf16 parts, all but the last 8 bits of an fp32's 24. */
INLINE void to_parts(const float *x, int high, uint16_t *parts) {
    __m512i both[2];
    split(_mm512_loadu_ps(x), _mm512_loadu_ps(x + GROUP / 2), both);
    _mm512_storeu_si512(parts, both[0]);
    _mm512_storeu_si512(parts + high * GROUP, both[1]);
}

#else

INLINE void to_parts(const float *x, int high, uint16_t *parts) {}

#endif

/* What the first half of a low-rank map makes of a row: [rank]. `in` is a multiple of GROUP. */
static void squeeze(const float *values, const float *down, int rank, int in, float *squeezed) {
    for (int k = 0; k < rank; k++, down += in) {
        Eight even = each(0), odd = each(0);
        for (int i = 0; i < in; i += 16) {
            even = fused(load(down + i), load(values + i), even);
            odd = fused(load(down + i + 8), load(values + i + 8), odd);
        }
        squeezed[k] = sum_of(even + odd);
    }
}

/* A row's numbers to their places in its block. */
static void place_row(const Input *input, long row, const float *values) {
    const long first = row / input->high * input->high;
    const Block block = block_at(input, first);
    for (long g = 0, n = row - first; g < input->in / GROUP; g++, n += block.high, values += GROUP) {
        if (input->format != BF16) {
            float *scale = (float *)block.scales + n, *added = (float *)block.sums + n;
            const int sum = to_bytes(values, (int8_t *)block.bytes + n * GROUP, scale);
            if (input->format == INT4) *added = *scale * sum;
            else *(int32_t *)added = -128 * sum;
        } else if (input->tiles) {
            to_parts(values, block.high, (uint16_t *)block.parts + (n + g * block.high) * GROUP);
        } else {
            memcpy((float *)block.values + n * GROUP, values, GROUP * sizeof(float));
        }
    }
}
