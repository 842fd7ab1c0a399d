/* What a forward spends its time in on a CPU: products with packed weights, attention over the cache, and the choice
 * of the next token. Residual streams are fp32 throughout; weights and cache may be narrower.
 *
 * No result depends on how many rows run together: each row's sums are taken in one fixed order, and the compiler is
 * told not to fuse products and sums by itself, which it would do here and not there.
 *
 * Packed weights [O, I]: a panel is PANEL output rows, a record what a panel holds of GROUP columns:
 *   int4  16 scales and 16 minima (fp16), then 4 vectors of 64 bytes. Byte r * 4 + b of vector j holds, of output row r,
 *         column 8j + b in its low bits and column 8j + 4 + b in its high bits. weight = scale * bits + minimum
 *   int8  16 scales (fp16), then 8 vectors of 64 bytes; byte r * 4 + b of vector j is column 4j + b. weight = scale * byte
 *   bf16  16 vectors of 32 halves; half 2r + b of vector j is column 2j + b
 */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && !defined(LITESTAGE_PORTABLE)
#include <immintrin.h>
#define VECTORS 1
#else
#define VECTORS 0
#endif
#if VECTORS && defined(__linux__) && defined(__AMX_BF16__) && defined(__AMX_INT8__) && defined(__AVX512F__) \
    && !defined(LITESTAGE_NO_TILES)
#include <sys/syscall.h>
#include <unistd.h>
#define TILES 1
#else
#define TILES 0
#endif

#define PANEL 16
#define LANES 8      /* output rows of a vector: half a panel */
#define VECTOR 64    /* bytes */
#define GROUP 32
#define TILE 4       /* rows of input that share unpacked weights */
#define SHARING 3    /* query heads that share widened keys and values */
#define KEYS 4       /* keys that share queries */
#define WIDE 4       /* vectors of a value that share a weight */
#define MEMBERS 8    /* tokens that share the slots they all see, */
#define CHUNK 64     /* so many at a time */
#define AHEAD 12     /* cache slots */
#define SPAN 512     /* tokens of the vocabulary whose probabilities are summed together */
#define STRIP 64     /* rows of input that stay in the core's cache while a matrix goes by */
#define BLOCK 16     /* rows of input in a tile register, at most */
#define MANY 8       /* rows of bytes from which on tile registers pay */
#define INLINE static inline __attribute__((always_inline))

enum { BF16, INT8, INT4 };
enum { PLAIN, NORMED, SILU, GELU_TANH };

static const int RECORD[] = {GROUP * PANEL * 2, PANEL * 2 + GROUP * PANEL, PANEL * 4 + GROUP * PANEL / 2};

/* One row of input: fp32 for bf16 weights, for tile registers as the sum of two bf16 parts; else bytes with a scale, and
 * the scaled sum of the bytes, a group. */
typedef struct {
    float *values;
    union {
        int8_t *bytes;
        uint16_t *parts; /* [2, in] */
    };
    float *scales, *sums, *squeezed;
} Row;

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

/* ---- input of a product: norm or gate, then bytes ---- */

INLINE float inverse_rms(const float *x, int size, float eps) {
    Eight sum = each(0);
    for (int i = 0; i < size; i += 8) sum = fused(load(x + i), load(x + i), sum);
    return 1.0f / sqrtf(sum_of(sum) / size + eps);
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

static void to_bytes(Row row, int in) {
    for (int g = 0; g < in / GROUP; g++) {
        const float *x = row.values + g * GROUP;
        int8_t *q = row.bytes + g * GROUP;
        Eight sizes = each(0);
        for (int i = 0; i < GROUP; i += 8) sizes = larger(sizes, larger(load(x + i), -load(x + i)));
        const float most = largest_of(sizes);
        const float scale = most / 127.0f, inverse = most > 0 ? 127.0f / most : 0;
        int sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < GROUP; i++) {
            int value = (int)rintf(x[i] * inverse);
            q[i] = (int8_t)value;
            sum += value;
        }
        row.scales[g] = scale;
        row.sums[g] = scale * sum;
    }
}

/* What the first half of a low-rank map makes of a row. `in` is a multiple of GROUP. */
static void squeeze(Row row, const float *down, int rank, int in) {
    for (int k = 0; k < rank; k++, down += in) {
        Eight even = each(0), odd = each(0);
        for (int i = 0; i < in; i += 16) {
            even = fused(load(down + i), load(row.values + i), even);
            odd = fused(load(down + i + 8), load(row.values + i + 8), odd);
        }
        row.squeezed[k] = sum_of(even + odd);
    }
}

