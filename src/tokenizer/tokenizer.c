/* CLIP's tokenizer: splitting a cleaned text into words, and the ids of a text
 * with its start and end. */

#include "src/tokenizer/tokenizer.h"

#include "io/gzip.h"
#include "src/tokenizer/byte_pairs.h"
#include "src/tokenizer/clean_text.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Hugging Face's tokenizer.json has 2.2 MB, open_clip's list 3.1 MB. */
enum { MAX_VOCABULARY_BYTES = 32 << 20 };

struct mm_tokenizer {
    int64_t n_ids;
    mm_byte_pairs pairs;
    pcre2_code *pattern;
};

static const char *const special_names[MM_N_SPECIAL_IDS] = {"<start_of_text>",
                                                            "<end_of_text>"};

/* Words of a cleaned text: a blank is its only white space. U+0345 is in no
 * word for open_clip either: where case is ignored, Python's regex takes that
 * mark for the letter iota when it excludes letters, and not when it looks for
 * one. */
static const char word_pattern[] =
    "<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|"
    "\\p{L}+|\\p{N}|[^ \\x{345}\\p{L}\\p{N}]+";

static mm_status compile(pcre2_code **pattern)
{
    int error;
    PCRE2_SIZE offset;
    *pattern = pcre2_compile((PCRE2_SPTR)word_pattern, PCRE2_ZERO_TERMINATED,
                             PCRE2_CASELESS | PCRE2_UTF | PCRE2_UCP, &error,
                             &offset, NULL);
    if (!*pattern)
        return mm_fail(MM_E_MEMORY,
                       "the pattern of words does not compile: PCRE2's "
                       "error %d",
                       error);
    /* Only faster: refused where memory may not be made executable. */
    pcre2_jit_compile(*pattern, PCRE2_JIT_COMPLETE);
    return MM_OK;
}

mm_status mm_tokenizer_parse(const char *text, const char *where, int64_t n_ids,
                             mm_tokenizer **tokenizer)
{
    mm_vocabulary vocabulary;
    MM_TRY(mm_vocabulary_parse(text, where, n_ids, &vocabulary));
    mm_status st = MM_OK;
    mm_tokenizer *t = calloc(1, sizeof *t);
    if (t) {
        t->n_ids = n_ids;
        st = mm_byte_pairs_init(&vocabulary, &t->pairs);
        if (st == MM_OK)
            st = compile(&t->pattern);
    } else {
        st = mm_fail(MM_E_MEMORY, "no memory for a tokenizer");
    }
    mm_vocabulary_clear(&vocabulary);
    if (st != MM_OK)
        mm_tokenizer_destroy(&t);
    else
        *tokenizer = t;
    return st;
}

mm_status mm_tokenizer_read(const char *path, int64_t n_ids,
                            mm_tokenizer **tokenizer)
{
    char *text;
    MM_TRY(mm_gzip_read_text(path, MAX_VOCABULARY_BYTES, &text));
    mm_status st = mm_tokenizer_parse(text, path, n_ids, tokenizer);
    free(text);
    return st;
}

void mm_tokenizer_destroy(mm_tokenizer **tokenizer)
{
    mm_tokenizer *t = *tokenizer;
    if (t) {
        pcre2_code_free(t->pattern);
        mm_byte_pairs_clear(&t->pairs);
        free(t);
    }
    *tokenizer = NULL;
}

int64_t mm_tokenizer_n_ids(const mm_tokenizer *tokenizer)
{
    return tokenizer->n_ids;
}

static mm_status encode_word(const mm_tokenizer *t, mm_byte_pairs_work *work,
                             const char *word, size_t n_bytes, int64_t max_ids,
                             int32_t *ids, int64_t *n_ids)
{
    for (int i = 0; i < MM_N_SPECIAL_IDS; i++) {
        if (strlen(special_names[i]) == n_bytes &&
            memcmp(special_names[i], word, n_bytes) == 0) {
            *ids = (int32_t)(t->n_ids - MM_N_SPECIAL_IDS + i);
            *n_ids = 1;
            return MM_OK;
        }
    }
    return mm_byte_pairs_encode(&t->pairs, work, word, n_bytes, max_ids, ids,
                                n_ids);
}

/* The ids of a cleaned text, as many as there is room for. */
static mm_status encode_words(const mm_tokenizer *t, const char *text,
                              size_t n_bytes, int64_t max_ids, int32_t *ids,
                              int64_t *n_ids)
{
    pcre2_match_data *match =
        pcre2_match_data_create_from_pattern(t->pattern, NULL);
    if (!match)
        return mm_fail(MM_E_MEMORY, "no memory for a text");
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(match);
    mm_byte_pairs_work work = {0};
    mm_status st = MM_OK;
    size_t at = 0;
    *n_ids = 0;
    while (st == MM_OK && *n_ids < max_ids) {
        int found = pcre2_match(t->pattern, (PCRE2_SPTR)text, n_bytes, at,
                                PCRE2_NO_UTF_CHECK, match, NULL);
        if (found == PCRE2_ERROR_NOMATCH)
            break;
        if (found < 0) {
            st = mm_fail(MM_E_MEMORY,
                         "a text cannot be split: PCRE2's error %d", found);
            break;
        }
        int64_t n_more;
        st = encode_word(t, &work, text + place[0], place[1] - place[0],
                         max_ids - *n_ids, ids + *n_ids, &n_more);
        if (st == MM_OK)
            *n_ids += n_more;
        at = place[1];
    }
    mm_byte_pairs_work_clear(&work);
    pcre2_match_data_free(match);
    return st;
}

mm_status mm_tokenizer_encode(const mm_tokenizer *tokenizer, const char *utf8,
                              int64_t context_length, int32_t *ids)
{
    MM_ASSERT(context_length >= 2);
    char *text;
    size_t n_bytes;
    MM_TRY(mm_clean_text(utf8, &text, &n_bytes));
    int64_t n = 0;
    mm_status st =
        encode_words(tokenizer, text, n_bytes, context_length - 2, ids + 1, &n);
    free(text);
    if (st != MM_OK)
        return st;
    ids[0] = (int32_t)(tokenizer->n_ids - 2);
    ids[n + 1] = (int32_t)(tokenizer->n_ids - 1);
    memset(ids + n + 2, 0, (size_t)(context_length - n - 2) * sizeof *ids);
    return MM_OK;
}
