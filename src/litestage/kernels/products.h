/* Products with packed weights. */
#pragma once
#include "panels_by_tiles.h"
#include "team.h"

#define FEW 4096     /* numbers of input that are not worth the help of another thread */
#define STRIP 524288 /* bytes of input that stay in a core's cache while panels go by */

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

typedef struct {
    const float *x, *norm;
    const uint8_t *weights;
    const float *bias, *down, *up, *onto;
    float *y, eps;
    int kind, out, rank;
    long apart, strip; /* bytes from panel to panel; rows that stay in the cache */
    Input input;
} Product;

/* Row `r` of x becomes a row of the input. */
static void take(const void *job, long r) {
    const Product *p = job;
    const int in = p->input.in, wide = p->kind == SILU || p->kind == GELU_TANH ? 2 * in : in;
    float values[in];
    prologue(p->kind, p->x + r * wide, p->norm, p->eps, in, values);
    place_row(&p->input, r, values);
    squeeze(values, p->down, p->rank, in, p->input.squeezed + r * p->rank);
}

/* sums[panels, PAIR, PANEL] of one or two panels and a block of rows, or by tile registers up to two; how many rows.
 * `opened` are int4's bytes. */
INLINE long sums_of_rows(const Product *p, long first, long end, const uint8_t *w, int panels, const uint8_t *opened,
                         Sums *sums) {
    const Input *input = &p->input;
    const int groups = input->in / GROUP;
    const Block block = block_at(input, first);
#if TILES
    if (input->tiles && input->format == BF16) {
        const int blocks = end - first > block.high ? 2 : 1;
        bf16_tiles(w, p->apart, panels, groups, block.parts, block.high, blocks, sums[0][0]);
        return blocks * block.high;
    }
    for (int q = 0; input->tiles && q < panels; q++, w += p->apart, opened += groups * GROUP * PANEL) {
        if (input->format == INT4) byte_tiles(INT4, w, groups, opened, &block, sums[q][0]);
        else byte_tiles(INT8, w, groups, 0, &block, sums[q][0]);
    }
    if (input->tiles) return block.high;
#endif
    multiply_block(input->format, w, panels == 2 ? p->apart : 0, groups, &block, sums);
    return block.high;
}

/* A strip of rows by a panel and the next, if there is one. */
static void multiply(const void *job, long unit) {
    const Product *p = job;
    const Input *input = &p->input;
    const long pairs = (p->out + 2 * PANEL - 1) / (2 * PANEL), panel = unit % pairs * 2, start = unit / pairs * p->strip;
    const long end = start + p->strip < input->count ? start + p->strip : input->count;
    const int panels = panel * PANEL + PANEL < p->out ? 2 : 1, opens = input->tiles && input->format == INT4;
    const uint8_t *w = p->weights + panel * p->apart;
    Sums sums[2] __attribute__((aligned(64)));
    uint8_t opened[opens ? 2 * PANEL * input->in : 1];
    for (int q = 0; q < panels && opens; q++) open_bits(w + q * p->apart, input->in / GROUP, opened + q * PANEL * input->in);
    if (input->tiles) set_tiles(input->format, input->high);
    for (long first = start, high; first < end; first += high) {
        for (long r = first; r < end && r < first + input->high; r++) { /* these are far apart: nobody foresees them */
            const long place = r * p->out + panel * PANEL;
            __builtin_prefetch(p->y + place, 1);
            __builtin_prefetch(p->y + place + PANEL, 1);
            if (p->onto) __builtin_prefetch(p->onto + place);
            if (p->onto) __builtin_prefetch(p->onto + place + PANEL);
        }
        high = sums_of_rows(p, first, end, w, panels, opened, sums);
        for (int q = 0; q < panels; q++) {
            const int from = (panel + q) * PANEL;
            const Sum beside = {p->bias ? p->bias + from : 0, p->up + from, p->rank, p->out};
            for (long r = 0; r < high && first + r < end; r++) {
                const float *squeezed = input->squeezed + (first + r) * p->rank;
                const long place = (first + r) * p->out + from;
                const float *onto = p->onto ? p->onto + place : 0;
                if (p->out - from >= PANEL) finish(sums[q][r], &beside, squeezed, onto, PANEL, p->y + place);
                else finish(sums[q][r], &beside, squeezed, onto, p->out - from, p->y + place);
            }
        }
    }
    if (input->tiles) leave_tiles();
}

/* Rows of a block: as many as fit, blocks of much the same height. */
static int height(int format, int tiles, long rows) {
    if (tiles) return format == BF16 && rows < BLOCK ? rows : BLOCK;
    const long blocks = (rows + TALL[format] - 1) / TALL[format];
    return (rows + blocks - 1) / blocks;
}

/* y[rows, out] = what `kind` makes of x, times the weights' transpose, plus the bias if there is one, plus the same x
 * times `down` [rank, in] transposed times `up` [rank, out], plus `onto` [rows, out] if there is one.
 * x is [rows, in], or for a gated kind [rows, 2 in]: gates, then values. `in` is a multiple of GROUP. */
void litestage_linear(const float *x, long rows, int in, int kind, const float *norm, float eps, const uint8_t *weights,
                      int format, int out, const float *bias, const float *down, const float *up, int rank,
                      const float *onto, float *y) {
    if (rows <= 0) return;
    const int tiles = by_tiles(format, rows), high = height(format, tiles, rows);
    Product p = {x, norm, weights, bias, down, up, onto, y, eps, kind, out, rank, (long)in / GROUP * RECORD[format], 0,
                 {.format = format, .in = in, .tiles = tiles, .high = high, .count = rows}};
    lay_out(&p.input, rank, reserve(lay_out(&p.input, rank, 0)));
    const long fitting = STRIP / p.input.size / (2 * high) * (2 * high), pairs = (out + 2 * PANEL - 1) / (2 * PANEL);
    p.strip = fitting ? fitting : 2 * high;
    share_out(take, &p, rows, 1 + FEW / in);
    share_out(multiply, &p, pairs * ((rows + p.strip - 1) / p.strip), 1);
}