/* ---- products: `count` rows of input with one panel ---- */

/* What a record holds of an output row, and of one of its columns. */
INLINE float bf16_at(const uint8_t *record, int lane, int column) {
    return from_bf16(((const uint16_t *)record)[column / 2 * VECTOR / 2 + lane * 2 + column % 2]);
}

INLINE int int8_at(const uint8_t *record, int lane, int column) {
    return (int8_t)record[2 * PANEL + column / 4 * VECTOR + lane * 4 + column % 4];
}

INLINE int int4_at(const uint8_t *record, int lane, int column) {
    return record[4 * PANEL + column / 8 * VECTOR + lane * 4 + column % 4] >> (column / 4 % 2 * 4) & 15;
}

#if VECTORS

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
INLINE void int4_half(const uint8_t *w, int half, int groups, const Row *rows, int count, __m256 *acc) {
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
        for (int r = 0; r < count; r++) {
            const int8_t *x = rows[r].bytes + g * GROUP;
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
            __m256i sum = _mm256_setzero_si256();
            for (int j = 0; j < 8; j++) sum = _mm256_dpbusd_epi32(sum, bits[j], four_bytes(x + 4 * j));
#else
            /* 8 sums of two products of at most 15 * 127 fit 16 bits */
            __m256i sum16 = _mm256_maddubs_epi16(bits[0], four_bytes(x));
            for (int j = 1; j < 8; j++)
                sum16 = _mm256_add_epi16(sum16, _mm256_maddubs_epi16(bits[j], four_bytes(x + 4 * j)));
            __m256i sum = _mm256_madd_epi16(sum16, _mm256_set1_epi16(1));
#endif
            __m256 scaled = _mm256_mul_ps(scale, _mm256_set1_ps(rows[r].scales[g]));
            acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scaled, acc[r]);
            acc[r] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(rows[r].sums[g]), acc[r]);
        }
    }
}

INLINE void int8_half(const uint8_t *w, int half, int groups, const Row *rows, int count, __m256 *acc) {
    for (int g = 0; g < groups; g++, w += RECORD[INT8]) {
        const uint8_t *content = w + 2 * PANEL + VECTOR / 2 * half;
        __m256 scale = halves(w + 2 * LANES * half);
        __m256i sum[TILE];
        for (int r = 0; r < count; r++) sum[r] = _mm256_setzero_si256();
        for (int j = 0; j < 8; j++) {
            __m256i bytes = _mm256_loadu_si256((const __m256i *)(content + VECTOR * j)), size = _mm256_abs_epi8(bytes);
            for (int r = 0; r < count; r++) {
                __m256i x = _mm256_sign_epi8(four_bytes(rows[r].bytes + g * GROUP + 4 * j), bytes);
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
                sum[r] = _mm256_dpbusd_epi32(sum[r], size, x);
#else
                sum[r] = _mm256_add_epi32(sum[r], dot_four(size, x));
#endif
            }
        }
        for (int r = 0; r < count; r++) {
            __m256 scaled = _mm256_mul_ps(scale, _mm256_set1_ps(rows[r].scales[g]));
            acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r]), scaled, acc[r]);
        }
    }
}

/* Both halves at once, so that sums do not wait for each other. */
INLINE void bf16_panel(const uint8_t *w, int in, const Row *rows, int count, __m256 acc[][2]) {
    const __m256i high = _mm256_set1_epi32(0xffff0000);
    for (int i = 0; i < in; i += 2, w += VECTOR) {
        __m256 even[2], odd[2];
        for (int p = 0; p < 2; p++) {
            __m256i both = _mm256_loadu_si256((const __m256i *)(w + p * VECTOR / 2));
            even[p] = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
            odd[p] = _mm256_castsi256_ps(_mm256_and_si256(both, high));
        }
        for (int r = 0; r < count; r++) {
            __m256 first = _mm256_broadcast_ss(rows[r].values + i), second = _mm256_broadcast_ss(rows[r].values + i + 1);
            for (int p = 0; p < 2; p++) {
                acc[r][p] = _mm256_fmadd_ps(first, even[p], acc[r][p]);
                acc[r][p] = _mm256_fmadd_ps(second, odd[p], acc[r][p]);
            }
        }
    }
}

