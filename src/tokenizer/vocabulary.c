/* Reading a byte-pair vocabulary from a list of merges or from a
 * tokenizer.json. */

#include "src/tokenizer/vocabulary.h"

#include "src/tokenizer/symbol_table.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char word_end[] = "</w>";

/* A vocabulary being read. */
typedef struct reader {
    const char *where;
    const char *unit; /* what messages count: "line", "merge" */
    int64_t first;    /* number of the first merge, in that unit */
    int32_t n_wanted;
    mm_vocabulary *vocabulary;
    mm_symbol_table symbols;
} reader;

/* Bytes that are printed as themselves come first, as characters of the same
 * number; the others follow, as characters from 256. */
enum { N_PRINTED = 188 };

int32_t mm_vocabulary_byte_symbol(uint8_t byte)
{
    static const struct {
        uint8_t first, last, symbol;
    } runs[] = {
        {0x21, 0x7e, 0},   {0xa1, 0xac, 94},  {0xae, 0xff, 106},
        {0x00, 0x20, 188}, {0x7f, 0xa0, 221}, {0xad, 0xad, 255},
    };
    int i = 0;
    while (byte < runs[i].first || byte > runs[i].last)
        i++;
    return runs[i].symbol + byte - runs[i].first;
}

static void add_byte_symbols(reader *r)
{
    char texts[256][3];
    for (int b = 0; b < 256; b++) {
        int32_t symbol = mm_vocabulary_byte_symbol((uint8_t)b);
        int c = symbol < N_PRINTED ? b : 256 + symbol - N_PRINTED;
        texts[symbol][0] = (char)(c < 0x80 ? c : 0xc0 | c >> 6);
        texts[symbol][1] = (char)(c < 0x80 ? 0 : 0x80 | (c & 0x3f));
        texts[symbol][2] = 0;
    }
    for (int i = 0; i < MM_N_BYTE_SYMBOLS; i++)
        mm_symbol_table_add(&r->symbols, texts[i % 256], strlen(texts[i % 256]),
                            word_end, i < 256 ? 0 : strlen(word_end));
}

static mm_status fail_at(const reader *r, const char *what, const char *symbol,
                         size_t n_bytes)
{
    return mm_fail(MM_E_FORMAT, "%s: %s %lld: %s '%.*s'", r->where, r->unit,
                   (long long)(r->first + r->vocabulary->n_pairs), what,
                   (int)(n_bytes < 80 ? n_bytes : 80), symbol);
}

static mm_status add_merge(reader *r, const char *left, size_t left_bytes,
                           const char *right, size_t right_bytes)
{
    mm_vocabulary *v = r->vocabulary;
    int32_t a = mm_symbol_table_find(&r->symbols, left, left_bytes);
    int32_t b = mm_symbol_table_find(&r->symbols, right, right_bytes);
    if (a < 0)
        return fail_at(r, "joins a symbol that no earlier one makes:", left,
                       left_bytes);
    if (b < 0)
        return fail_at(r, "joins a symbol that no earlier one makes:", right,
                       right_bytes);
    if (mm_symbol_table_add(&r->symbols, left, left_bytes, right, right_bytes) <
        0)
        return fail_at(r, "makes the same symbol as an earlier one, with",
                       right, right_bytes);
    v->pairs[v->n_pairs][0] = a;
    v->pairs[v->n_pairs][1] = b;
    v->n_pairs++;
    return MM_OK;
}

/* "left right", without the line's end. */
static mm_status add_line(reader *r, const char *line, size_t n_bytes)
{
    const char *space = memchr(line, ' ', n_bytes);
    size_t left_bytes = space ? (size_t)(space - line) : 0;
    size_t right_bytes = space ? n_bytes - left_bytes - 1 : 0;
    if (left_bytes == 0 || right_bytes == 0 ||
        memchr(space + 1, ' ', right_bytes))
        return fail_at(r, "expected two symbols and a space between, found",
                       line, n_bytes);
    return add_merge(r, line, left_bytes, space + 1, right_bytes);
}

static mm_status wrong_size(const reader *r, int64_t n_merges)
{
    const int64_t n_others = MM_N_BYTE_SYMBOLS + MM_N_SPECIAL_IDS;
    return mm_fail(MM_E_FORMAT,
                   "%s holds %lld merges, so %lld ids; expected %lld merges "
                   "for %lld ids",
                   r->where, (long long)n_merges,
                   (long long)(n_merges + n_others), (long long)r->n_wanted,
                   (long long)(r->n_wanted + n_others));
}

static mm_status read_lines(reader *r, const char *text)
{
    static const char cut_list[] = "bpe_simple_vocab_16e6";
    const char *end = strchrnul(text, '\n');
    bool may_be_longer =
        memmem(text, (size_t)(end - text), cut_list, strlen(cut_list)) != NULL;
    r->unit = "line";
    r->first = 2;
    int64_t n_lines = 0;
    while (*end) {
        const char *line = end + 1;
        end = strchrnul(line, '\n');
        size_t n_bytes = (size_t)(end - line);
        if (n_bytes > 0 && line[n_bytes - 1] == '\r')
            n_bytes--;
        if (n_bytes == 0 && !*end)
            break; /* the last line's end */
        if (n_lines++ < r->n_wanted)
            MM_TRY(add_line(r, line, n_bytes));
    }
    if (n_lines < r->n_wanted || (n_lines > r->n_wanted && !may_be_longer))
        return wrong_size(r, n_lines);
    return MM_OK;
}

