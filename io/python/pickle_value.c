/* Questions about values that a pickle has given: is it this text or this
 * global, and what is under this key. */

#include "io/python/pickle.h"

#include <stdio.h>
#include <string.h>

static bool is_text(mm_pickle_text text, const char *other, size_t n_bytes)
{
    return text.n_bytes == (int64_t)n_bytes &&
           memcmp(text.data, other, n_bytes) == 0;
}

bool mm_pickle_is_text(const mm_pickle_value *value, const char *text)
{
    return value && value->kind == MM_PICKLE_TEXT &&
           is_text(value->text, text, strlen(text));
}

bool mm_pickle_is_global(const mm_pickle_value *value, const char *name)
{
    const char *dot = strrchr(name, '.');
    return value && value->kind == MM_PICKLE_GLOBAL && dot &&
           is_text(value->global.module, name, (size_t)(dot - name)) &&
           is_text(value->global.name, dot + 1, strlen(dot + 1));
}

const mm_pickle_value *mm_pickle_get(const mm_pickle_value *value,
                                     const char *key)
{
    /* Of several, the last is the one that Python has. */
    for (int32_t i = value->n_pairs; i-- > 0;)
        if (mm_pickle_is_text(value->pairs[2 * i], key))
            return value->pairs[2 * i + 1];
    return NULL;
}

static int shorter(int64_t n_bytes, int most)
{
    return n_bytes < most ? (int)n_bytes : most;
}

void mm_pickle_global_name(const mm_pickle_value *value,
                           char name[MM_PICKLE_NAME_BYTES])
{
    mm_pickle_text module = value->global.module, own = value->global.name;
    int half = MM_PICKLE_NAME_BYTES / 2 - 1;
    snprintf(name, MM_PICKLE_NAME_BYTES, "%.*s.%.*s",
             shorter(module.n_bytes, half), module.data,
             shorter(own.n_bytes, half), own.data);
    for (char *c = name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
}
