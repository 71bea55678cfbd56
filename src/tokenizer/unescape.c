/* HTML's character references resolved as Python's html.unescape does. */

#include "src/tokenizer/unescape.h"

#include "src/tokenizer/html_entities.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistr.h>

enum { MAX_CODE_POINT = 0x10ffff, REPLACEMENT = 0xfffd, NOTHING = -1 };

/* What 0x80..0x9f stand for: Windows' characters, where it has one. */
static const uint16_t c1_meaning[32] = {
    0x20ac, 0x81,   0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021,
    0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0x8d,   0x017d, 0x8f,
    0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
    0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0x9d,   0x017e, 0x0178,
};

/* HTML's rules for numbers that are not characters. */
static int32_t meaning(uint32_t number)
{
    if (number >= 0x80 && number <= 0x9f)
        return c1_meaning[number - 0x80];
    if (number == 0 || (number >= 0xd800 && number <= 0xdfff) ||
        number > MAX_CODE_POINT)
        return REPLACEMENT;
    bool is_control = (number < 0x20 && number != '\t' && number != '\n' &&
                       number != '\f' && number != '\r') ||
                      number == 0x7f;
    bool is_noncharacter =
        (number >= 0xfdd0 && number <= 0xfdef) || (number & 0xfffe) == 0xfffe;
    return is_control || is_noncharacter ? NOTHING : (int32_t)number;
}

/* "#123;" or "#x7b;", without '&': the bytes it has, 0 where it is none. */
static size_t read_number(const char *text, const char *end, int32_t *code)
{
    const char *at = text + 1;
    uint32_t base = 10, number = 0;
    if (at < end && (*at == 'x' || *at == 'X')) {
        base = 16;
        at++;
    }
    const char *digits = at;
    for (; at < end && isascii(*at) &&
           (base == 16 ? isxdigit((uint8_t)*at) : isdigit((uint8_t)*at));
         at++) {
        uint32_t digit =
            (uint32_t)(isdigit((uint8_t)*at) ? *at - '0'
                                             : (*at | 0x20) - 'a' + 10);
        if (number <= MAX_CODE_POINT) /* beyond: one is as wrong as another */
            number = number * base + digit;
    }
    if (at == digits)
        return 0;
    *code = meaning(number);
    return (size_t)(at - text) + (at < end && *at == ';');
}

typedef struct name {
    const char *text;
    size_t n_bytes;
} name;

static int compare_name(const void *key, const void *element)
{
    const name *wanted = key;
    const char *other = ((const mm_html_entity *)element)->name;
    int order = strncmp(wanted->text, other, wanted->n_bytes);
    return order ? order : -(other[wanted->n_bytes] != '\0');
}

/* The longest name at the start of text; NULL where there is none. */
static const mm_html_entity *find_name(const char *text, const char *end,
                                       size_t *n_bytes)
{
    size_t n = 0, room = (size_t)(end - text);
    while (n < room && n < MM_HTML_ENTITY_MAX && isascii(text[n]) &&
           isalnum((uint8_t)text[n]))
        n++;
    if (n < room && n < MM_HTML_ENTITY_MAX && text[n] == ';')
        n++;
    for (; n >= 2; n--) {
        name wanted = {text, n};
        const mm_html_entity *found =
            bsearch(&wanted, mm_html_entities, MM_N_HTML_ENTITIES,
                    sizeof *mm_html_entities, compare_name);
        if (found) {
            *n_bytes = n;
            return found;
        }
    }
    return NULL;
}

/* One reference, without '&': its meaning to *out; the bytes it has, or 0. */
static size_t resolve(const char *text, const char *end, char **out)
{
    size_t n_bytes = 0;
    if (text < end && *text == '#') {
        int32_t code;
        n_bytes = read_number(text, end, &code);
        if (n_bytes && code != NOTHING)
            *out += u8_uctomb((uint8_t *)*out, (ucs4_t)code, 4);
        return n_bytes;
    }
    const mm_html_entity *entity = find_name(text, end, &n_bytes);
    if (entity)
        *out = stpcpy(*out, entity->utf8);
    return n_bytes;
}

size_t mm_unescape(const char *text, size_t n_bytes, char *out)
{
    const char *end = text + n_bytes;
    char *to = out;
    while (text < end) {
        const char *mark = memchr(text, '&', (size_t)(end - text));
        size_t n_plain = (size_t)((mark ? mark : end) - text);
        memcpy(to, text, n_plain);
        to += n_plain;
        text += n_plain;
        if (mark) {
            size_t n_used = resolve(text + 1, end, &to);
            if (n_used == 0)
                *to++ = '&';
            text += 1 + n_used;
        }
    }
    return (size_t)(to - out);
}
