/* The token ids of every line of a text file, printed as JSON. */

#include "src/tokenizer/token_lines.h"

#include "io/file.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 1 << 30 };

static void print_ids(const int32_t *ids, int64_t n, FILE *out)
{
    for (int64_t i = 0; i < n; i++)
        fprintf(out, "%s%d", i ? ", " : "[", ids[i]);
    fputc(']', out);
}

/* `text` is cut into its lines. */
static mm_status write_lines(const mm_tokenizer *tokenizer, const char *path,
                             char *text, int64_t context_length, int32_t *ids,
                             FILE *out)
{
    fputc('[', out);
    for (int64_t line = 1; *text; line++) {
        char *end = strchrnul(text, '\n');
        char *next = *end ? end + 1 : end;
        *end = '\0';
        mm_status st =
            mm_tokenizer_encode(tokenizer, text, context_length, ids);
        if (st != MM_OK)
            return mm_fail_within(st, "%s:%lld", path, (long long)line);
        if (line > 1)
            fputs(",\n ", out);
        print_ids(ids, context_length, out);
        text = next;
    }
    fputs("]\n", out);
    if (fflush(out) != 0 || ferror(out))
        return mm_fail_errno("cannot write the ids of %s", path);
    return MM_OK;
}

mm_status mm_token_lines_write(const mm_tokenizer *tokenizer, const char *path,
                               int64_t context_length, FILE *out)
{
    char *text;
    MM_TRY(mm_file_read_text(path, MAX_FILE_BYTES, &text));
    int32_t *ids = malloc((size_t)context_length * sizeof *ids);
    mm_status st = MM_OK;
    if (ids)
        st = write_lines(tokenizer, path, text, context_length, ids, out);
    else
        st = mm_fail(MM_E_MEMORY, "no memory for the ids of a text");
    free(ids);
    free(text);
    return st;
}