INLINE void tile(int format, const uint8_t *w, int in, const Row *rows, int count, float y[][PANEL]) {
    if (format == BF16) {
        __m256 acc[TILE][2];
        for (int r = 0; r < count; r++) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
        bf16_panel(w, in, rows, count, acc);
        for (int r = 0; r < count; r++)
            for (int p = 0; p < 2; p++) _mm256_storeu_ps(y[r] + p * LANES, acc[r][p]);
        return;
    }
    for (int p = 0; p < 2; p++) {
        __m256 acc[TILE];
        for (int r = 0; r < count; r++) acc[r] = _mm256_setzero_ps();
        if (format == INT4) int4_half(w, p, in / GROUP, rows, count, acc);
        else int8_half(w, p, in / GROUP, rows, count, acc);
        for (int r = 0; r < count; r++) _mm256_storeu_ps(y[r] + p * LANES, acc[r]);
    }
}

#else

/* The same numbers for any processor; what the compiler makes of it. */
INLINE void tile(int format, const uint8_t *w, int in, const Row *rows, int count, float y[][PANEL]) {
    for (int r = 0; r < count; r++)
        for (int lane = 0; lane < PANEL; lane++) {
            const uint8_t *at = w;
            float acc = 0;
            for (int g = 0; g < in / GROUP; g++, at += RECORD[format]) {
                const uint16_t *half = (const uint16_t *)at;
                int sum = 0;
                for (int i = 0; i < GROUP; i++) {
                    const int column = g * GROUP + i;
                    if (format == BF16) acc += rows[r].values[column] * bf16_at(at, lane, i);
                    else if (format == INT8) sum += int8_at(at, lane, i) * rows[r].bytes[column];
                    else sum += int4_at(at, lane, i) * rows[r].bytes[column];
                }
                if (format == BF16) continue;
                acc += sum * (from_fp16(half[lane]) * rows[r].scales[g]);
                if (format == INT4) acc += from_fp16(half[PANEL + lane]) * rows[r].sums[g];
            }
            y[r][lane] = acc;
        }
}

#endif

static void strip(int format, const uint8_t *w, int in, const Row *rows, long count, float y[][PANEL]) {
#define CASE(F)                                         \
    if (left >= TILE) tile(F, w, in, rows, TILE, y);    \
    else if (left == 3) tile(F, w, in, rows, 3, y);     \
    else if (left == 2) tile(F, w, in, rows, 2, y);     \
    else tile(F, w, in, rows, 1, y)
    for (long left = count; left > 0; left -= TILE, rows += TILE, y += TILE) {
        if (format == BF16) { CASE(BF16); }
        else if (format == INT8) { CASE(INT8); }
        else { CASE(INT4); }
    }
}

/* ---- the same by tile registers, where the processor has them: many rows of input with two panels ---- */

/* Whether to use them, and whether this process may: Linux wants to be asked. Sums of bytes are exact, so few rows may go
 * without; bf16's are not, so all go one way. */
static int by_tiles(int format, long rows) {
#if TILES
    static int asked, allowed;
    if (!asked) allowed = !syscall(SYS_arch_prctl, 0x1023, 18);
    asked = 1;
    return allowed && (format == BF16 || rows >= MANY);
#else
    return 0;
#endif
}

/* 16 bits and a rest that has 16: together all but the last 8 bits of an fp32's 24. */
static void to_parts(Row row, int in) {
    for (int i = 0; i < in; i++) {
        const uint16_t first = to_bf16(row.values[i]);
        row.parts[i] = first;
        row.parts[in + i] = to_bf16(row.values[i] - from_bf16(first));
    }
}

#if TILES

