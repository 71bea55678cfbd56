/* The normal distribution; the other random numbers are inline in the header,
 * for kernels to share. */

#include "src/base/rng.h"

#include <math.h>

double mm_rng_normal(mm_rng_key k, uint64_t counter, uint64_t counter_high)
{
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32),
                     (uint32_t)counter_high, (uint32_t)(counter_high >> 32)};
    uint32_t out[4];
    mm_rng_philox(k, c, out);
    double u = ((double)out[0] + 1.0) * 0x1p-32; /* in (0, 1]: log is finite */
    double v = (double)out[1] * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586477 * v);
}
