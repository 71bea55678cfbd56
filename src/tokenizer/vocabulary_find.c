/* The places where the vocabulary may be, in the order in which they are
 * searched. */

#include "src/tokenizer/vocabulary_find.h"

#include "io/file.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const file_names[] = {
    "bpe_simple_vocab_16e6.txt.gz",
    "bpe_simple_vocab_16e6.txt",
    "tokenizer.json",
    "merges.txt",
};

/* Folders looked at, for the message. */
typedef struct search {
    char looked_at[1200];
    char *found;
    bool no_memory;
} search;

static void look_into(search *s, const char *folder)
{
    if (s->found || s->no_memory)
        return;
    size_t used = strlen(s->looked_at);
    snprintf(s->looked_at + used, sizeof s->looked_at - used, "%s%s",
             used ? ", " : "", folder);
    for (size_t i = 0; i < sizeof file_names / sizeof *file_names; i++) {
        char *path;
        if (asprintf(&path, "%s/%s", folder, file_names[i]) < 0) {
            s->no_memory = true;
            return;
        }
        if (mm_file_exists(path)) {
            s->found = path;
            return;
        }
        free(path);
    }
}

/* `folder` joined to `below`; nothing where `folder` is not set. */
static void look_below(search *s, const char *folder, const char *below)
{
    char *path;
    if (!folder || !*folder)
        return;
    if (asprintf(&path, "%s/%s", folder, below) < 0) {
        s->no_memory = true;
        return;
    }
    look_into(s, path);
    free(path);
}

/* What lies in the folder of a file, or in the folder itself. */
static void look_beside(search *s, const char *path)
{
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        look_into(s, path);
        return;
    }
    const char *slash = strrchr(path, '/');
    char *folder = slash
                       ? strndup(path, (size_t)(slash - path) + (slash == path))
                       : strdup(".");
    if (folder)
        look_into(s, folder);
    else
        s->no_memory = true;
    free(folder);
}

/* PREFIX/bin/PROGRAM: PREFIX/share/magmax. */
static void look_into_installation(search *s)
{
    char program[4096];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0)
        return;
    program[n] = '\0';
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(program, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
    look_below(s, program, "share/magmax");
}

static void look_everywhere(search *s, const char *weights_path)
{
    if (weights_path)
        look_beside(s, weights_path);
    const char *data_home = getenv("XDG_DATA_HOME");
    if (data_home && *data_home)
        look_below(s, data_home, "magmax");
    else
        look_below(s, getenv("HOME"), ".local/share/magmax");
    look_into_installation(s);
}

mm_status mm_vocabulary_find(const char *option, const char *weights_path,
                             char **path)
{
    search s = {0};
    struct stat info;
    if (!option)
        look_everywhere(&s, weights_path);
    else if (stat(option, &info) == 0 && S_ISDIR(info.st_mode))
        look_into(&s, option);
    else if (!(s.found = strdup(option)))
        s.no_memory = true;
    if (s.no_memory)
        return mm_fail(MM_E_MEMORY, "no memory for a file name");
    if (!s.found)
        return mm_fail(MM_E_ARG,
                       "no vocabulary (bpe_simple_vocab_16e6.txt.gz, "
                       "tokenizer.json or merges.txt) in %s; name one with "
                       "--vocab, or fetch it with .ci/install.sh vocabulary",
                       s.looked_at);
    *path = s.found;
    return MM_OK;
}
