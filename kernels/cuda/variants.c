/* Reading from the environment which variants of its kernels the CUDA backend
 * is to use. */

#include "kernels/cuda/variants.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_VALUES = 6 };

static const struct variant {
    const char *name;
    size_t offset; /* of an int in mm_cuda_variants */
    const char *values[MOST_VALUES];
} all[] = {
    {"bias_sums",
     offsetof(mm_cuda_variants, bias_sums),
     {"fused", "separate", "library"}},
    {"algorithms", offsetof(mm_cuda_variants, algorithms), {"first", "table"}},
    {"workspace",
     offsetof(mm_cuda_variants, workspace),
     {"default", "32", "64", "128"}},
    {"attention_grad",
     offsetof(mm_cuda_variants, attention_grad),
     {"two_blocks", "one_pass"}},
};

enum { N_VARIANTS = sizeof all / sizeof *all };

/** Append as much as there is room for. */
static void append(char text[512], const char *between, const char *word)
{
    const size_t n = strlen(text);
    snprintf(text + n, 512 - n, "%s%s", between, word);
}

static mm_status fail_unknown(const char *setting, size_t n)
{
    char known[512] = "";
    for (int i = 0; i < N_VARIANTS; i++) {
        append(known, i ? ", " : "", all[i].name);
        for (int k = 0; k < MOST_VALUES && all[i].values[k]; k++)
            append(known, k ? "|" : "=", all[i].values[k]);
    }
    return mm_fail(MM_E_ARG,
                   "MAGMAX_CUDA_VARIANTS: no variant '%.*s'; there is %s",
                   (int)n, setting, known);
}

static bool is_word(const char *text, size_t n, const char *word)
{
    return strlen(word) == n && !strncmp(text, word, n);
}

/** Set what the first n characters of `setting`, "name=value", name. */
static bool set_one(mm_cuda_variants *variants, const char *setting, size_t n)
{
    const size_t n_name = strcspn(setting, "=,");
    if (n_name >= n)
        return false;
    const char *value = setting + n_name + 1;
    for (int i = 0; i < N_VARIANTS; i++)
        for (int k = 0; is_word(setting, n_name, all[i].name) &&
                        k < MOST_VALUES && all[i].values[k];
             k++)
            if (is_word(value, n - n_name - 1, all[i].values[k])) {
                *(int *)((char *)variants + all[i].offset) = k;
                return true;
            }
    return false;
}

const char *mm_cuda_variants_text(void)
{
    const char *text = getenv("MAGMAX_CUDA_VARIANTS");
    return text ? text : "";
}

mm_status mm_cuda_variants_read(mm_cuda_variants *variants)
{
    const char *rest = mm_cuda_variants_text();
    memset(variants, 0, sizeof *variants);
    while (*rest) {
        const size_t n = strcspn(rest, ",");
        if (!set_one(variants, rest, n))
            return fail_unknown(rest, n);
        rest += n;
        rest += *rest == ',';
    }
    return MM_OK;
}
