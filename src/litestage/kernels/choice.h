/* The choice of the next token. */
#pragma once
#include "numbers.h"
#include "team.h"

#define SPAN 512     /* tokens of the vocabulary whose probabilities are summed together */

typedef struct {
    const float *logits;
    long vocabulary;
    float temperature;
    const float *uniforms;
    int64_t *tokens;
    float *probabilities;
} Choice;

static void choose_row(const void *job, long r) {
    const Choice *c = job;
    const long vocabulary = c->vocabulary;
    const float *x = c->logits + r * vocabulary;
    const long whole = vocabulary / 8 * 8;
    float rest[8] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    memcpy(rest, x + whole, (vocabulary - whole) * sizeof(float));
    Eight largest = load(rest), zero = each(0), sum;
    for (long v = 0; v < whole; v += 8) {
        largest = larger(largest, load(x + v));
        zero += larger(each(-FLT_MAX), load(x + v)) * 0.0f; /* in this order a NAN stays */
    }
    const float most = largest_of(largest);
    zero += larger(each(-FLT_MAX), load(rest)) * 0.0f;
    const float finite = sum_of(zero) + most * 0.0f;
    for (int i = 0; i < 8; i++) rest[i] -= most; /* what is beyond the row adds exp(-87) */
    sum = exp_of(load(rest));
    for (long v = 0; v < whole; v += 8) sum += exp_of(load(x + v) - most);
    long token = 0;
    while (token < vocabulary - 1 && x[token] != most) token++;
    c->tokens[r] = token;
    c->probabilities[r] = 1.0f / sum_of(sum) + finite;
}

static void draw_row(const void *job, long r) {
    const Choice *c = job;
    const long vocabulary = c->vocabulary, spans = (vocabulary + SPAN - 1) / SPAN;
    const float inverse = 1.0f / c->temperature;
    const float *x = c->logits + r * vocabulary;
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
    const double aim = (c->uniforms[r] + 0x1p-25) * total; /* they are 2^-24 apart: 0 stands for what is above it */
    long n = 0;
    while (n < spans - 1 && below + sums[n] <= aim) below += sums[n++];
    long token = n * SPAN;
    for (long v = n * SPAN; v < vocabulary && v < (n + 1) * SPAN && below <= aim; v++) {
        const double next = below + exp_of(each((x[v] - most) * inverse))[0];
        if (next > below) token = v;
        below = next;
    }
    c->tokens[r] = token;
}

/* The most probable token of each row of logits [rows, vocabulary], and its probability: NAN where one is NAN or
 * infinite, but for tokens that cannot be. Neither the largest nor `exp_of` keeps a NAN; the sum of all times zero does. */
void litestage_most_probable(const float *logits, long rows, long vocabulary, int64_t *tokens, float *probabilities) {
    const Choice c = {logits, vocabulary, 0, 0, tokens, probabilities};
    share_out(choose_row, &c, rows, 1);
}

/* A draw from each row of logits [rows, vocabulary] at a temperature, by inverting its distribution at `uniforms` in
 * [0, 1); tokens keep their order. */
void litestage_draw(const float *logits, long rows, long vocabulary, float temperature, const float *uniforms,
                    int64_t *tokens) {
    const Choice c = {logits, vocabulary, temperature, uniforms, tokens, 0};
    share_out(draw_row, &c, rows, 1);
}
