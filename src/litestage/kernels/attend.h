/* Attention of a forward: which tokens go together, and where their keys and values are kept. */
#pragma once
#include "attention_by_dots.h"
#include "attention_by_lanes.h"
#include "attention_by_tiles.h"
#include "team.h"

#define MEMBERS 8    /* tokens that share the slots they all see */
#define MOST 48      /* tokens of a group, however they attend */

/* Tokens from `first` on; where there are several, the slots [low, high) of `row` are what all of them see there. */
typedef struct {
    long first, row, low, high;
    int many;
} Group;

INLINE long end_of(const Shape *s, int64_t position) { return position < s->slots ? position + 1 : s->slots; }

INLINE long start_of(const Shape *s, long end) { return s->window && end > s->window ? end - s->window : 0; }

/* Groups of up to `most` tokens: those of one cache row, and those whose rows begin alike: with the first `alike` slots
 * of one of them, the leader. `apart`: they are of one row, or all of different ones. */
static long group_tokens(const Shape *s, long tokens, long per_row, const int64_t *positions, const int64_t *rows,
                         const int64_t *leaders, const int64_t *alike, int most, int apart, Group *groups) {
    long found = 0;
    for (long t = 0; t < tokens; found++) {
        const long first = t, row = t / per_row, end = end_of(s, positions[t]);
        long low = start_of(s, end), high = end, source = rows[row];
        int within = 0, across = 0;
        for (t++; t < tokens && t < first + most; t++) {
            const long other = t / per_row, to = end_of(s, positions[t]), from = start_of(s, to);
            long limit = to < high ? to : high;
            if (rows[other] != rows[row]) {
                if (!leaders || leaders[other] != leaders[row] || (apart && within)) break;
                if (alike[other] < limit) limit = alike[other];
                if (alike[row] < limit) limit = alike[row];
                if (apart && rows[other] == rows[(t - 1) / per_row]) break;
            } else if (apart && across) break;
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

#if DOTS

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

typedef struct {
    Shape s;
    float *states, *y;
    long per_row, count;
    const int64_t *positions, *rows;
    const float *cos, *sin, *norm;
    float eps;
    void *cache;
    const Group *groups;
    int unit, tiles, dots; /* unit: query heads that go together */
} Attention;

/* Turn a token's queries and keys, and keep its keys and values. */
static void turn_token(const void *job, long t) {
    const Attention *a = job;
    const Shape *s = &a->s;
    const int size = s->size, all = s->heads + 2 * s->kv_heads;
    float *state = a->states + t * all * size;
    const long at = a->positions[t] < s->slots ? a->positions[t] : s->slots - 1, width = 2L * s->kv_heads * size;
    for (int h = 0; h < s->heads + s->kv_heads; h++)
        turn(state + h * size, a->norm ? a->norm + h * size : 0, a->eps, a->cos ? a->cos + at * size : 0,
             a->sin + at * size, size);
    store(a->cache, (a->rows[t / a->per_row] * s->slots + at) * width, s->narrow, width, state + s->heads * size);
}

/* What `unit` heads of a group's tokens make of what they see. The last groups, which may see the most, come first. */
static void attend_group(const void *job, long u) {
    const Attention *a = job;
    const Shape *s = &a->s;
    const int units = s->heads / a->unit, all = s->heads + 2 * s->kv_heads;
    const Group group = a->groups[a->count - 1 - u / units];
    const int head = u % units * a->unit, kv = head / (s->heads / s->kv_heads);
    Query queries[MOST];
    size_t needed = 0;
    for (int n = 0; n < group.many; n++) {
        const long t = group.first + n, to = end_of(s, a->positions[t]), from = start_of(s, to);
        const long stride = (to - from + KEYS + 7) / 8 * 8;
        float *y = a->y + (t * s->heads + head) * s->size;
        queries[n] = (Query){a->states + (t * all + head) * s->size, 0, y, from, to, stride, a->rows[t / a->per_row]};
        needed += a->unit * stride;
    }
#if DOTS
    Stretch stretches[2 * MOST + 1] = {{0}};
    const int several = a->tiles || a->dots ? stretches_of(&group, queries, stretches) : 0;
    if (a->dots) {
        attend_by_dots(s, queries, group.many, a->unit, a->cache, kv, stretches, several);
        return;
    }
#endif
#if TILES
    if (a->tiles) {
        set_tiles(BF16, BLOCK);
        attend_by_tiles(s, queries, group.many, a->unit, a->cache, kv, stretches, several);
        leave_tiles();
        return;
    }
#endif
#if WIDE
    if (side_by_side(queries, group.many, a->unit)) {
        attend_side_by_side(s, queries, group.many, a->unit, a->cache, kv);
        return;
    }
#endif
    float *scores = reserve((needed + CHUNK * s->size) * sizeof(float));
    for (int n = 0; n < group.many; n++) {
        memset(queries[n].y, 0, a->unit * s->size * sizeof(float));
        queries[n].scores = scores;
        scores += a->unit * queries[n].stride;
    }
    attend(s, queries, group.many, a->unit, a->cache, kv, group.row, group.low, group.high, scores);
}

/* Turn queries and keys in `states` [tokens, heads + 2 kv_heads, size] by tables of all positions, keep keys and values in
 * the cache's block [rows, slots, 2, kv_heads, size], and attend: y [tokens, heads, size]. `per_row` tokens follow each
 * other in a row. */
void litestage_attend(float *states, long tokens, long per_row, const int64_t *positions, const int64_t *rows,
                      const int64_t *leaders, const int64_t *alike, const float *cos, const float *sin,
                      const float *norm, float eps, void *cache, int heads, int kv_heads, int size, int window,
                      float scale, float cap, int narrow, long slots, float *y) {
    Attention a = {{heads, kv_heads, size, window, scale, cap, narrow, slots}, states, y, per_row, 0, positions, rows,
                   cos, sin, norm, eps, cache};
    const int shared = heads / kv_heads;
    a.tiles = narrow && size % GROUP == 0 && shared <= BLOCK && by_tiles(BF16, tokens);
    a.dots = DOTS && !a.tiles && narrow && size % GROUP == 0 && shared <= ABREAST_ROWS;
    /* one query head at a time where there are few, so that all cores have work */
    a.unit = a.tiles || a.dots || tokens * kv_heads >= 8 ? shared : 1;
    const int most = a.tiles ? TOGETHER * (BLOCK / shared) : WIDE && shared < MOST ? MOST / shared : MEMBERS;
    const long share = a.unit == 1 ? 1 : tokens * (heads / a.unit) / (2 * threads());
    Group *groups = malloc(tokens * sizeof(Group));
    a.count = group_tokens(&a.s, tokens, per_row, positions, rows, leaders, alike,
                           share < 1 ? 1 : share < most ? share : most, a.tiles || WIDE, groups);
    a.groups = groups;
    share_out(turn_token, &a, tokens, 4);
    share_out(attend_group, &a, a.count * (heads / a.unit), 1);
    free(groups);
}