/* Tiles 0 to 3 hold sums, 4 and 5 GROUP columns of a panel, 6 and 7 the same columns of up to BLOCK rows of input. */
static void set_tiles(int format, int high) {
    struct {
        uint8_t palette, start, none[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) shape = {.palette = 1};
    const int size = format == BF16 ? 2 : 1; /* bytes of a number */
    for (int t = 0; t < 8; t++) {
        shape.bytes[t] = t < 6 ? VECTOR : GROUP * size;
        shape.rows[t] = t == 4 || t == 5 ? GROUP * size / 4 : high;
    }
    _tile_loadconfig(&shape);
}

/* Of one or two panels, `apart` bytes from each other, and one or two blocks of `high` rows, y[STRIP, PANEL] a panel.
 * Each sum runs over ascending columns, first and second parts of a group in turn, however many rows there are. */
INLINE void bf16_tiles(const uint8_t *w, long apart, int panels, int in, const uint16_t *x, long stride, int high,
                       int blocks, float *y) {
    const uint8_t *first = (const uint8_t *)x, *second = first + high * stride;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int g = 0; g < in / GROUP; g++, w += RECORD[BF16]) {
        _tile_loadd(4, w, VECTOR);
        if (panels == 2) _tile_loadd(5, w + apart, VECTOR);
        for (int part = 0; part < 2; part++) {
            const long at = 2L * (part * in + g * GROUP);
            _tile_loadd(6, first + at, stride);
            _tile_dpbf16ps(0, 6, 4);
            if (panels == 2) _tile_dpbf16ps(1, 6, 5);
            if (blocks == 1) continue;
            _tile_loadd(7, second + at, stride);
            _tile_dpbf16ps(2, 7, 4);
            if (panels == 2) _tile_dpbf16ps(3, 7, 5);
        }
    }
    _tile_stored(0, y, 4 * PANEL);
    if (panels == 2) _tile_stored(1, y + STRIP * PANEL, 4 * PANEL);
    if (blocks == 1) return;
    _tile_stored(2, y + high * PANEL, 4 * PANEL);
    if (panels == 2) _tile_stored(3, y + (STRIP + high) * PANEL, 4 * PANEL);
}

/* A panel's bits of all groups, as bytes [groups, 8, VECTOR]. */
static void open_bits(const uint8_t *w, int groups, uint8_t *bytes) {
    const __m512i low = _mm512_set1_epi8(15);
    for (int g = 0; g < groups; g++, w += RECORD[INT4])
        for (int j = 0; j < 4; j++, bytes += 2 * VECTOR) {
            const __m512i two = _mm512_loadu_si512(w + 4 * PANEL + VECTOR * j);
            _mm512_storeu_si512(bytes, _mm512_and_si512(two, low));
            _mm512_storeu_si512(bytes + VECTOR, _mm512_and_si512(_mm512_srli_epi16(two, 4), low));
        }
}

INLINE __m512 sixteen_halves(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

/* y[BLOCK, PANEL], by the sums that int4_half and int8_half take. `opened` are int4's bytes. */
INLINE void byte_tiles(int format, const uint8_t *w, int groups, const uint8_t *opened, const Row *rows, long stride,
                       float *y) {
    __m512 acc[BLOCK];
    for (int r = 0; r < BLOCK; r++) acc[r] = _mm512_setzero_ps();
    const char *scales = (const char *)rows->scales, *added = (const char *)rows->sums;
    for (int g = 0; g < groups; g++, w += RECORD[format]) {
        int32_t sums[BLOCK][PANEL] __attribute__((aligned(64)));
        _tile_loadd(4, format == INT4 ? opened + g * GROUP * PANEL : w + 2 * PANEL, VECTOR);
        _tile_loadd(6, rows->bytes + g * GROUP, stride);
        _tile_zero(0);
        if (format == INT4) _tile_dpbsud(0, 6, 4);
        else _tile_dpbssd(0, 6, 4);
        _tile_stored(0, sums, 4 * PANEL);
        const __m512 scale = sixteen_halves(w);
#pragma GCC unroll 16
        for (int r = 0; r < BLOCK; r++) {
            const __m512 scaled = _mm512_mul_ps(scale, _mm512_set1_ps(*(const float *)(scales + r * stride + 4 * g)));
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums[r])), scaled, acc[r]);
        }
        if (format == INT8) continue;
        const __m512 minimum = sixteen_halves(w + 2 * PANEL);
#pragma GCC unroll 16
        for (int r = 0; r < BLOCK; r++)
            acc[r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(*(const float *)(added + r * stride + 4 * g)), acc[r]);
    }
    for (int r = 0; r < BLOCK; r++) _mm512_storeu_ps(y + r * PANEL, acc[r]);
}