/* "left right" or ["left", "right"] */
static mm_status add_json_merge(reader *r, const json_t *merge)
{
    if (json_is_string(merge))
        return add_line(r, json_string_value(merge), json_string_length(merge));
    const json_t *left = json_array_get(merge, 0);
    const json_t *right = json_array_get(merge, 1);
    if (json_array_size(merge) != 2 || !json_is_string(left) ||
        !json_is_string(right))
        return fail_at(r, "expected 'a b' or", "[\"a\", \"b\"]", 10);
    return add_merge(r, json_string_value(left), json_string_length(left),
                     json_string_value(right), json_string_length(right));
}

/* The ids that a file states must be those that follow from its merges. */
static mm_status check_id(const reader *r, const char *symbol, const json_t *id,
                          int64_t expected)
{
    if (!id)
        return mm_fail(MM_E_FORMAT, "%s: '%.80s' has no id; expected %lld",
                       r->where, symbol, (long long)expected);
    if (!json_is_integer(id) || json_integer_value(id) != expected)
        return mm_fail(MM_E_FORMAT,
                       "%s: '%.80s' has the id %lld; expected "
                       "%lld",
                       r->where, symbol, (long long)json_integer_value(id),
                       (long long)expected);
    return MM_OK;
}

static mm_status check_special_ids(const reader *r, const json_t *root,
                                   const json_t *vocab)
{
    static const char *const names[] = {"<|startoftext|>", "<|endoftext|>"};
    const json_t *added = json_object_get(root, "added_tokens");
    for (int i = 0; i < MM_N_SPECIAL_IDS; i++) {
        const json_t *id = json_object_get(vocab, names[i]), *token;
        size_t k;
        json_array_foreach(added, k, token)
        {
            const char *content =
                json_string_value(json_object_get(token, "content"));
            if (content && strcmp(content, names[i]) == 0)
                id = json_object_get(token, "id");
        }
        MM_TRY(check_id(r, names[i], id, r->symbols.n + i));
    }
    return MM_OK;
}

static mm_status read_json(reader *r, const json_t *root)
{
    const json_t *model = json_object_get(root, "model");
    const json_t *vocab = json_object_get(model, "vocab");
    const json_t *merges = json_object_get(model, "merges");
    if (!json_is_object(vocab) || !json_is_array(merges))
        return mm_fail(MM_E_FORMAT,
                       "%s is not a byte-pair tokenizer.json: it has no "
                       "model.vocab and model.merges",
                       r->where);
    r->unit = "merge";
    if ((int64_t)json_array_size(merges) != r->n_wanted)
        return wrong_size(r, (int64_t)json_array_size(merges));
    size_t i;
    const json_t *merge;
    json_array_foreach(merges, i, merge) MM_TRY(add_json_merge(r, merge));
    for (int32_t id = 0; id < r->symbols.n; id++)
        MM_TRY(check_id(r, r->symbols.texts[id],
                        json_object_get(vocab, r->symbols.texts[id]), id));
    return check_special_ids(r, root, vocab);
}

static mm_status read_json_text(reader *r, const char *text)
{
    json_error_t error;
    json_t *root = json_loads(text, 0, &error);
    if (!root)
        return mm_fail(MM_E_FORMAT, "%s:%d: %s", r->where, error.line,
                       error.text);
    mm_status st = read_json(r, root);
    json_decref(root);
    return st;
}

static mm_status read_text(reader *r, const char *text)
{
    add_byte_symbols(r);
    const char *first = text + strspn(text, " \t\r\n");
    if (*first == '{')
        return read_json_text(r, text);
    const char *line_end = strchrnul(text, '\n');
    if (!memmem(text, (size_t)(line_end - text), "#version:", 9))
        return mm_fail(
            MM_E_FORMAT,
            "%s is not a vocabulary: expected a list of merges, whose "
            "first line says '#version:', or a tokenizer.json",
            r->where);
    return read_lines(r, text);
}

mm_status mm_vocabulary_parse(const char *text, const char *where,
                              int64_t n_ids, mm_vocabulary *vocabulary)
{
    const int64_t n_others = MM_N_BYTE_SYMBOLS + MM_N_SPECIAL_IDS;
    if (n_ids < n_others || n_ids > INT64_C(1) << 24)
        return mm_fail(MM_E_ARG,
                       "a vocabulary cannot have %lld ids: CLIP's has 49408",
                       (long long)n_ids);
    *vocabulary = (mm_vocabulary){0};
    reader r = {
        .where = where,
        .n_wanted = (int32_t)(n_ids - n_others),
        .vocabulary = vocabulary,
    };
    mm_status st = MM_OK;
    vocabulary->pairs =
        malloc(((size_t)r.n_wanted + 1) * sizeof *vocabulary->pairs);
    if (!vocabulary->pairs)
        st = mm_fail(MM_E_MEMORY, "no memory for the vocabulary %s", where);
    /* What merges make is no longer than the text that lists them. */
    if (st == MM_OK)
        st = mm_symbol_table_init(MM_N_BYTE_SYMBOLS + r.n_wanted,
                                  8 * MM_N_BYTE_SYMBOLS + strlen(text),
                                  &r.symbols);
    if (st == MM_OK)
        st = read_text(&r, text);
    mm_symbol_table_clear(&r.symbols);
    if (st != MM_OK)
        mm_vocabulary_clear(vocabulary);
    return st;
}

void mm_vocabulary_clear(mm_vocabulary *vocabulary)
{
    free(vocabulary->pairs);
    *vocabulary = (mm_vocabulary){0};
}
