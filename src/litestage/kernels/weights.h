/* Packed weights [O, I]: a panel is PANEL output rows, a record what a panel holds of GROUP columns.
 *
 *   int4  16 scales and 16 minima (fp16), then 4 vectors of 64 bytes. Byte r * 4 + b of vector j holds, of output row r,
 *         column 8j + b in its low bits and column 8j + 4 + b in its high bits. weight = scale * bits + minimum
 *   int8  16 scales (fp16), then 8 vectors of 64 bytes; byte r * 4 + b of vector j is column 4j + b. weight = scale * byte
 *   bf16  16 vectors of 32 halves; half 2r + b of vector j is column 2j + b
 */
#pragma once
#include "numbers.h"

#define PANEL 16

enum { BF16, INT8, INT4 };

static const int RECORD[] = {GROUP * PANEL * 2, PANEL * 2 + GROUP * PANEL, PANEL * 4 + GROUP * PANEL / 2};

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