static void tile_strip(int format, const uint8_t *w, long apart, int panels, int in, const Row *rows, long count,
                       int high, long stride, float y[][STRIP][PANEL]) {
    if (format == BF16) {
        for (long r = 0; r < count; r += 2 * BLOCK)
            bf16_tiles(w, apart, panels, in, rows[r].parts, stride, high, count - r > BLOCK ? 2 : 1, y[0][r]);
        return;
    }
    for (int p = 0; p < panels; p++, w += apart) {
        uint8_t opened[format == INT4 ? PANEL * in : 1];
        if (format == INT4) open_bits(w, in / GROUP, opened);
        for (long r = 0; r < count; r += BLOCK) {
            if (format == INT4) byte_tiles(INT4, w, in / GROUP, opened, rows + r, stride, y[p][r]);
            else byte_tiles(INT8, w, in / GROUP, opened, rows + r, stride, y[p][r]);
        }
    }
}

static void leave_tiles(void) { _tile_release(); }

#else

static void set_tiles(int format, int high) {}
static void tile_strip(int format, const uint8_t *w, long apart, int panels, int in, const Row *rows, long count,
                       int high, long stride, float y[][STRIP][PANEL]) {}
static void leave_tiles(void) {}

#endif

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

/* What is added to a panel's sums: a bias or 0, and `rank` rows of a map, `apart` numbers from each other. */
typedef struct {
    const float *bias, *up;
    int rank;
    long apart;
} Sum;

INLINE void finish(const float *sums, const Sum *beside, const float *squeezed, int width, float *y) {
    if (beside->bias)
        for (int o = 0; o < width; o++) y[o] = sums[o] + beside->bias[o];
    else memcpy(y, sums, width * sizeof(float));
    for (int k = 0; k < beside->rank; k++)
        for (int o = 0; o < width; o++) y[o] += squeezed[k] * beside->up[k * beside->apart + o];
}

/* y[rows, out] = what `kind` makes of x, times the weights' transpose, plus the bias if there is one, plus the same x
 * times `down` [rank, in] transposed times `up` [rank, out].
 * x is [rows, in], or for a gated kind [rows, 2 in]: gates, then values. `in` is a multiple of GROUP. */
void litestage_linear(const float *x, long rows, int in, int kind, const float *norm, float eps, const uint8_t *weights,
                      int format, int out, const float *bias, const float *down, const float *up, int rank, float *y) {
    const int groups = in / GROUP, wide = kind == SILU || kind == GELU_TANH ? 2 * in : in;
    const int all_panels = (out + PANEL - 1) / PANEL;
    const long apart = (long)groups * RECORD[format];
    const int tiles = by_tiles(format, rows), high = format == BF16 && rows < BLOCK ? rows : BLOCK;
    const long padded = tiles ? (rows + high - 1) / high * high : rows; /* whole blocks */
    const long stride = (in * 2 * sizeof(float) + (2 * groups + rank) * sizeof(float) + 63) / 64 * 64;
    char *place = reserve(padded * (stride + sizeof(Row)));
    Row *all = (Row *)(place + padded * stride);
    for (long r = 0; r < padded; r++, place += stride) {
        float *values = (float *)place, *scales = values + 2 * in;
        all[r] = (Row){values, {(int8_t *)(values + in)}, scales, scales + groups, scales + 2 * groups};
    }
    for (long r = rows; r < padded; r++) memset(all[r].scales, 0, 2 * groups * sizeof(float));
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long r = 0; r < rows; r++) {
            prologue(kind, x + r * wide, norm, eps, in, all[r].values);
            if (format != BF16) to_bytes(all[r], in);
            else if (tiles) to_parts(all[r], in);
            squeeze(all[r], down, rank, in);
        }
        if (tiles) set_tiles(format, high);
        for (long first = 0; first < rows; first += STRIP) {
            const long end = first + STRIP < rows ? first + STRIP : rows;
#pragma omp for schedule(static) nowait
            for (int p = 0; p < all_panels; p += 2) {
                const int panels = p + 1 < all_panels ? 2 : 1;
                const uint8_t *w = weights + p * apart;
                float sums[2][STRIP][PANEL] __attribute__((aligned(64)));
                if (tiles) tile_strip(format, w, apart, panels, in, all + first, end - first, high, stride, sums);
                for (int q = 0; q < panels; q++) {
                    if (!tiles) strip(format, w + q * apart, in, all + first, end - first, sums[q]);
                    const int from = (p + q) * PANEL;
                    const Sum beside = {bias ? bias + from : 0, up + from, rank, out};
                    for (long r = first; r < end; r++) {
                        const float *sum = sums[q][r - first];
                        if (out - from >= PANEL) finish(sum, &beside, all[r].squeezed, PANEL, y + r * out + from);
                        else finish(sum, &beside, all[r].squeezed, out - from, y + r * out + from);
                    }
                }
            }
        }
        if (tiles) leave_tiles();
    }
}

