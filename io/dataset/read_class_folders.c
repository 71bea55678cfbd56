/* Reads a data set of one folder per class: rank 0 lists the files, and all
 * ranks get the same names, paths and labels. The images themselves are read
 * later (sample.c). */

#include "io/dataset/dataset_reader.h"

#include "comm/check_same.h"
#include "io/dataset/folder_scan.h"
#include "src/base/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What rank 0 finds and all ranks get: blocks of bytes. Names and paths are
 * texts, each with its NUL; labels are int32. */
enum { NAMES, NOTE, PATHS, LABELS = PATHS + 2, N_BLOCKS = LABELS + 2 };

typedef struct listing {
    mm_block blocks[N_BLOCKS];
    bool same_halves;
} listing;

static void clear(listing *l)
{
    for (int i = 0; i < N_BLOCKS; i++)
        free(l->blocks[i].data);
    *l = (listing){0};
}

static int64_t count_texts(const mm_block *texts)
{
    int64_t n = 0;
    for (int64_t i = 0; i < texts->n_bytes; i++)
        n += texts->data[i] == '\0';
    return n;
}

static bool same_block(const mm_block *a, const mm_block *b)
{
    return a->n_bytes == b->n_bytes &&
           (a->n_bytes == 0 ||
            memcmp(a->data, b->data, (size_t)a->n_bytes) == 0);
}

/* ---- rank 0: what is there --------------------------------------------- */

static bool has_text(const mm_block *texts, const char *wanted)
{
    for (int64_t at = 0; at < texts->n_bytes;
         at += (int64_t)strlen(texts->data + at) + 1)
        if (strcmp(texts->data + at, wanted) == 0)
            return true;
    return false;
}

static mm_status append_labels(mm_block *labels, int32_t label, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        MM_TRY(mm_block_append(labels, &label, sizeof label));
    return MM_OK;
}

/* A class and its place in the order of paths, where its name is followed by a
 * slash: "cat-big/" comes before "cat/". */
typedef struct class_place {
    const char *name;
    int32_t label;
} class_place;

static int compare_places(const void *a, const void *b)
{
    const unsigned char *p = (const void *)((const class_place *)a)->name;
    const unsigned char *q = (const void *)((const class_place *)b)->name;
    while (*p && *p == *q) {
        p++;
        q++;
    }
    return (*p ? *p : '/') - (*q ? *q : '/');
}

static mm_status scan_class(mm_folder_scan *scan, const char *half,
                            const class_place *place, mm_block *paths,
                            mm_block *labels)
{
    char below[4096];
    int64_t n = 0;
    snprintf(below, sizeof below, "%s%s%s", half, *half ? "/" : "",
             place->name);
    MM_TRY(mm_folder_scan_images(scan, below, paths, &n));
    if (n == 0)
        return mm_fail(MM_E_FORMAT, "the class folder %s/%s holds no images",
                       scan->root, below);
    return append_labels(labels, place->label, n);
}

/* The class folders `names` of root/half; half may be "". */
static mm_status scan_half(mm_folder_scan *scan, const char *half,
                           const mm_block *names, mm_block *paths,
                           mm_block *labels)
{
    int64_t n = count_texts(names), at = 0;
    if (n == 0 || n > MM_MAX_CLASSES)
        return mm_fail(MM_E_FORMAT,
                       "%s%s%s holds %s class folders; images belong in "
                       "FOLDER/CLASS/ or FOLDER/train/CLASS/",
                       scan->root, *half ? "/" : "", half,
                       n ? "too many" : "no");
    class_place *places = malloc((size_t)n * sizeof *places);
    if (!places)
        return mm_fail(MM_E_MEMORY, "%s: no memory for its classes",
                       scan->root);
    for (int32_t i = 0; i < n; i++) {
        places[i] = (class_place){names->data + at, i};
        at += (int64_t)strlen(names->data + at) + 1;
    }
    qsort(places, (size_t)n, sizeof *places, compare_places);
    mm_status st = MM_OK;
    for (int64_t i = 0; st == MM_OK && i < n; i++)
        st = scan_class(scan, half, &places[i], paths, labels);
    free(places);
    return st;
}

/* Whether root/name is a half: it holds folders itself. A class may be called
 * "train" too; then there are images in it. */
