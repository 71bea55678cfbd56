/* Parses the header of a NumPy array (.npy), a Python literal, and converts its
 * integers; the bytes come from the caller. */

#include "io/python/npy.h"

#include <ctype.h>
#include <string.h>

mm_status mm_npy_parse_prefix(const uint8_t *prefix, int *prefix_bytes,
                              int *text_bytes)
{
    if (memcmp(prefix, "\x93NUMPY", 6) != 0)
        return mm_fail(MM_E_FORMAT, "is not a NumPy array");
    int version = prefix[6];
    if (version < 1 || version > 3)
        return mm_fail(MM_E_FORMAT, "has NumPy format version %d", version);
    uint32_t length = (uint32_t)prefix[8] | (uint32_t)prefix[9] << 8;
    if (version > 1)
        length |= (uint32_t)prefix[10] << 16 | (uint32_t)prefix[11] << 24;
    if (length > MM_NPY_MAX_HEADER)
        return mm_fail(MM_E_FORMAT, "has a NumPy header of %u bytes", length);
    *prefix_bytes = version > 1 ? 12 : 10;
    *text_bytes = (int)length;
    return MM_OK;
}

static void skip_space(const char **at)
{
    while (isspace((unsigned char)**at))
        (*at)++;
}

/* Whether the next thing is `c`; if so, it is passed. */
static bool take(const char **at, char c)
{
    skip_space(at);
    if (**at != c)
        return false;
    (*at)++;
    return true;
}

/* A quoted string without escapes, shorter than 32 characters. */
static bool take_string(const char **at, char text[32])
{
    skip_space(at);
    char quote = **at;
    if (quote != '\'' && quote != '"')
        return false;
    const char *end = strchr(*at + 1, quote);
    if (!end || end - *at > 31)
        return false;
    size_t length = (size_t)(end - *at - 1);
    memcpy(text, *at + 1, length);
    text[length] = '\0';
    *at = end + 1;
    return true;
}

static bool take_word(const char **at, const char *word)
{
    skip_space(at);
    size_t length = strlen(word);
    if (strncmp(*at, word, length) != 0)
        return false;
    *at += length;
    return true;
}

static bool take_number(const char **at, int64_t *number)
{
    skip_space(at);
    if (!isdigit((unsigned char)**at))
        return false;
    *number = 0;
    for (; isdigit((unsigned char)**at); (*at)++)
        if (__builtin_mul_overflow(*number, 10, number) ||
            __builtin_add_overflow(*number, **at - '0', number))
            return false;
    take(at, 'L'); /* Python 2 wrote long integers so */
    return true;
}

static mm_status parse_type(const char **at, mm_npy *npy)
{
    char type[32];
    if (!take_string(at, type))
        return mm_fail(MM_E_FORMAT, "has a compound type");
    bool fits = strlen(type) == 3 && strchr("|<>=", type[0]) &&
                strchr("ui", type[1]) && strchr("1248", type[2]) &&
                (type[0] != '|' || type[2] == '1');
    if (!fits)
        return mm_fail(MM_E_FORMAT, "has type %s, and integers are needed",
                       type);
    npy->kind = type[1];
    npy->elem_bytes = type[2] - '0';
    npy->big_endian = type[0] == '>';
    return MM_OK;
}

static mm_status parse_shape(const char **at, mm_npy *npy)
{
    npy->n_elems = 1;
    if (!take(at, '('))
        return mm_fail(MM_E_FORMAT, "has a malformed shape");
    while (!take(at, ')')) {
        if (npy->n_dims == MM_NPY_MAX_DIMS)
            return mm_fail(MM_E_FORMAT, "has too many dimensions");
        int64_t *size = &npy->shape[npy->n_dims++];
        if (!take_number(at, size) ||
            __builtin_mul_overflow(npy->n_elems, *size, &npy->n_elems))
            return mm_fail(MM_E_FORMAT, "has an impossible shape");
        skip_space(at);
        if (!take(at, ',') && **at != ')')
            return mm_fail(MM_E_FORMAT, "has a malformed shape");
    }
    return MM_OK;
}

static mm_status parse_order(const char **at)
{
    if (take_word(at, "False"))
        return MM_OK;
    if (take_word(at, "True"))
        return mm_fail(MM_E_FORMAT,
                       "is in Fortran order; save numpy.ascontiguousarray of "
                       "it");
    return mm_fail(MM_E_FORMAT, "has a malformed fortran_order");
}

mm_status mm_npy_parse(const char *text, mm_npy *npy)
{
    enum { TYPE = 1, SHAPE = 2, ORDER = 4 };
    const char *at = text;
    char key[32];
    int seen = 0;
    *npy = (mm_npy){0};
    if (!take(&at, '{'))
        return mm_fail(MM_E_FORMAT, "has a malformed NumPy header");
    while (!take(&at, '}')) {
        if (!take_string(&at, key) || !take(&at, ':'))
            return mm_fail(MM_E_FORMAT, "has a malformed NumPy header");
        int field = strcmp(key, "descr") == 0           ? TYPE
                    : strcmp(key, "shape") == 0         ? SHAPE
                    : strcmp(key, "fortran_order") == 0 ? ORDER
                                                        : 0;
        if (field == 0 || (seen & field))
            return mm_fail(MM_E_FORMAT, "has a malformed NumPy header");
        seen |= field;
        MM_TRY(field == TYPE    ? parse_type(&at, npy)
               : field == SHAPE ? parse_shape(&at, npy)
                                : parse_order(&at));
        skip_space(&at);
        if (!take(&at, ',') && *at != '}')
            return mm_fail(MM_E_FORMAT, "has a malformed NumPy header");
    }
    if (seen != (TYPE | SHAPE | ORDER))
        return mm_fail(MM_E_FORMAT, "has an incomplete NumPy header");
    if (__builtin_mul_overflow(npy->n_elems, npy->elem_bytes, &npy->n_bytes))
        return mm_fail(MM_E_FORMAT, "has an impossible shape");
    return MM_OK;
}

int64_t mm_npy_element(const mm_npy *npy, const uint8_t *data, int64_t i)
{
    int n = npy->elem_bytes;
    const uint8_t *bytes = data + i * n;
    uint64_t value = 0;
    for (int k = 0; k < n; k++)
        value = value << 8 | bytes[npy->big_endian ? k : n - 1 - k];
    if (npy->kind == 'u')
        return value > INT64_MAX ? INT64_MAX : (int64_t)value;
    /* The sign bit counts negatively: -2^(8n-1) instead of 2^(8n-1). */
    uint64_t sign = UINT64_C(1) << (8 * n - 1);
    return (int64_t)((value ^ sign) - sign);
}
