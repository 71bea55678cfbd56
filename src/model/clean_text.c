#include "src/model/clean_text.h"

#include "src/model/unescape.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unistr.h>

/* Unicode's white space, which is no more in flux. */
static bool is_space(ucs4_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* Python's str.strip removes the four separators of ASCII as well. */
static bool is_stripped(ucs4_t c)
{
    return is_space(c) || (c >= 0x1c && c <= 0x1f);
}

static void strip(const uint8_t **text, size_t *n_bytes)
{
    const uint8_t *from = *text, *end = from + *n_bytes;
    ucs4_t c;
    for (int n; from < end; from += n) {
        n = u8_mbtouc_unsafe(&c, from, (size_t)(end - from));
        if (!is_stripped(c))
            break;
    }
    while (from < end) {
        const uint8_t *last = u8_prev(&c, end, from);
        if (!is_stripped(c))
            break;
        end = last;
    }
    *text = from;
    *n_bytes = (size_t)(end - from);
}

/* Every run of white space becomes one blank. Returns the bytes written. */
static size_t collapse(const uint8_t *text, size_t n_bytes, uint8_t *out)
{
    const uint8_t *end = text + n_bytes;
    uint8_t *to = out;
    bool was_space = false;
    for (int n; text < end; text += n) {
        ucs4_t c;
        n = u8_mbtouc_unsafe(&c, text, (size_t)(end - text));
        bool space = is_space(c);
        if (!space)
            to = (uint8_t *)mempcpy(to, text, (size_t)n);
        else if (!was_space)
            *to++ = ' ';
        was_space = space;
    }
    return (size_t)(to - out);
}

/* Most texts are ASCII, which is lower-cased in place. */
static bool lower_ascii(uint8_t *text, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++)
        if (text[i] >= 0x80)
            return false;
    for (size_t i = 0; i < n_bytes; i++)
        if (text[i] >= 'A' && text[i] <= 'Z')
            text[i] |= 0x20;
    return true;
}

/* Takes *text and gives another. */
static mm_status lower(char **text, size_t *n_bytes)
{
    if (lower_ascii((uint8_t *)*text, *n_bytes))
        return MM_OK;
    /* No language: the rules of Turkish and Lithuanian are not Python's. */
    uint8_t *lowered = u8_tolower((const uint8_t *)*text, *n_bytes + 1, "",
                                  NULL, NULL, n_bytes);
    if (!lowered)
        return mm_fail(MM_E_MEMORY, "no memory for a text");
    free(*text);
    *text = (char *)lowered;
    *n_bytes -= 1; /* the final NUL went along */
    return MM_OK;
}

mm_status mm_clean_text(const char *utf8, char **cleaned, size_t *n_bytes)
{
    size_t n = strlen(utf8);
    const uint8_t *bad = u8_check((const uint8_t *)utf8, n);
    if (bad)
        return mm_fail(MM_E_VALUE,
                       "a text is not UTF-8: byte %lld of it, 0x%02x",
                       (long long)(bad - (const uint8_t *)utf8), *bad);
    /* Twice a quarter more, as mm_unescape asks, and the final NUL. */
    char *once = malloc(2 * n + 1), *twice = malloc(2 * n + 1);
    mm_status st = MM_OK;
    if (once && twice) {
        n = mm_unescape(utf8, n, once);
        n = mm_unescape(once, n, twice);
        const uint8_t *from = (const uint8_t *)twice;
        strip(&from, &n);
        n = collapse(from, n, (uint8_t *)once);
        once[n] = '\0';
        st = lower(&once, &n);
    } else {
        st = mm_fail(MM_E_MEMORY, "no memory for a text of %lld bytes",
                     (long long)n);
    }
    free(twice);
    if (st == MM_OK) {
        *cleaned = once;
        *n_bytes = n;
    } else {
        free(once);
    }
    return st;
}
