/* Products with packed weights.
 *
 * Packed weights [O, I]: a panel is PANEL output rows, a record what a panel holds of GROUP columns:
 *   int4  16 scales and 16 minima (fp16), then 4 vectors of 64 bytes. Byte r * 4 + b of vector j holds, of output row r,
 *         column 8j + b in its low bits and column 8j + 4 + b in its high bits. weight = scale * bits + minimum
 *   int8  16 scales (fp16), then 8 vectors of 64 bytes; byte r * 4 + b of vector j is column 4j + b. weight = scale * byte
 *   bf16  16 vectors of 32 halves; half 2r + b of vector j is column 2j + b
 */
#pragma once
#include "numbers.h"

#define PANEL 16
#define LANES 8      /* output rows of a vector: half a panel */
#define TILE 4       /* rows of input that share unpacked weights */
#define STRIP 1048576 /* bytes of input that stay in the core's cache while a matrix goes by */
#define ALONE 96     /* rows from which on a core multiplies rows of its own by all weights */
#define SOON 4       /* records of a panel that are fetched before their turn */
#define PAIR 32      /* rows that go through a panel together: two blocks */
#define MANY 8       /* rows of bytes from which on tile registers pay */

enum { BF16, INT8, INT4 };
enum { PLAIN, NORMED, SILU, GELU_TANH };

static const int RECORD[] = {GROUP * PANEL * 2, PANEL * 2 + GROUP * PANEL, PANEL * 4 + GROUP * PANEL / 2};

/* One row of input: fp32 for bf16 weights; else bytes with a scale, and the scaled sum of the bytes, a group. */
typedef struct {
    union {
        float *values;
        int8_t *bytes;
    };
    float *scales, *sums, *squeezed;
} Row;

/* ---- input of a product: norm or gate, then bytes ---- */

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

