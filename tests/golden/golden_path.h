/* Where a test written in C finds a file of the golden archives. */
#ifndef MAGMAX_TESTS_GOLDEN_PATH_H
#define MAGMAX_TESTS_GOLDEN_PATH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/** "tiny/model.json" below the folder that MAGMAX_GOLDEN names; the text stays
 * until the program ends. */
static inline const char *golden_path(const char *name)
{
    enum { MOST_PATHS = 32 };
    static char *paths[MOST_PATHS];
    const char *folder = getenv("MAGMAX_GOLDEN");
    if (!folder)
        fail_msg("MAGMAX_GOLDEN is not set; ctest sets it, to BUILD/golden");
    size_t n_folder = strlen(folder);
    int i = 0;
    while (i < MOST_PATHS && paths[i] &&
           strcmp(paths[i] + n_folder + 1, name) != 0)
        i++;
    assert_in_range(i, 0, MOST_PATHS - 1);
    if (!paths[i])
        assert_true(asprintf(&paths[i], "%s/%s", folder, name) > 0);
    return paths[i];
}

#endif
