/* Texts: cleaned and encoded, with a small vocabulary. */

#include "src/tokenizer/clean_text.h"
#include "src/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_file.h"

#include <string.h>

enum { N_MERGES = 12, N_IDS = 512 + N_MERGES + 2, CONTEXT_LENGTH = 16 };

static const char merges[] = "#version: 0.2\n"
                             "t h\nth e</w>\na n\nan d</w>\ni n\nin g</w>\n"
                             "a a\naa aa\n! !</w>\n! !\n!! !!</w>\nr e</w>\n";

/* Start, ids of words or of the two marks within the text, end, zeros. */
static void check_ids(const int32_t *ids)
{
    int n = CONTEXT_LENGTH;
    while (n > 0 && ids[n - 1] == 0)
        n--;
    if (n < 2 || ids[0] != N_IDS - 2 || ids[n - 1] != N_IDS - 1)
        abort();
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= N_IDS)
            abort();
}

/* No white space but single blanks, none of them at an end. */
static void check_cleaned(const char *text, size_t n_bytes)
{
    if (strlen(text) != n_bytes || strstr(text, "  ") || text[0] == ' ' ||
        (n_bytes && text[n_bytes - 1] == ' ') || strpbrk(text, "\t\r\n\v\f"))
        abort();
    for (size_t i = 0; i < n_bytes; i++)
        if (text[i] >= 'A' && text[i] <= 'Z')
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mm_tokenizer *tokenizer;
    if (!tokenizer &&
        mm_tokenizer_parse(merges, "small", N_IDS, &tokenizer) != MM_OK)
        abort();
    char *text = strndup((const char *)data, size), *cleaned;
    if (!text)
        return 0;
    int32_t ids[CONTEXT_LENGTH];
    size_t n_bytes;
    mm_status st = mm_clean_text(text, &cleaned, &n_bytes);
    if (st == MM_OK) {
        check_cleaned(cleaned, n_bytes);
        free(cleaned);
    } else if (st != MM_E_VALUE) {
        abort();
    }
    if (mm_tokenizer_encode(tokenizer, text, CONTEXT_LENGTH, ids) != st)
        abort();
    if (st == MM_OK)
        check_ids(ids);
    free(text);
    return 0;
}
