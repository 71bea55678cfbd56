/* Names that users type: the nearest known name for a message, and lists
 * separated by commas. */

#include "src/base/names.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int folded(char c)
{
    return c == '_' ? '-' : tolower((unsigned char)c);
}

static int edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 128 };
    int row[LONGEST + 1];
    int n = (int)strnlen(b, LONGEST);
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int replace = diagonal + (folded(a[i - 1]) != folded(b[j - 1]));
            int least = row[j] < row[j - 1] ? row[j] : row[j - 1];
            diagonal = row[j];
            row[j] = replace < least + 1 ? replace : least + 1;
        }
    }
    return row[n];
}

int mm_names_nearest(const char *given, const char *const *names, int n)
{
    int nearest = -1, least = 0;
    for (int i = 0; i < n; i++) {
        int distance = edit_distance(given, names[i]);
        if (nearest < 0 || distance < least) {
            nearest = i;
            least = distance;
        }
    }
    return nearest;
}

mm_status mm_names_unknown(const char *what, const char *given,
                           const char *const *names, int n)
{
    char known[1400] = "";
    size_t used = 0;
    for (int i = 0; i < n && used < sizeof known - 1; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s",
                                 i ? ", " : "", names[i]);
    int nearest = mm_names_nearest(given, names, n);
    return mm_fail(MM_E_ARG, "unknown %s '%.80s'; did you mean %s? Known: %s",
                   what, given, nearest < 0 ? "nothing" : names[nearest],
                   known);
}

mm_status mm_names_split(const char *text, char ***pieces, int *n)
{
    int count = 1;
    for (const char *c = text; *c; c++)
        count += *c == ',';
    size_t table_bytes = (size_t)count * sizeof(char *);
    char **list = malloc(table_bytes + strlen(text) + 1);
    if (!list)
        return mm_fail(MM_E_MEMORY, "no memory for a list of names");
    char *copy = (char *)list + table_bytes;
    strcpy(copy, text);
    for (int i = 0; i < count; i++) {
        list[i] = copy;
        char *comma = strchr(copy, ',');
        if (comma) {
            *comma = '\0';
            copy = comma + 1;
        }
        if (!list[i][0]) {
            free(list);
            return mm_fail(MM_E_ARG, "empty name in the list '%.200s'", text);
        }
    }
    *pieces = list;
    *n = count;
    return MM_OK;
}

mm_status mm_names_copy(const char *const *names, int64_t n, char ***copy)
{
    size_t table_bytes = (size_t)n * sizeof(char *), n_bytes = table_bytes + 1;
    for (int64_t i = 0; i < n; i++)
        n_bytes += (names[i] ? strlen(names[i]) : 0) + 1;
    char **list = malloc(n_bytes);
    if (!list)
        return mm_fail(MM_E_MEMORY, "no memory for a list of names");
    char *at = (char *)list + table_bytes;
    for (int64_t i = 0; i < n; i++) {
        list[i] = at;
        at = stpcpy(at, names[i] ? names[i] : "") + 1;
    }
    *copy = list;
    return MM_OK;
}
