/* What the Python tests have done to texts: a JSON array of strings on standard
 * input becomes an array of results on standard output.
 *
 *   text_tool clean              cleaned texts
 *   text_tool ids VOCABULARY     arrays of ids, without the zeros behind
 *   text_tool time VOCABULARY    nothing but the seconds that the ids took
 *
 * A failure is printed and exits with its mm_status. */
#include "src/tokenizer/clean_text.h"
#include "src/tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONTEXT_LENGTH = 77 };

static mm_status clean_all(const json_t *texts, json_t *results)
{
    size_t i;
    const json_t *text;
    json_array_foreach(texts, i, text)
    {
        char *cleaned;
        size_t n_bytes;
        MM_TRY(mm_clean_text(json_string_value(text), &cleaned, &n_bytes));
        json_array_append_new(results, json_stringn(cleaned, n_bytes));
        free(cleaned);
    }
    return MM_OK;
}

static mm_status encode_all(const mm_tokenizer *tokenizer, const json_t *texts,
                            json_t *results)
{
    size_t i;
    const json_t *text;
    json_array_foreach(texts, i, text)
    {
        int32_t ids[CONTEXT_LENGTH];
        MM_TRY(mm_tokenizer_encode(tokenizer, json_string_value(text),
                                   CONTEXT_LENGTH, ids));
        if (!results)
            continue;
        json_t *row = json_array();
        int n = CONTEXT_LENGTH;
        while (n > 0 && ids[n - 1] == 0)
            n--;
        for (int k = 0; k < n; k++)
            json_array_append_new(row, json_integer(ids[k]));
        json_array_append_new(results, row);
    }
    return MM_OK;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static mm_status run(int argc, char **argv, const json_t *texts,
                     json_t *results)
{
    if (argc == 2 && strcmp(argv[1], "clean") == 0)
        return clean_all(texts, results);
    if (argc != 3)
        return mm_fail(MM_E_ARG, "see the head of text_tool.c");
    mm_tokenizer *tokenizer;
    MM_TRY(mm_tokenizer_read(argv[2], MM_CLIP_N_IDS, &tokenizer));
    double start = seconds();
    bool timed = strcmp(argv[1], "time") == 0;
    mm_status st = encode_all(tokenizer, texts, timed ? NULL : results);
    if (timed)
        json_array_append_new(results, json_real(seconds() - start));
    mm_tokenizer_destroy(&tokenizer);
    return st;
}

int main(int argc, char **argv)
{
    json_t *texts = json_loadf(stdin, 0, NULL), *results = json_array();
    mm_status st = run(argc, argv, texts, results);
    if (st == MM_OK)
        json_dumpf(results, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
    else
        printf("%s\n", mm_fail_message());
    json_decref(texts);
    json_decref(results);
    return (int)st;
}