static void to_bytes(Row row, const float *values, int in) {
    for (int g = 0; g < in / GROUP; g++) {
        const float *x = values + g * GROUP;
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
static void squeeze(Row row, const float *values, const float *down, int rank, int in) {
    for (int k = 0; k < rank; k++, down += in) {
        Eight even = each(0), odd = each(0);
        for (int i = 0; i < in; i += 16) {
            even = fused(load(down + i), load(values + i), even);
            odd = fused(load(down + i + 8), load(values + i + 8), odd);
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

/* A row of input as the sum of two bf16 parts, all but the last 8 bits of an fp32's 24. Rows lie in blocks
 * [in / GROUP, 2, high, GROUP], so that what a tile register takes lies together; `parts` is this one's first group. */
static void to_parts(const float *values, int in, int high, uint16_t *parts) {
    for (int i = 0; i < in; i += GROUP, parts += 2L * high * GROUP) {
        __m512i both[2];
        split(_mm512_loadu_ps(values + i), _mm512_loadu_ps(values + i + BLOCK), both);
        _mm512_storeu_si512(parts, both[0]);
        _mm512_storeu_si512(parts + high * GROUP, both[1]);
    }
}

/* The compiler is not told what tile instructions read: all that was written before is in memory from here on. */
INLINE void written(void) { __asm__ volatile("" ::: "memory"); }

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
    __asm__ volatile("" : : "r"(&shape) : "memory"); /* it is written, see above */
    _tile_loadconfig(&shape);
}

/* Of one or two panels, `apart` bytes from each other, and one or two blocks of `high` rows, y[PAIR, PANEL] a panel.
 * Each sum runs over ascending columns, first and second parts of a group in turn, however many rows there are. */
INLINE void bf16_tiles(const uint8_t *w, long apart, int panels, int groups, const uint16_t *x, int high, int blocks,
                       float *y) {
    const uint16_t *other = x + 2L * groups * high * GROUP;
    written();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int g = 0; g < groups; g++, w += RECORD[BF16]) {
        for (int line = 0; line < RECORD[BF16]; line += VECTOR) {
            __builtin_prefetch(w + SOON * RECORD[BF16] + line);
            if (panels == 2) __builtin_prefetch(w + apart + SOON * RECORD[BF16] + line);
        }
        _tile_loadd(4, w, VECTOR);
        if (panels == 2) _tile_loadd(5, w + apart, VECTOR);
        for (int part = 0; part < 2; part++, x += high * GROUP, other += high * GROUP) {
            _tile_loadd(6, x, VECTOR);
            _tile_dpbf16ps(0, 6, 4);
            if (panels == 2) _tile_dpbf16ps(1, 6, 5);
            if (blocks == 1) continue;
            _tile_loadd(7, other, VECTOR);
            _tile_dpbf16ps(2, 7, 4);
            if (panels == 2) _tile_dpbf16ps(3, 7, 5);
        }
    }
    _tile_stored(0, y, 4 * PANEL);
    if (panels == 2) _tile_stored(1, y + PAIR * PANEL, 4 * PANEL);
    if (blocks == 1) return;
    _tile_stored(2, y + high * PANEL, 4 * PANEL);
    if (panels == 2) _tile_stored(3, y + (PAIR + high) * PANEL, 4 * PANEL);
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
    written();
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

static void leave_tiles(void) { _tile_release(); }

#else

static void to_parts(const float *values, int in, int high, uint16_t *parts) {}
static void set_tiles(int format, int high) {}
static void open_bits(const uint8_t *w, int groups, uint8_t *bytes) {}
static void leave_tiles(void) {}

#endif

/* What is added to a panel's sums: a bias or 0, and `rank` rows of a map, `apart` numbers from each other. */
typedef struct {
    const float *bias, *up;
    int rank;
    long apart;
} Sum;

/* `onto` is what the row is added to, or 0. */
INLINE void finish(const float *sums, const Sum *beside, const float *squeezed, const float *onto, int width, float *y) {
    float row[PANEL];
    memcpy(row, sums, width * sizeof(float));
    for (int o = 0; o < width && beside->bias; o++) row[o] += beside->bias[o];
    for (int k = 0; k < beside->rank; k++)
        for (int o = 0; o < width; o++) row[o] += squeezed[k] * beside->up[k * beside->apart + o];
    for (int o = 0; o < width && onto; o++) row[o] += onto[o];
    memcpy(y, row, width * sizeof(float));
}

/* Input of a product as its weights want it. By tile registers, rows come in blocks of `high`. */
typedef struct {
    int format, in, tiles, high;
    long count, stride; /* bytes from row to row */
    Row *rows;
    uint16_t *parts;
} Input;

/* Room for the input behind `place`, or with none how much is needed. */
static size_t lay_out(Input *input, int rank, char *place) {
    const int groups = input->in / GROUP, in_parts = input->tiles && input->format == BF16;
    const long padded = (input->count + input->high - 1) / input->high * input->high;
    const long size = in_parts ? 0 : input->format == BF16 ? input->in * sizeof(float) : input->in;
    input->stride = (size + (2 * groups + rank) * sizeof(float) + 63) / 64 * 64;
    const size_t all = padded * (input->stride + sizeof(Row)), parts = in_parts ? padded * input->in * 4L : 0;
    if (!place) return parts + all;
    input->parts = (uint16_t *)place;
    input->rows = (Row *)(place + parts + padded * input->stride);
    for (long r = 0; r < padded; r++) {
        char *row = place + parts + r * input->stride;
        float *scales = (float *)(row + size);
        input->rows[r] = (Row){{(float *)row}, scales, scales + groups, scales + 2 * groups};
        if (r >= input->count) memset(scales, 0, 2 * groups * sizeof(float));
    }
    return parts + all;
}

/* Where a row's parts begin. */
INLINE uint16_t *parts_of(const Input *input, long r) {
    return input->parts + r / input->high * input->high * input->in * 2 + r % input->high * GROUP;
}

/* sums[panels, PAIR, PANEL] of up to PAIR rows from `first` on, and one or two panels. `opened` are int4's bytes. */
INLINE void products(const Input *input, long first, int count, const uint8_t *w, long apart, int panels,
                     const uint8_t *opened, float sums[][PAIR][PANEL]) {
    const Row *rows = input->rows + first;
    const int format = input->format;
#if TILES
    const int groups = input->in / GROUP;
    if (input->tiles && format == BF16) {
        const int blocks = count > input->high ? 2 : 1;
        bf16_tiles(w, apart, panels, groups, parts_of(input, first), input->high, blocks, sums[0][0]);
        return;
    }
    for (int p = 0; input->tiles && p < panels; p++, w += apart, opened += groups * GROUP * PANEL)
        for (int r = 0; r < count; r += BLOCK) {
            if (format == INT4) byte_tiles(INT4, w, groups, opened, rows + r, input->stride, sums[p][r]);
            else byte_tiles(INT8, w, groups, 0, rows + r, input->stride, sums[p][r]);
        }
#endif
    for (int p = 0; !input->tiles && p < panels; p++) strip(format, w + p * apart, input->in, rows, count, sums[p]);
}

typedef struct {
    const float *x, *norm;
    const uint8_t *weights;
    const float *bias, *down, *up, *onto;
    float *y, eps;
    int in, kind, format, out, rank, tiles;
    long apart; /* bytes from panel to panel */
} Product;

/* Row `r` of x becomes row `at` of the input. */
static void take(const Product *p, Input *input, long r, long at) {
    float values[p->in], *kept = p->format == BF16 && !p->tiles ? input->rows[at].values : values;
    const int wide = p->kind == SILU || p->kind == GELU_TANH ? 2 * p->in : p->in;
    prologue(p->kind, p->x + r * wide, p->norm, p->eps, p->in, kept);
    if (p->format != BF16) to_bytes(input->rows[at], kept, p->in);
    else if (p->tiles) to_parts(kept, p->in, input->high, parts_of(input, at));
    squeeze(input->rows[at], kept, p->down, p->rank, p->in);
}

/* Rows [first, end) of the input by panel `panel` and the next, if there is one, into rows `to` and following of y. */
static void multiply(const Product *p, const Input *input, long first, long end, int panel, long to) {
    const int panels = panel * PANEL + PANEL < p->out ? 2 : 1, opens = p->tiles && p->format == INT4;
    const uint8_t *w = p->weights + panel * p->apart;
    float sums[2][PAIR][PANEL] __attribute__((aligned(64)));
    uint8_t opened[opens ? 2 * PANEL * p->in : 1];
    for (int q = 0; q < panels && opens; q++) open_bits(w + q * p->apart, p->in / GROUP, opened + q * PANEL * p->in);
    for (long at = first; at < end; at += PAIR) {
        const int count = end - at < PAIR ? end - at : PAIR;
        products(input, at, count, w, p->apart, panels, opened, sums);
        for (int q = 0; q < panels; q++) {
            const int from = (panel + q) * PANEL;
            const Sum beside = {p->bias ? p->bias + from : 0, p->up + from, p->rank, p->out};
            for (int r = 0; r < count; r++) {
                const float *squeezed = input->rows[at + r].squeezed;
                const long place = (to + at - first + r) * p->out + from;
                const float *onto = p->onto ? p->onto + place : 0;
                if (p->out - from >= PANEL) finish(sums[q][r], &beside, squeezed, onto, PANEL, p->y + place);
                else finish(sums[q][r], &beside, squeezed, onto, p->out - from, p->y + place);
            }
        }
    }
}

/* y[rows, out] = what `kind` makes of x, times the weights' transpose, plus the bias if there is one, plus the same x
 * times `down` [rank, in] transposed times `up` [rank, out], plus `onto` [rows, out] if there is one.
 * x is [rows, in], or for a gated kind [rows, 2 in]: gates, then values. `in` is a multiple of GROUP. */
void litestage_linear(const float *x, long rows, int in, int kind, const float *norm, float eps, const uint8_t *weights,
                      int format, int out, const float *bias, const float *down, const float *up, int rank,
                      const float *onto, float *y) {
    if (rows <= 0) return;
    const int tiles = by_tiles(format, rows), panels = (out + PANEL - 1) / PANEL;
    const int high = !tiles ? 1 : format == BF16 && rows < BLOCK ? rows : BLOCK;
    const Product p = {x, norm, weights, bias, down, up, onto, y, eps, in, kind, format, out, rank, tiles,
                       (long)in / GROUP * RECORD[format]};
    const long some = STRIP / (in * sizeof(float)) / PAIR * PAIR, strip = some ? some : PAIR;
    if (rows >= ALONE * omp_get_max_threads()) { /* what a core writes, it reads next */
#pragma omp parallel
        {
            const long all = (rows + PAIR - 1) / PAIR, cores = omp_get_num_threads(), core = omp_get_thread_num();
            const long last = all * (core + 1) / cores * PAIR, end = last < rows ? last : rows;
            for (long first = all * core / cores * PAIR; first < end; first += strip) {
                Input input = {format, in, tiles, high, end - first < strip ? end - first : strip, 0, 0, 0};
                lay_out(&input, rank, reserve(lay_out(&input, rank, 0)));
                for (long r = 0; r < input.count; r++) take(&p, &input, first + r, r);
                if (tiles) set_tiles(format, high);
                for (int panel = 0; panel < panels; panel += 2) multiply(&p, &input, 0, input.count, panel, first);
                if (tiles) leave_tiles();
            }
        }
        return;
    }
    Input input = {format, in, tiles, high, rows, 0, 0, 0};
    lay_out(&input, rank, reserve(lay_out(&input, rank, 0)));
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long r = 0; r < rows; r++) take(&p, &input, r, r);
        if (tiles) set_tiles(format, high);
        for (long first = 0; first < rows; first += strip) {
            const long end = first + strip < rows ? first + strip : rows;
#pragma omp for schedule(static) nowait
            for (int panel = 0; panel < panels; panel += 2) multiply(&p, &input, first, end, panel, first);
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
