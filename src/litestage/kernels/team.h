/* Work shared out among threads, as many as torch has.
 *
 * Whoever is free takes the next units, so that nobody waits for a thread that the system has put aside, unless it holds
 * some. Who waits looks again and again for a moment, as the next job is a few microseconds away, then sleeps: a thread
 * that looks on keeps a core from one that has work. Where helpers were put aside with work in their hands, the cores are
 * wanted by others: the one who shares out goes on alone for a while, twice as long each time.
 */
#pragma once
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include "numbers.h"

#define HANDS 256        /* threads, at most */
#define PATIENCE 50000   /* nanoseconds until who waits sleeps */
#define STALL 300000     /* nanoseconds that are waited for a helper which is put aside, at least */
#define SHORTEST 4000000 /* nanoseconds of going on alone */
#define LONGEST 128000000
#define AT_ONCE 16       /* units that are taken together, at most */

typedef void Work(const void *job, long unit);

static struct {
    atomic_flag taken;      /* there is one job at a time */
    Work *work;
    const void *job;
    long count, grain;
    int hands;              /* threads that may work on it */
    atomic_long next;       /* the first unit that nobody has */
    atomic_int open;        /* there may be some left */
    atomic_uint jobs;       /* so far */
    atomic_uint inside;     /* helpers that look at the job */
    atomic_int asleep, waiting; /* helpers that sleep; whether the one who shares out does */
    int helpers;            /* that were started */
    atomic_llong alone;     /* until when there is no help */
    int64_t last;           /* how long there was none */
    pthread_mutex_t lock;
    pthread_cond_t posted, left;
} team = {.taken = ATOMIC_FLAG_INIT, .lock = PTHREAD_MUTEX_INITIALIZER, .posted = PTHREAD_COND_INITIALIZER,
          .left = PTHREAD_COND_INITIALIZER};

static int threads(void) {
    const int most = omp_get_max_threads();
    return most < HANDS ? most : HANDS;
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

INLINE void pause_a_little(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Look at a number until it is another one, or the patience is at an end; what it is then. */
static unsigned look_at(atomic_uint *number, unsigned old) {
    for (const int64_t until = nanoseconds() + PATIENCE; nanoseconds() < until;)
        for (int i = 0; i < 16; i++, pause_a_little())
            if (atomic_load(number) != old) return atomic_load(number);
    return old;
}

/* Units from `*first` on, fewer and fewer of them at a time; 0 when none are left. */
static long take_units(long *first) {
    long next = atomic_load(&team.next), some;
    do {
        if (next >= team.count) return 0;
        some = (team.count - next) / (2 * team.hands);
        some = some > AT_ONCE ? AT_ONCE : some;
        some = some < team.grain ? team.grain : some;
        some = some > team.count - next ? team.count - next : some;
    } while (!atomic_compare_exchange_weak(&team.next, &next, next + some));
    *first = next;
    return some;
}

static void work_along(void) {
    long first, some;
    while ((some = take_units(&first)))
        for (long u = first; u < first + some; u++) team.work(team.job, u);
}

/* Wait for another job than the last one that was seen; how many there were. */
static unsigned await_job(unsigned seen) {
    const unsigned now = look_at(&team.jobs, seen);
    if (now != seen) return now;
    pthread_mutex_lock(&team.lock);
    atomic_fetch_add(&team.asleep, 1);
    while (atomic_load(&team.jobs) == seen) pthread_cond_wait(&team.posted, &team.lock);
    atomic_fetch_sub(&team.asleep, 1);
    pthread_mutex_unlock(&team.lock);
    return atomic_load(&team.jobs);
}

static void *help(void *number) {
    for (unsigned seen = 0;;) {
        seen = await_job(seen);
        atomic_fetch_add(&team.inside, 1); /* from here on, an open job stays as it is */
        if (atomic_load(&team.open) && (long)number < team.hands) work_along();
        if (atomic_fetch_sub(&team.inside, 1) == 1 && atomic_load(&team.waiting)) {
            pthread_mutex_lock(&team.lock);
            pthread_cond_signal(&team.left);
            pthread_mutex_unlock(&team.lock);
        }
    }
    return 0;
}

/* A process that is split off has no helpers yet. */
static void forget_helpers(void) {
    team.helpers = 0;
    atomic_store(&team.inside, 0);
    atomic_store(&team.asleep, 0);
    atomic_flag_clear(&team.taken);
    pthread_mutex_init(&team.lock, 0);
    pthread_cond_init(&team.posted, 0);
    pthread_cond_init(&team.left, 0);
}

/* Signals are for the threads that were there before. */
static void start_helpers(int wanted) {
    static int told;
    sigset_t all, before;
    pthread_t thread;
    if (!told) told = !pthread_atfork(0, 0, forget_helpers);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (team.helpers < wanted && !pthread_create(&thread, 0, help, (void *)(long)(team.helpers + 1))) {
        pthread_detach(thread);
        team.helpers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

/* Do without help for a while: twice as long as before, if that is not long ago. */
static void go_on_alone(int64_t now) {
    const int again = team.last && now - atomic_load(&team.alone) < 2 * LONGEST;
    team.last = !again ? SHORTEST : team.last < LONGEST ? 2 * team.last : LONGEST;
    atomic_store(&team.alone, now + team.last);
}

/* Wait until no helper is at the job. */
static void await_helpers(void) {
    unsigned inside = atomic_load(&team.inside);
    for (unsigned before = 0; inside && inside != before;) inside = look_at(&team.inside, before = inside);
    if (!inside) return;
    pthread_mutex_lock(&team.lock);
    atomic_store(&team.waiting, 1);
    while (atomic_load(&team.inside)) pthread_cond_wait(&team.left, &team.lock);
    atomic_store(&team.waiting, 0);
    pthread_mutex_unlock(&team.lock);
}

/* Do units [0, count) of a job, `grain` of them at a time or more. */
static void share_out(Work *work, const void *job, long count, long grain) {
    const int hands = threads();
    const int64_t begun = nanoseconds();
    if (count <= grain || hands == 1 || begun < atomic_load(&team.alone) || atomic_flag_test_and_set(&team.taken)) {
        for (long u = 0; u < count; u++) work(job, u);
        return;
    }
    if (team.helpers < hands - 1) start_helpers(hands - 1);
    team.work = work, team.job = job, team.count = count, team.grain = grain, team.hands = hands;
    atomic_store(&team.next, 0);
    atomic_store(&team.open, 1);
    atomic_fetch_add(&team.jobs, 1);
    if (atomic_load(&team.asleep)) {
        pthread_mutex_lock(&team.lock);
        pthread_cond_broadcast(&team.posted);
        pthread_mutex_unlock(&team.lock);
    }
    work_along();
    atomic_store(&team.open, 0);
    if (atomic_load(&team.inside)) {
        const int64_t done = nanoseconds();
        await_helpers();
        const int64_t now = nanoseconds(), waited = now - done;
        if (waited > STALL && waited > done - begun) go_on_alone(now); /* one that ran would have been as fast */
    }
    atomic_flag_clear(&team.taken);
}
