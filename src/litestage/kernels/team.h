/* Work shared out among threads. */
#pragma once
#include <omp.h>

static int threads(void) { return omp_get_max_threads(); }

typedef void Work(const void *job, long unit);

/* Do units [0, count) of a job, `grain` of them at a time. */
static void share_out(Work *work, const void *job, long count, long grain) {
    if (count <= grain) {
        for (long u = 0; u < count; u++) work(job, u);
        return;
    }
#pragma omp parallel for schedule(dynamic, grain)
    for (long u = 0; u < count; u++) work(job, u);
}
