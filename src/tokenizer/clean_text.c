/* Cleaning a text as open_clip does before it is split into words: entities,
 * white space, lower case. */

#include "src/tokenizer/clean_text.h"

#include "src/tokenizer/unescape.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unictype.h>
#include <unistr.h>

enum {
    CAPITAL_I_WITH_DOT = 0x130,
    COMBINING_DOT_ABOVE = 0x307,
    CAPITAL_SIGMA = 0x3a3,
    FINAL_SIGMA = 0x3c2,
    SIGMA = 0x3c3
};

/* Unicode's white space, which is stable by now. */
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

/* The nearest character before or after a place that is not case-ignorable
 * (marks and such); 0 at the text's end. */
static ucs4_t letter_before(const uint8_t *start, const uint8_t *at)
{
    ucs4_t c;
    while ((at = u8_prev(&c, at, start)) != NULL)
        if (!uc_is_property_case_ignorable(c))
            return c;
    return 0;
}

static ucs4_t letter_after(const uint8_t *at, const uint8_t *end)
{
    for (int n; at < end; at += n) {
        ucs4_t c;
        n = u8_mbtouc_unsafe(&c, at, (size_t)(end - at));
        if (!uc_is_property_case_ignorable(c))
            return c;
    }
    return 0;
}

/* Python's str.lower. Not u8_tolower: it treats characters that are both cased
 * and case-ignorable, such as U+02B0, differently. Returns the bytes written.
 */
static size_t lower(const uint8_t *text, size_t n_bytes, uint8_t *out)
{
    const uint8_t *at = text, *end = text + n_bytes;
    uint8_t *to = out;
    for (int n; at < end; at += n) {
        if (*at < 0x80) { /* most texts have nothing else */
            n = 1;
            *to++ = *at >= 'A' && *at <= 'Z' ? *at | 0x20 : *at;
            continue;
        }
        ucs4_t c;
        n = u8_mbtouc_unsafe(&c, at, (size_t)(end - at));
        if (c == CAPITAL_I_WITH_DOT) {
            *to++ = 'i';
            c = COMBINING_DOT_ABOVE;
        } else if (c == CAPITAL_SIGMA) {
            bool final = uc_is_property_cased(letter_before(text, at)) &&
                         !uc_is_property_cased(letter_after(at + n, end));
            c = final ? FINAL_SIGMA : SIGMA;
        } else {
            c = uc_tolower(c);
        }
        to += u8_uctomb(to, c, 4);
    }
    return (size_t)(to - out);
}

mm_status mm_clean_text(const char *utf8, char **cleaned, size_t *n_bytes)
{
    size_t n = strlen(utf8);
    const uint8_t *bad = u8_check((const uint8_t *)utf8, n);
    if (bad)
        return mm_fail(MM_E_VALUE,
                       "a text is not UTF-8: byte %lld of it, 0x%02x",
                       (long long)(bad - (const uint8_t *)utf8), *bad);
    /* mm_unescape asks for a quarter more, twice; lower-casing makes of two
     * bytes at most three. */
    size_t room = 3 * n + 1;
    char *once = malloc(room), *twice = malloc(room);
    if (!once || !twice) {
        free(once);
        free(twice);
        return mm_fail(MM_E_MEMORY, "no memory for a text of %lld bytes",
                       (long long)n);
    }
    n = mm_unescape(utf8, n, once);
    n = mm_unescape(once, n, twice);
    const uint8_t *from = (const uint8_t *)twice;
    strip(&from, &n);
    n = collapse(from, n, (uint8_t *)once);
    n = lower((const uint8_t *)once, n, (uint8_t *)twice);
    twice[n] = '\0';
    free(once);
    *cleaned = twice;
    *n_bytes = n;
    return MM_OK;
}