/* y[count, in]: chosen output rows of packed weights, as an embedding needs them. */
void litestage_rows(const uint8_t *weights, int format, int in, const int64_t *which, long count, float *y) {
    const long apart = (long)in / GROUP * RECORD[format];
    for (long n = 0; n < count; n++)
        for (int i = 0; i < in; i++) {
            const int lane = which[n] % PANEL, column = i % GROUP;
            const uint8_t *at = weights + which[n] / PANEL * apart + (long)(i / GROUP) * RECORD[format];
            const uint16_t *half = (const uint16_t *)at;
            if (format == BF16) y[n * in + i] = bf16_at(at, lane, column);
            else if (format == INT8) y[n * in + i] = from_fp16(half[lane]) * int8_at(at, lane, column);
            else y[n * in + i] = from_fp16(half[lane]) * int4_at(at, lane, column) + from_fp16(half[PANEL + lane]);
        }
}

/* ---- attention ---- */

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
        Eight sum[SHARING][WIDE];
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

/* Tokens from `first` on; where there are several, the slots [low, high) of `row` are what all of them see there. */
typedef struct {
    long first, row, low, high;
    int many;
} Group;

INLINE long end_of(const Shape *s, int64_t position) { return position < s->slots ? position + 1 : s->slots; }

INLINE long start_of(const Shape *s, long end) { return s->window && end > s->window ? end - s->window : 0; }

/* Groups of up to `most` tokens: those of one cache row, and those whose rows begin alike: with the first `alike` slots
 * of one of them, the leader. */
static long group_tokens(const Shape *s, long tokens, long per_row, const int64_t *positions, const int64_t *rows,
                         const int64_t *leaders, const int64_t *alike, int most, Group *groups) {
    long found = 0;
    for (long t = 0; t < tokens; found++) {
        const long first = t, row = t / per_row, end = end_of(s, positions[t]);
        long low = start_of(s, end), high = end, source = rows[row];
        for (t++; t < tokens && t < first + most; t++) {
            const long other = t / per_row, to = end_of(s, positions[t]), from = start_of(s, to);
            long limit = to < high ? to : high;
            if (rows[other] != rows[row]) {
                if (!leaders || leaders[other] != leaders[row]) break;
                if (alike[other] < limit) limit = alike[other];
                if (alike[row] < limit) limit = alike[row];
            }
            if (limit <= (from > low ? from : low)) break;
            low = from > low ? from : low;
            high = limit;
            if (rows[other] != rows[row]) source = leaders[row];
        }
        if (t == first + 1) high = low;
        groups[found] = (Group){first, source, low, high, (int)(t - first)};
    }
    return found;
}

/* Turn queries and keys in `states` [tokens, heads + 2 kv_heads, size] by tables of all positions, keep keys and values in the cache's block
 * [rows, slots, 2, kv_heads, size], and attend: y [tokens, heads, size]. `per_row` tokens follow each other in a row. */
void litestage_attend(float *states, long tokens, long per_row, const int64_t *positions, const int64_t *rows,
                      const int64_t *leaders, const int64_t *alike, const float *cos, const float *sin,
                      const float *norm, float eps, void *cache, int heads, int kv_heads, int size, int window,
                      float scale, float cap, int narrow, long slots, float *y) {
    const Shape s = {heads, kv_heads, size, window, scale, cap, narrow, slots};
    const int all = heads + 2 * kv_heads;
    const long width = 2L * kv_heads * size;
    /* one query head at a time where there are few, so that all cores have work */
    const int unit = tokens * kv_heads >= 8 ? heads / kv_heads : 1, units = heads / unit;
    const long share = unit == 1 ? 1 : tokens * units / (2 * omp_get_max_threads());
    Group *groups = malloc(tokens * sizeof(Group));
    const long count = group_tokens(&s, tokens, per_row, positions, rows, leaders, alike,
                                    share < 1 ? 1 : share < MEMBERS ? share : MEMBERS, groups);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long t = 0; t < tokens; t++) {
            float *state = states + t * all * size;
            const long at = positions[t] < slots ? positions[t] : slots - 1;
            for (int h = 0; h < heads + kv_heads; h++)
                turn(state + h * size, norm ? norm + h * size : 0, eps, cos ? cos + at * size : 0, sin + at * size, size);
            store(cache, (rows[t / per_row] * slots + at) * width, narrow, 2 * kv_heads * size, state + heads * size);
        }
