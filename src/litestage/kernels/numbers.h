/* Numbers as vectors and as halves, and memory to work in. */
#pragma once
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#define VECTORS 1
#else
#define VECTORS 0
#endif
#if VECTORS && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)
#define WIDE 1       /* vectors of 64 bytes, and products of bytes */
#else
#define WIDE 0
#endif
#if WIDE && defined(__AVX512BF16__)
#define DOTS 1       /* products of bf16 */
#else
#define DOTS 0
#endif
#if DOTS && defined(__linux__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
#include <sys/syscall.h>
#include <unistd.h>
#define TILES 1
#else
#define TILES 0
#endif

#define VECTOR 64    /* bytes */
#define GROUP 32
#define BLOCK 16     /* rows of input in a tile register, at most */
/* Read once: what a register holds is not read again from where it came. */
#define KEEP(vector) __asm__("" : "+v"(vector))
#define INLINE static inline __attribute__((always_inline))

INLINE float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE float from_bf16(uint16_t half) { return from_bits((uint32_t)half << 16); }

INLINE uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

/* Eight numbers at once, on any processor. */
typedef float Eight __attribute__((vector_size(32)));
typedef int32_t EightInts __attribute__((vector_size(32)));
typedef uint16_t EightHalves __attribute__((vector_size(16)));

INLINE Eight each(float x) { return (Eight){x, x, x, x, x, x, x, x}; }

INLINE Eight load(const float *x) {
    Eight y;
    memcpy(&y, x, sizeof y);
    return y;
}

/* The first `count` of eight, and nothing that could be larger or add anything after them. */
INLINE Eight load_few(const float *x, long count) {
    if (count >= 8) return load(x);
    Eight y = each(-INFINITY);
    for (long i = 0; i < count; i++) y[i] = x[i];
    return y;
}

INLINE void put(float *x, Eight y) { memcpy(x, &y, sizeof y); }

INLINE Eight larger(Eight a, Eight b) {
#if VECTORS
    return (Eight)_mm256_max_ps((__m256)a, (__m256)b);
#else
    EightInts first = a > b;
    return (Eight)((first & (EightInts)a) | (~first & (EightInts)b));
#endif
}

/* a * b + c */
INLINE Eight fused(Eight a, Eight b, Eight c) {
#if VECTORS
    return (Eight)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

INLINE float sum_of(Eight x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }

INLINE float largest_of(Eight x) {
    float most = x[0];
    for (int i = 1; i < 8; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* exp to a relative error of 2e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]. */
INLINE Eight exp_of(Eight x) {
    const Eight whole = each(12582912.0f); /* adding it rounds to a whole number */
    x = larger(x, each(-87.0f));
    x = -larger(-x, each(-88.0f));
    Eight n = fused(x, each(1.44269504f), whole) - whole;
    Eight r = fused(n, each(2.12194440e-4f), fused(n, each(-0.693359375f), x));
    Eight p = fused(r, each(1.98756915e-4f), each(1.39819995e-3f));
    p = fused(p, r, each(8.33345191e-3f));
    p = fused(p, r, each(4.16657959e-2f));
    p = fused(p, r, each(1.66666655e-1f));
    p = fused(p, r, each(5.00000012e-1f));
    EightInts power = (__builtin_convertvector(n, EightInts) + 127) << 23;
    return (fused(p * r, r, r) + 1.0f) * (Eight)power;
}

INLINE float from_fp16(uint16_t half) {
#if VECTORS
    return _cvtsh_ss(half);
#else
    _Float16 value;
    memcpy(&value, &half, 2);
    return (float)value;
#endif
}

INLINE float inverse_rms(const float *x, int size, float eps) {
    Eight sum = each(0);
    for (int i = 0; i < size; i += 8) sum = fused(load(x + i), load(x + i), sum);
    return 1.0f / sqrtf(sum_of(sum) / size + eps);
}

/* Memory of this thread to work in: what it held before is lost. */
static _Thread_local char *scratch;
static _Thread_local size_t scratch_size;

static void *reserve(size_t size) {
    if (size > scratch_size) {
        free(scratch);
        scratch_size = size + size / 2;
        scratch = aligned_alloc(64, (scratch_size + 63) / 64 * 64);
    }
    return scratch;
}
