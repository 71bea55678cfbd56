/* What test_pickle.py has the pickle reader do. Each line of standard input is
 *
 *   IN CALLABLE ...    separated by tabs
 *
 * and is answered by a line: the status and the value, or why there is none.
 *
 * Numbers are printed as they are (floats in hexadecimal), texts as t"bytes in
 * hexadecimal", bytes as b"...", a global as module.name, an object as
 * callable(args)state[items]{pairs}, something persistent as id(...). */
#include "io/python/pickle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print(const mm_pickle_value *v);

static void print_hex(char kind, mm_pickle_text text)
{
    printf("%c\"", kind);
    for (int64_t i = 0; i < text.n_bytes; i++)
        printf("%02x", (unsigned char)text.data[i]);
    printf("\"");
}

static void print_all(char begin, const mm_pickle_value *const *values,
                      int32_t n, char end)
{
    printf("%c", begin);
    for (int32_t i = 0; i < n; i++) {
        print(values[i]);
        printf(",");
    }
    printf("%c", end);
}

static void print_object(const mm_pickle_value *v)
{
    print(v->object.callable);
    print(v->object.args);
    if (v->object.state)
        print(v->object.state);
    print_all('[', v->items, v->n_items, ']');
    print_all('{', v->pairs, 2 * v->n_pairs, '}');
}

static void print(const mm_pickle_value *v)
{
    char name[MM_PICKLE_NAME_BYTES];
    switch (v->kind) {
    case MM_PICKLE_NONE:
        printf("None");
        break;
    case MM_PICKLE_BOOL:
        printf(v->integer ? "True" : "False");
        break;
    case MM_PICKLE_INT:
        printf("%" PRId64, v->integer);
        break;
    case MM_PICKLE_BIG_INT:
        printf("big");
        break;
    case MM_PICKLE_FLOAT:
        printf("%a", v->number);
        break;
    case MM_PICKLE_TEXT:
        print_hex('t', v->text);
        break;
    case MM_PICKLE_BYTES:
        print_hex('b', v->text);
        break;
    case MM_PICKLE_TUPLE:
        print_all('(', v->items, v->n_items, ')');
        break;
    case MM_PICKLE_LIST:
        print_all('[', v->items, v->n_items, ']');
        break;
    case MM_PICKLE_SET:
        print_all('<', v->items, v->n_items, '>');
        break;
    case MM_PICKLE_DICT:
        print_all('{', v->pairs, 2 * v->n_pairs, '}');
        break;
    case MM_PICKLE_GLOBAL:
        mm_pickle_global_name(v, name);
        printf("%s", name);
        break;
    case MM_PICKLE_PERSISTENT:
        printf("id");
        print(v->id);
        break;
    case MM_PICKLE_OBJECT:
        print_object(v);
        break;
    }
}

static void answer(const char *path, const char *const *callables)
{
    mm_pickle *pickle;
    FILE *file = fopen(path, "rb");
    size_t room = 1 << 24;
    char *data = malloc(room);
    if (!file || !data)
        exit(100);
    size_t n = fread(data, 1, room, file);
    fclose(file);
    mm_status st = mm_pickle_read(data, (int64_t)n, callables, &pickle);
    printf("%d ", (int)st);
    if (st == MM_OK)
        print(mm_pickle_root(pickle));
    else
        printf("%s", mm_fail_message());
    printf("\n");
    mm_pickle_destroy(&pickle);
    free(data);
}

int main(void)
{
    enum { MOST_WORDS = 8 };
    char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        const char *words[MOST_WORDS + 1] = {NULL};
        int n = 0;
        line[strcspn(line, "\n")] = '\0';
        for (char *at = line; at && n < MOST_WORDS; n++)
            words[n] = strsep(&at, "\t");
        answer(words[0], words + 1);
        fflush(stdout);
    }
    return 0;
}
