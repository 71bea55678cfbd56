#ifndef MAGMAX_SRC_BASE_CLOCK_H
#define MAGMAX_SRC_BASE_CLOCK_H

/** Seconds on a clock that never goes back. */
double mm_clock_s(void);

#endif
