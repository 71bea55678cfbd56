/* Files of class names and of prompts, plain lines or a JSON array; each entry
 * is checked. */

#include "src/data/class_texts.h"

#include "io/file.h"
#include "src/base/names.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 64 << 20 };

/** What a file lists, for messages and checks. */
typedef struct kind {
    const char *what;
    bool has_hole; /* must have a {} */
} kind;

static mm_status check_text(const char *path, int64_t number, const char *text,
                            const kind *k)
{
    if (!text[strspn(text, " \t")])
        return mm_fail(MM_E_FORMAT, "%s:%lld: empty %s", path,
                       (long long)number, k->what);
    if (k->has_hole && !strstr(text, "{}"))
        return mm_fail(
            MM_E_FORMAT,
            "%s:%lld: the prompt '%.80s' has no {}, which stands for "
            "the class name",
            path, (long long)number, text);
    return MM_OK;
}

static mm_status check_all(const char *path, const kind *k, char *const *texts,
                           int64_t n)
{
    if (n == 0)
        return mm_fail(MM_E_FORMAT, "%s holds no %s", path, k->what);
    for (int64_t i = 0; i < n; i++)
        MM_TRY(check_text(path, i + 1, texts[i], k));
    return MM_OK;
}

/** Cuts `text` into its lines; the last may have no line break. */
static mm_status take_lines(char *text, char ***texts, int64_t *n)
{
    int64_t most = 1, count = 0;
    for (const char *c = text; *c; c++)
        most += *c == '\n';
    const char **lines = malloc((size_t)most * sizeof *lines);
    if (!lines)
        return mm_fail(MM_E_MEMORY, "no memory for a list");
    for (char *rest = text; rest && *rest;) {
        char *line = strsep(&rest, "\n");
        size_t length = strlen(line);
        if (length && line[length - 1] == '\r')
            line[length - 1] = '\0';
        lines[count++] = line;
    }
    mm_status st = mm_names_copy(lines, count, texts);
    *n = count;
    free(lines);
    return st;
}

static mm_status take_array(const char *path, const char *text, char ***texts,
                            int64_t *n)
{
    json_error_t error;
    json_t *array = json_loads(text, 0, &error);
    if (!array)
        return mm_fail(MM_E_FORMAT, "%s:%d: %s", path, error.line, error.text);
    size_t count = json_array_size(array);
    const char **strings = malloc(count * sizeof *strings + 1);
    mm_status st =
        strings ? MM_OK : mm_fail(MM_E_MEMORY, "no memory for a list");
    for (size_t i = 0; st == MM_OK && i < count; i++) {
        strings[i] = json_string_value(json_array_get(array, i));
        if (!strings[i])
            st = mm_fail(MM_E_FORMAT, "%s: element %zu is not a string", path,
                         i + 1);
    }
    if (st == MM_OK)
        st = mm_names_copy(strings, (int64_t)count, texts);
    *n = (int64_t)count;
    free(strings);
    json_decref(array);
    return st;
}

static mm_status read_list(const char *path, const kind *k, char ***texts,
                           int64_t *n)
{
    char *content, **list = NULL;
    MM_TRY(mm_file_read_text(path, MAX_FILE_BYTES, &content));
    /* Some editors begin UTF-8 with a byte order mark, which is not text. */
    char *text = content + (strncmp(content, "\xef\xbb\xbf", 3) == 0 ? 3 : 0);
    mm_status st = text[strspn(text, " \t\r\n")] == '['
                       ? take_array(path, text, &list, n)
                       : take_lines(text, &list, n);
    if (st == MM_OK)
        st = check_all(path, k, list, *n);
    free(content);
    if (st == MM_OK)
        *texts = list;
    else
        free(list);
    return st;
}

mm_status mm_class_names_read(const char *path, char ***texts, int64_t *n)
{
    return read_list(path, &(kind){"class name", false}, texts, n);
}

mm_status mm_prompts_read(const char *path, char ***texts, int64_t *n)
{
    return read_list(path, &(kind){"prompt", true}, texts, n);
}

/** Names in order, equal ones by their place. */
static int compare(const void *a, const void *b)
{
    const char *const *x = *(const char *const *const *)a;
    const char *const *y = *(const char *const *const *)b;
    int order = strcmp(*x, *y);
    return order ? order : (x > y) - (x < y);
}

void mm_class_names_warn_of_duplicates(mm_log *log, const char *const *names,
                                       int64_t n)
{
    const char *const **sorted = malloc((size_t)n * sizeof *sorted + 1);
    for (int64_t i = 0; sorted && i < n; i++)
        sorted[i] = names + i;
    if (sorted)
        qsort(sorted, (size_t)n, sizeof *sorted, compare);
    for (int64_t i = 1; sorted && i < n; i++)
        if (strcmp(*sorted[i - 1], *sorted[i]) == 0)
            mm_log_warn(
                log,
                "classes %lld and %lld are both '%.80s': their rows of the "
                "head are equal",
                (long long)(sorted[i - 1] - names) + 1,
                (long long)(sorted[i] - names) + 1, *sorted[i]);
    free(sorted);
}