static mm_status is_half(const char *root, const mm_block *names,
                         const char *name, bool *yes)
{
    mm_folder_scan look = {.root = root};
    mm_block folders = {0};
    *yes = false;
    if (!has_text(names, name))
        return MM_OK;
    mm_status st = mm_folder_scan_folders(&look, name, &folders);
    *yes = folders.n_bytes > 0;
    free(folders.data);
    return st;
}

static mm_status find_halves(const char *root, const mm_block *names,
                             const char *halves[2])
{
    bool train, test, val;
    MM_TRY(is_half(root, names, "train", &train));
    MM_TRY(is_half(root, names, "test", &test));
    MM_TRY(is_half(root, names, "val", &val));
    halves[0] = train ? "train" : NULL;
    halves[1] = test ? "test" : val ? "val" : NULL;
    return MM_OK;
}

/* Fails with the first class of `a` that is not in `b`. */
static mm_status fail_missing(const char *root, const mm_block *a,
                              const mm_block *b, const char *in,
                              const char *not_in)
{
    for (int64_t at = 0; at < a->n_bytes;
         at += (int64_t)strlen(a->data + at) + 1)
        if (!has_text(b, a->data + at))
            return mm_fail(MM_E_FORMAT,
                           "%s: the class %s is in %s/, but not in %s/", root,
                           a->data + at, in, not_in);
    return MM_OK;
}

static mm_status check_same_classes(const char *root, const char *halves[2],
                                    const mm_block names[2])
{
    if (!halves[0] || !halves[1] || same_block(&names[0], &names[1]))
        return MM_OK;
    MM_TRY(fail_missing(root, &names[0], &names[1], halves[0], halves[1]));
    return fail_missing(root, &names[1], &names[0], halves[1], halves[0]);
}

static mm_status scan_halves(mm_folder_scan *scan, const char *halves[2],
                             const mm_block *beside, listing *l)
{
    mm_block names[2] = {{0}};
    mm_status st = MM_OK;
    for (int64_t at = 0; at < beside->n_bytes;
         at += (int64_t)strlen(beside->data + at) + 1) {
        const char *name = beside->data + at;
        bool is_used = (halves[0] && strcmp(name, halves[0]) == 0) ||
                       (halves[1] && strcmp(name, halves[1]) == 0);
        if (!is_used && scan->n_left_out++ == 0)
            snprintf(scan->first_left_out, sizeof scan->first_left_out, "%s/",
                     name);
    }
    for (int i = 0; i < 2; i++)
        if (halves[i])
            MM_TRY_GOTO(st, done,
                        mm_folder_scan_folders(scan, halves[i], &names[i]));
    MM_TRY_GOTO(st, done, check_same_classes(scan->root, halves, names));
    for (int i = 0; i < 2; i++)
        if (halves[i])
            MM_TRY_GOTO(st, done,
                        scan_half(scan, halves[i], &names[i],
                                  &l->blocks[PATHS + i],
                                  &l->blocks[LABELS + i]));
    int kept = halves[0] ? 0 : 1;
    l->blocks[NAMES] = names[kept];
    names[kept] = (mm_block){0};
done:
    free(names[0].data);
    free(names[1].data);
    return st;
}

static mm_status write_note(const mm_folder_scan *scan, mm_block *note)
{
    char text[1200];
    if (scan->n_left_out == 0)
        return MM_OK;
    int length = snprintf(
        text, sizeof text,
        "%.500s: left out what is not an image: %s%s%.0lld%s", scan->root,
        scan->first_left_out, scan->n_left_out > 1 ? " and " : "",
        (long long)scan->n_left_out - 1, scan->n_left_out > 1 ? " more" : "");
    return mm_block_append(note, text, length + 1);
}

static mm_status scan_all(const char *root, listing *l)
{
    mm_folder_scan scan = {.root = root};
    const char *halves[2];
    mm_block folders = {0};
    mm_status st;
    MM_TRY_GOTO(st, done, mm_folder_scan_folders(&scan, "", &folders));
    MM_TRY_GOTO(st, done, find_halves(root, &folders, halves));
    l->same_halves = !halves[0] && !halves[1];
    if (l->same_halves) {
        l->blocks[NAMES] = folders;
        folders = (mm_block){0};
        st = scan_half(&scan, "", &l->blocks[NAMES], &l->blocks[PATHS],
                       &l->blocks[LABELS]);
    } else {
        st = scan_halves(&scan, halves, &folders, l);
    }
    if (st == MM_OK)
        st = write_note(&scan, &l->blocks[NOTE]);
done:
    free(folders.data);
    return st;
}

