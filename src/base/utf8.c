/* Text of any bytes as UTF-8 that says which bytes they were. */

#include "src/base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { ESCAPE_CHARS = 4 };

static bool is_between(unsigned char c, unsigned char least, unsigned char most)
{
    return c >= least && c <= most;
}

/** Bytes of the valid character at `c`; 0 where there is none. The second byte
 * tells overlong forms, surrogates and what lies beyond U+10FFFF. */
static size_t char_bytes(const unsigned char *c)
{
    if (c[0] < 0x80)
        return 1;
    if (is_between(c[0], 0xc2, 0xdf))
        return is_between(c[1], 0x80, 0xbf) ? 2 : 0;
    const unsigned char least = c[0] == 0xe0   ? 0xa0
                                : c[0] == 0xf0 ? 0x90
                                               : 0x80;
    const unsigned char most = c[0] == 0xed ? 0x9f : c[0] == 0xf4 ? 0x8f : 0xbf;
    if (!is_between(c[0], 0xe0, 0xf4) || !is_between(c[1], least, most) ||
        !is_between(c[2], 0x80, 0xbf))
        return 0;
    if (c[0] < 0xf0)
        return 3;
    return is_between(c[3], 0x80, 0xbf) ? 4 : 0;
}

/** The digit's value, or -1. */
static int digit_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/** The byte that an escape at `text` stands for, or -1 where there is none. */
static int escaped_byte(const char *text)
{
    if (text[0] != '\\' || text[1] != 'x')
        return -1;
    const int high = digit_value(text[2]);
    const int low = high < 0 ? -1 : digit_value(text[3]);
    const int byte = low < 0 ? -1 : 16 * high + low;
    return byte >= 0x80 || byte == '\\' ? byte : -1;
}

/** What the character or byte at *text is stored as; moves *text behind it.
 * Returns the number of bytes in `stored`. */
static size_t store_next(const char **text, char stored[ESCAPE_CHARS])
{
    static const char digits[] = "0123456789ABCDEF";
    const unsigned char *at = (const unsigned char *)*text;
    const size_t n = escaped_byte(*text) < 0 ? char_bytes(at) : 0;
    if (n > 0) {
        memcpy(stored, at, n);
        *text += n;
        return n;
    }
    stored[0] = '\\';
    stored[1] = 'x';
    stored[2] = digits[*at >> 4];
    stored[3] = digits[*at & 15];
    *text += 1;
    return ESCAPE_CHARS;
}

bool mm_utf8_is_valid(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    size_t n = 1;
    for (; *at && n > 0; at += n)
        n = char_bytes(at);
    return n > 0;
}

char *mm_utf8_escape(const char *text)
{
    char next[ESCAPE_CHARS];
    size_t n_bytes = 1;
    for (const char *at = text; *at;)
        n_bytes += store_next(&at, next);
    char *stored = malloc(n_bytes), *end = stored;
    while (stored && *text) {
        const size_t n = store_next(&text, next);
        end = mempcpy(end, next, n);
    }
    if (stored)
        *end = '\0';
    return stored;
}

static bool is_stored_as(const char *text, const char *stored)
{
    while (*text) {
        char next[ESCAPE_CHARS];
        const size_t n = store_next(&text, next);
        if (strncmp(stored, next, n) != 0)
            return false;
        stored += n;
    }
    return !*stored;
}

mm_status mm_utf8_unescape(char *text)
{
    if (!strstr(text, "\\x"))
        return MM_OK;
    char *original = malloc(strlen(text) + 1), *end = original;
    if (!original)
        return mm_fail(MM_E_MEMORY, "no memory for a text");
    for (const char *at = text; *at;) {
        const int byte = escaped_byte(at);
        *end++ = (char)(byte < 0 ? *at : byte);
        at += byte < 0 ? 1 : ESCAPE_CHARS;
    }
    *end = '\0';
    if (is_stored_as(original, text))
        strcpy(text, original);
    free(original);
    return MM_OK;
}

json_t *mm_utf8_json(const char *text)
{
    char *stored = text ? mm_utf8_escape(text) : NULL;
    json_t *value = stored ? json_string(stored) : NULL;
    free(stored);
    return value;
}
