/* A clock for measuring how long something takes. */

#include "src/base/clock.h"

#include <time.h>

double mm_clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
