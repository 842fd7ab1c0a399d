/* Attention of a forward: which tokens go together, and where their keys and values are kept. */
#pragma once
#include "attention_by_tiles.h"

#define MEMBERS 8    /* tokens that share the slots they all see, */

/* Tokens from `first` on; where there are several, the slots [low, high) of `row` are what all of them see there. */
typedef struct {
    long first, row, low, high;
    int many;
} Group;

INLINE long end_of(const Shape *s, int64_t position) { return position < s->slots ? position + 1 : s->slots; }

INLINE long start_of(const Shape *s, long end) { return s->window && end > s->window ? end - s->window : 0; }

/* Groups of up to `most` tokens: those of one cache row, and those whose rows begin alike: with the first `alike` slots
 * of one of them, the leader. By tiles they are of one row, or all of different ones. */
static long group_tokens(const Shape *s, long tokens, long per_row, const int64_t *positions, const int64_t *rows,
                         const int64_t *leaders, const int64_t *alike, int most, int tiles, Group *groups) {
    long found = 0;
    for (long t = 0; t < tokens; found++) {
        const long first = t, row = t / per_row, end = end_of(s, positions[t]);
        long low = start_of(s, end), high = end, source = rows[row];
        int within = 0, across = 0;
        for (t++; t < tokens && t < first + most; t++) {
            const long other = t / per_row, to = end_of(s, positions[t]), from = start_of(s, to);
            long limit = to < high ? to : high;
            if (rows[other] != rows[row]) {
                if (!leaders || leaders[other] != leaders[row] || (tiles && within)) break;
                if (alike[other] < limit) limit = alike[other];
                if (alike[row] < limit) limit = alike[row];
                if (tiles && rows[other] == rows[(t - 1) / per_row]) break;
            } else if (tiles && across) break;
            if (limit <= (from > low ? from : low)) break;
            low = from > low ? from : low;
            high = limit;
            if (rows[other] != rows[row]) source = leaders[row], across = 1;
            else within = 1;
        }
        if (t == first + 1) high = low;
        groups[found] = (Group){first, source, low, high, (int)(t - first)};
    }
    return found;
}

#if TILES

/* What a group's tokens see, in stretches: one by one what only their own cache rows hold, and in between together. */
static int stretches_of(const Group *group, const Query *queries, Stretch *stretches) {
    int found = 0;
    long from = queries->from, to = queries->to, low = down(group->low + GROUP - 1), high = down(group->high);
    for (const Query *query = queries; query < queries + group->many; query++) {
        if (query->from < from) from = query->from;
        if (query->to > to) to = query->to;
    }
    if (queries[group->many - 1].row == queries->row) {
        stretches[0] = (Stretch){queries->row, down(from), to, -1};
        return 1;
    }
    if (high < low) high = low;
    for (int n = 0; n < group->many; n++) /* each token's slots in their order */
        if (down(queries[n].from) < low) {
            const long to = low < queries[n].to ? low : queries[n].to;
            stretches[found++] = (Stretch){queries[n].row, down(queries[n].from), to, n};
        }
    if (high > low) stretches[found++] = (Stretch){group->row, low, high, -1};
    for (int n = 0; n < group->many; n++)
        if (high < queries[n].to) stretches[found++] = (Stretch){queries[n].row, high, queries[n].to, n};
    return found;
}

#endif

/* Turn queries and keys in `states` [tokens, heads + 2 kv_heads, size] by tables of all positions, keep keys and values in the cache's block
 * [rows, slots, 2, kv_heads, size], and attend: y [tokens, heads, size]. `per_row` tokens follow each other in a row. */
void litestage_attend(float *states, long tokens, long per_row, const int64_t *positions, const int64_t *rows,
                      const int64_t *leaders, const int64_t *alike, const float *cos, const float *sin,
                      const float *norm, float eps, void *cache, int heads, int kv_heads, int size, int window,
                      float scale, float cap, int narrow, long slots, float *y) {
    const Shape s = {heads, kv_heads, size, window, scale, cap, narrow, slots};
    const int all = heads + 2 * kv_heads, shared = heads / kv_heads;
    const int tiles = narrow && size % GROUP == 0 && shared <= BLOCK && by_tiles(BF16, tokens);
    const long width = 2L * kv_heads * size;
    /* one query head at a time where there are few, so that all cores have work */
    const int unit = tiles || tokens * kv_heads >= 8 ? shared : 1, units = heads / unit;
    const int members = tiles ? TOGETHER * (BLOCK / shared) : MEMBERS;
    const long share = unit == 1 ? 1 : tokens * units / (2 * omp_get_max_threads());
    Group *groups = malloc(tokens * sizeof(Group));
    const long count = group_tokens(&s, tokens, per_row, positions, rows, leaders, alike,
                                    share < 1 ? 1 : share < members ? share : members, tiles, groups);
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
        if (tiles) set_tiles(BF16, BLOCK);
#pragma omp for schedule(dynamic)
        for (long u = 0; u < count * units; u++) {
            const Group group = groups[u / units];
            const int head = u % units * unit;
            Query queries[TOGETHER * BLOCK];
            size_t needed = 0;
            for (int n = 0; n < group.many; n++) {
                const long t = group.first + n, to = end_of(&s, positions[t]), from = start_of(&s, to);
                const long stride = (to - from + KEYS + 7) / 8 * 8, place = (t * heads + head) * size;
                queries[n] = (Query){states + (t * all + head) * size, 0, y + place, from, to, stride, rows[t / per_row]};
                memset(y + place, 0, unit * size * sizeof(float));
                needed += unit * stride;
            }
            const int kv = head / shared;
#if TILES
            if (tiles) {
                Stretch stretches[2 * TOGETHER * BLOCK + 1];
                const int several = stretches_of(&group, queries, stretches);
                attend_by_tiles(&s, queries, group.many, unit, cache, kv, stretches, several);
                continue;
            }
#endif
            float *scores = reserve((needed + CHUNK * size) * sizeof(float));
            for (int n = 0; n < group.many; n++) {
                queries[n].scores = scores;
                scores += unit * queries[n].stride;
            }
            attend(&s, queries, group.many, unit, cache, kv, group.row, group.low, group.high, scores);
        }
        if (tiles) leave_tiles();
    }
    free(groups);
}