/* ---- all ranks --------------------------------------------------------- */

static mm_status make_room(const int64_t *sizes, listing *l)
{
    for (int i = 0; i < N_BLOCKS; i++) {
        l->blocks[i].data = malloc((size_t)sizes[i] + 1);
        l->blocks[i].n_bytes = sizes[i];
        if (!l->blocks[i].data)
            return mm_fail(MM_E_MEMORY, "no memory for a list of files");
    }
    return MM_OK;
}

static mm_status share(mm_comm *comm, listing *l)
{
    int64_t sizes[N_BLOCKS + 1] = {[N_BLOCKS] = l->same_halves};
    for (int i = 0; i < N_BLOCKS; i++)
        sizes[i] = l->blocks[i].n_bytes;
    MM_TRY(mm_comm_broadcast(comm, sizes, sizeof sizes, 0));
    l->same_halves = sizes[N_BLOCKS];
    MM_TRY(mm_comm_agree(comm, mm_comm_rank(comm) == 0 ? MM_OK
                                                       : make_room(sizes, l)));
    for (int i = 0; i < N_BLOCKS; i++)
        MM_TRY(mm_comm_broadcast(comm, l->blocks[i].data, sizes[i], 0));
    return MM_OK;
}

/* Where each text of a block begins. */
static mm_status index_texts(const mm_block *texts, int64_t **starts,
                             int64_t *n)
{
    int64_t at = 0;
    *n = count_texts(texts);
    *starts = malloc((size_t)*n * sizeof **starts + 1);
    if (!*starts)
        return mm_fail(MM_E_MEMORY, "no memory for a list of files");
    for (int64_t i = 0; i < *n; i++) {
        (*starts)[i] = at;
        at += (int64_t)strlen(texts->data + at) + 1;
    }
    return MM_OK;
}

static mm_status take_half(listing *l, int which, const char *folder,
                           mm_half *half)
{
    mm_block *paths = &l->blocks[PATHS + which];
    mm_block *labels = &l->blocks[LABELS + which];
    half->storage = MM_STORED_FILES;
    half->folder = folder;
    half->paths = paths->data;
    half->labels = (int32_t *)(void *)labels->data;
    *labels = (mm_block){0};
    mm_status st = index_texts(paths, &half->path_starts, &half->n_images);
    *paths = (mm_block){0};
    return st;
}

static mm_status take_names(const mm_block *texts, mm_dataset *d)
{
    int64_t at = 0, n = count_texts(texts);
    const char **names = malloc((size_t)n * sizeof *names);
    if (!names)
        return mm_fail(MM_E_MEMORY, "no memory for names of classes");
    for (int64_t i = 0; i < n; i++) {
        names[i] = texts->data + at;
        at += (int64_t)strlen(names[i]) + 1;
    }
    mm_status st = mm_names_copy(names, n, &d->class_names);
    free(names);
    d->n_classes = (int)n;
    return st;
}

static mm_status take(listing *l, mm_dataset *d)
{
    MM_TRY(take_names(&l->blocks[NAMES], d));
    MM_TRY(take_half(l, 0, d->name, &d->train));
    d->same_halves = l->same_halves;
    if (l->blocks[NOTE].n_bytes) {
        d->note = l->blocks[NOTE].data;
        l->blocks[NOTE] = (mm_block){0};
    }
    return l->same_halves ? MM_OK : take_half(l, 1, d->name, &d->test);
}

mm_status mm_dataset_read_class_folders(mm_comm *comm, const char *folder,
                                        mm_dataset *dataset)
{
    MM_TRY(MM_CHECK_SAME(comm, MM_SAME_TEXT(folder)));
    listing l = {0};
    mm_status st = MM_OK;
    bool looks = !comm || mm_comm_rank(comm) == 0;
    if (looks)
        st = scan_all(folder, &l);
    if (comm) {
        /* All ranks fail with the same status, and no message names rank 0. */
        mm_status found = st;
        MM_TRY_GOTO(st, done, mm_comm_broadcast(comm, &found, sizeof found, 0));
        if (found != MM_OK && !looks)
            mm_fail(found, "%s cannot be read", folder);
        MM_TRY_GOTO(st, done, mm_comm_agree(comm, found));
        MM_TRY_GOTO(st, done, share(comm, &l));
    }
    if (st == MM_OK)
        st = take(&l, dataset);
done:
    clear(&l);
    return st;
}