#pragma omp for schedule(dynamic)
        for (long u = 0; u < count * units; u++) {
            const Group group = groups[u / units];
            const int head = u % units * unit;
            Query queries[MEMBERS];
            size_t needed = 0;
            for (int n = 0; n < group.many; n++) {
                const long t = group.first + n, to = end_of(&s, positions[t]), from = start_of(&s, to);
                const long stride = (to - from + KEYS + 7) / 8 * 8, place = (t * heads + head) * size;
                queries[n] = (Query){states + (t * all + head) * size, 0, y + place, from, to, stride, rows[t / per_row]};
                memset(y + place, 0, unit * size * sizeof(float));
                needed += unit * stride;
            }
            float *scores = reserve((needed + CHUNK * size) * sizeof(float));
            for (int n = 0; n < group.many; n++) {
                queries[n].scores = scores;
                scores += unit * queries[n].stride;
            }
            attend(&s, queries, group.many, unit, cache, head / (heads / kv_heads), group.row, group.low,
                   group.high, scores);
        }
    }
    free(groups);
}

/* ---- the next token ---- */

/* The most probable token of each row of logits [rows, vocabulary], and its probability. */
void litestage_most_probable(const float *logits, long rows, long vocabulary, int64_t *tokens, float *probabilities) {
#pragma omp parallel for schedule(static)
    for (long r = 0; r < rows; r++) {
        const float *x = logits + r * vocabulary;
        const long whole = vocabulary / 8 * 8;
        float rest[8] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
        memcpy(rest, x + whole, (vocabulary - whole) * sizeof(float));
        Eight largest = load(rest), sum;
        for (long v = 0; v < whole; v += 8) largest = larger(largest, load(x + v));
        const float most = largest_of(largest);
        for (int i = 0; i < 8; i++) rest[i] -= most; /* what is beyond the row adds exp(-87) */
        sum = exp_of(load(rest));
        for (long v = 0; v < whole; v += 8) sum += exp_of(load(x + v) - most);
        long token = 0;
        while (token < vocabulary - 1 && x[token] != most) token++;
        tokens[r] = token;
        probabilities[r] = 1.0f / sum_of(sum);
    }
}

/* A draw from each row of logits [rows, vocabulary] at a temperature, by inverting its distribution at `uniforms` in
 * [0, 1); tokens keep their order. */
void litestage_draw(const float *logits, long rows, long vocabulary, float temperature, const float *uniforms,
                    int64_t *tokens) {
    const long spans = (vocabulary + SPAN - 1) / SPAN;
    const float inverse = 1.0f / temperature;
#pragma omp parallel for schedule(static)
    for (long r = 0; r < rows; r++) {
        const float *x = logits + r * vocabulary;
        double *sums = reserve(spans * sizeof(double)), total = 0, below = 0;
        Eight largest = each(-INFINITY);
        for (long v = 0; v < vocabulary; v += 8) largest = larger(largest, load_few(x + v, vocabulary - v));
        const float most = largest_of(largest);
        for (long n = 0; n < spans; n++) {
            Eight sum = each(0);
            for (long v = n * SPAN; v < vocabulary && v < (n + 1) * SPAN; v += 8)
                sum += exp_of((load_few(x + v, vocabulary - v) - most) * inverse);
            total += sums[n] = sum_of(sum);
        }
        const double aim = (uniforms[r] + 0x1p-25) * total; /* they are 2^-24 apart: 0 stands for what is above it */
        long n = 0;
        while (n < spans - 1 && below + sums[n] <= aim) below += sums[n++];
        long token = n * SPAN;
        for (long v = n * SPAN; v < vocabulary && v < (n + 1) * SPAN && below <= aim; v++) {
            const double next = below + exp_of(each((x[v] - most) * inverse))[0];
            if (next > below) token = v;
            below = next;
        }
        tokens[r] = token;
    }
}
