#include "src/tasks/text_list.h"

#include "io/file.h"
#include "src/base/names.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 64 << 20 };

/** What a list holds, for messages and checks. */
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
        return mm_fail(MM_E_FORMAT,
                       "%s:%lld: the prompt '%.80s' lacks {}, which stands for "
                       "the class name",
                       path, (long long)number, text);
    return MM_OK;
}

static mm_status check_all(const char *path, const mm_text_list *list,
                           const kind *k)
{
    if (list->n == 0)
        return mm_fail(MM_E_FORMAT, "%s holds no %s", path, k->what);
    for (int64_t i = 0; i < list->n; i++)
        MM_TRY(check_text(path, i + 1, list->texts[i], k));
    return MM_OK;
}

/** Cuts `text` into its lines; the last may lack its end. */
static mm_status take_lines(char *text, mm_text_list *list)
{
    int64_t n = 0;
    for (const char *at = text; *at; n++)
        at = strchrnul(at, '\n') + (strchr(at, '\n') ? 1 : 0);
    const char **lines = malloc((size_t)n * sizeof *lines + 1);
    if (!lines)
        return mm_fail(MM_E_MEMORY, "no memory for a list");
    char *rest = text;
    for (int64_t i = 0; i < n; i++) {
        lines[i] = strsep(&rest, "\n");
        char *last = strrchr(lines[i], '\r');
        if (last && !last[1])
            *last = '\0';
    }
    list->n = n;
    mm_status st = mm_names_copy(lines, n, &list->texts);
    free(lines);
    return st;
}

static mm_status take_array(const char *path, const char *text,
                            mm_text_list *list)
{
    json_error_t error;
    json_t *array = json_loads(text, 0, &error);
    if (!array)
        return mm_fail(MM_E_FORMAT, "%s:%d: %s", path, error.line, error.text);
    size_t n = json_array_size(array);
    const char **strings = malloc(n * sizeof *strings + 1);
    mm_status st =
        strings ? MM_OK : mm_fail(MM_E_MEMORY, "no memory for a list");
    for (size_t i = 0; st == MM_OK && i < n; i++) {
        strings[i] = json_string_value(json_array_get(array, i));
        if (!strings[i])
            st = mm_fail(MM_E_FORMAT, "%s: element %zu is no string", path,
                         i + 1);
    }
    if (st == MM_OK) {
        list->n = (int64_t)n;
        st = mm_names_copy(strings, list->n, &list->texts);
    }
    free(strings);
    json_decref(array);
    return st;
}

static mm_status read_list(const char *path, const kind *k, mm_text_list *list)
{
    char *text;
    MM_TRY(mm_file_read_text(path, MAX_FILE_BYTES, &text));
    mm_status st = text[strspn(text, " \t\r\n")] == '['
                       ? take_array(path, text, list)
                       : take_lines(text, list);
    if (st == MM_OK)
        st = check_all(path, list, k);
    free(text);
    if (st != MM_OK)
        mm_text_list_clear(list);
    return st;
}

mm_status mm_text_list_read_names(const char *path, mm_text_list *list)
{
    return read_list(path, &(kind){"class name", false}, list);
}

mm_status mm_text_list_read_prompts(const char *path, mm_text_list *list)
{
    return read_list(path, &(kind){"prompt", true}, list);
}

void mm_text_list_clear(mm_text_list *list)
{
    free(list->texts);
    *list = (mm_text_list){0};
}

/** Names in order, equal ones by their place. */
static int compare(const void *a, const void *b)
{
    const char *const *x = *(const char *const *const *)a;
    const char *const *y = *(const char *const *const *)b;
    int order = strcmp(*x, *y);
    return order ? order : (x > y) - (x < y);
}

void mm_text_list_warn_of_twins(mm_log *log, const char *const *names,
                                int64_t n)
{
    const char *const **sorted = malloc((size_t)n * sizeof *sorted + 1);
    for (int64_t i = 0; sorted && i < n; i++)
        sorted[i] = names + i;
    if (sorted)
        qsort(sorted, (size_t)n, sizeof *sorted, compare);
    for (int64_t i = 1; sorted && i < n; i++)
        if (strcmp(*sorted[i - 1], *sorted[i]) == 0)
            mm_log_warn(log,
                        "classes %lld and %lld are both '%.80s': no image can "
                        "tell them apart",
                        (long long)(sorted[i - 1] - names) + 1,
                        (long long)(sorted[i] - names) + 1, *sorted[i]);
    free(sorted);
}
