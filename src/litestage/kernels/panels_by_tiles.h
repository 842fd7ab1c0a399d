/* The same by tile registers (Intel's AMX), where the processor has them: blocks of up to BLOCK rows with two panels. */
#pragma once
#include "panels.h"

#define SOON 4       /* records of a panel that are fetched before their turn */
#define MANY 8       /* rows of bytes from which on tile registers pay */

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

/* y[BLOCK, PANEL], by the sums that bytes_panel takes. `opened` are int4's bytes. */
INLINE void byte_tiles(int format, const uint8_t *w, int groups, const uint8_t *opened, const Block *x, float *y) {
    __m512 acc[BLOCK];
    for (int r = 0; r < BLOCK; r++) acc[r] = _mm512_setzero_ps();
    written();
    for (int g = 0; g < groups; g++, w += RECORD[format]) {
        int32_t sums[BLOCK][PANEL] __attribute__((aligned(64)));
        _tile_loadd(4, format == INT4 ? opened + g * GROUP * PANEL : w + 2 * PANEL, VECTOR);
        _tile_loadd(6, x->bytes + g * BLOCK * GROUP, GROUP);
        _tile_zero(0);
        if (format == INT4) _tile_dpbsud(0, 6, 4);
        else _tile_dpbssd(0, 6, 4);
        _tile_stored(0, sums, 4 * PANEL);
        const __m512 scale = halves(w);
#pragma GCC unroll 16
        for (int r = 0; r < BLOCK; r++) {
            const __m512 scaled = _mm512_mul_ps(scale, _mm512_set1_ps(x->scales[g * BLOCK + r]));
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums[r])), scaled, acc[r]);
        }
        if (format == INT8) continue;
        const __m512 minimum = halves(w + 2 * PANEL);
#pragma GCC unroll 16
        for (int r = 0; r < BLOCK; r++)
            acc[r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x->sums[g * BLOCK + r]), acc[r]);
    }
    for (int r = 0; r < BLOCK; r++) _mm512_storeu_ps(y + r * PANEL, acc[r]);
}

static void leave_tiles(void) { _tile_release(); }

#else

static void set_tiles(int format, int high) {}
static void open_bits(const uint8_t *w, int groups, uint8_t *bytes) {}
static void leave_tiles(void) {}

#endif
