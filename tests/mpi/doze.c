/*
 * sched_yield for the programs that tests run: a rank that waits for another
 * one soon sleeps instead of asking again and again, since tests share cores.
 * Linked into sanitized programs, preloaded (LD_PRELOAD) into others.
 */
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Awake for as long as most messages take. Calls further apart than the last
 * are not of one wait. */
enum { AWAKE_NS = 50000, NAP_NS = 50000, APART_NS = 20000 };

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Both Open MPI's waits (mpi_yield_when_idle) and ours come here each time
 * round. */
int sched_yield(void)
{
    static _Thread_local int64_t begin_ns, last_ns;
    const int64_t ns = now_ns();
    if (ns - last_ns > APART_NS)
        begin_ns = ns;
    if (ns - begin_ns < AWAKE_NS)
        syscall(SYS_sched_yield);
    else
        nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    last_ns = now_ns();
    return 0;
}
