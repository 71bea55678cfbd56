/* The list of merge methods; each is in a file of its own in src/merge/methods.
 */

#include "src/merge/method.h"

#include <string.h>

const mm_merge_method *mm_merge_method_find(const char *name)
{
    const mm_merge_method *const methods[] = {
        &mm_merge_magmax, &mm_merge_average, &mm_merge_random,
        &mm_merge_task_arithmetic};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(methods[i]->name, name) == 0)
            return methods[i];
    return NULL;
}
