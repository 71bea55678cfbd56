/* Lists the image files below a folder in a fixed order, told from other files
 * by their names or first bytes; classes and labels are read_class_folders.c's.
 */

#include "io/dataset/folder_scan.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, MAX_DEPTH = 32 };

mm_status mm_block_append(mm_block *block, const void *data, int64_t n_bytes)
{
    if (block->n_bytes + n_bytes > block->capacity) {
        int64_t capacity = 2 * block->capacity + n_bytes + 64;
        char *grown = realloc(block->data, (size_t)capacity);
        if (!grown)
            return mm_fail(MM_E_MEMORY, "no memory for a list of files");
        block->data = grown;
        block->capacity = capacity;
    }
    memcpy(block->data + block->n_bytes, data, (size_t)n_bytes);
    block->n_bytes += n_bytes;
    return MM_OK;
}

/* What one folder holds. */
typedef struct entry {
    int64_t name; /* in the names' block */
    bool is_folder;
} entry;

typedef struct entries {
    mm_block names, list; /* list: of entry */
} entries;

static int64_t count(const entries *e)
{
    return e->list.n_bytes / (int64_t)sizeof(entry);
}

static const entry *entry_at(const entries *e, int64_t i)
{
    return (const entry *)(const void *)e->list.data + i;
}

static void clear(entries *e)
{
    free(e->names.data);
    free(e->list.data);
    *e = (entries){0};
}

/* A folder's name counts with the slash that follows it in a path, so that
 * going down in this order gives paths in byte order. */
static int compare_in_paths(const void *a, const void *b, void *names)
{
    const entry *x = a, *y = b;
    const unsigned char *p = (const unsigned char *)names + x->name;
    const unsigned char *q = (const unsigned char *)names + y->name;
    while (*p && *p == *q) {
        p++;
        q++;
    }
    int u = *p ? *p : x->is_folder ? '/' : 0;
    int v = *q ? *q : y->is_folder ? '/' : 0;
    return u - v;
}

static int compare_names(const void *a, const void *b, void *names)
{
    const entry *x = a, *y = b;
    const char *text = names;
    return strcmp(text + x->name, text + y->name);
}

static void leave_out(mm_folder_scan *scan, const char *path)
{
    if (scan->n_left_out++ == 0)
        snprintf(scan->first_left_out, sizeof scan->first_left_out, "%s",
                 path + strlen(scan->root) + 1);
}

/* Whether an entry is a folder, a file or neither; links are followed. */
static mm_status entry_kind(DIR *dir, const struct dirent *d, const char *path,
                            unsigned char *type)
{
    struct stat info;
    *type = d->d_type;
    if (*type != DT_UNKNOWN && *type != DT_LNK)
        return MM_OK;
    if (fstatat(dirfd(dir), d->d_name, &info, 0) != 0)
        return mm_fail_errno("cannot open %s/%s", path, d->d_name);
    *type = S_ISDIR(info.st_mode)   ? DT_DIR
            : S_ISREG(info.st_mode) ? DT_REG
                                    : DT_FIFO;
    return MM_OK;
}

static mm_status add_entry(mm_folder_scan *scan, DIR *dir,
                           const struct dirent *d, const char *path,
                           entries *found)
{
    char full[PATH_BYTES];
    unsigned char type;
    int64_t length = (int64_t)strlen(d->d_name);
    if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
        return MM_OK;
    if (snprintf(full, sizeof full, "%s/%s", path, d->d_name) >= PATH_BYTES)
        return mm_fail(MM_E_IO, "a path in %.1000s is too long", path);
    if (d->d_name[0] != '.')
        MM_TRY(entry_kind(dir, d, path, &type));
    if (d->d_name[0] == '.' || (type != DT_DIR && type != DT_REG)) {
        leave_out(scan, full);
        return MM_OK;
    }
    entry e = {found->names.n_bytes, type == DT_DIR};
    MM_TRY(mm_block_append(&found->names, d->d_name, length + 1));
    return mm_block_append(&found->list, &e, sizeof e);
}

static mm_status list_folder(mm_folder_scan *scan, const char *path,
                             int (*compare)(const void *, const void *, void *),
                             entries *found)
{
    DIR *dir = opendir(path);
    if (!dir)
        return mm_fail_errno("cannot read the folder %s", path);
    mm_status st = MM_OK;
    struct dirent *d;
    while (st == MM_OK && (d = readdir(dir)))
        st = add_entry(scan, dir, d, path, found);
    closedir(dir);
    if (st == MM_OK && count(found) > 1)
        qsort_r(found->list.data, (size_t)count(found), sizeof(entry), compare,
                found->names.data);
    return st;
}

static void join(const mm_folder_scan *scan, const char *below,
                 char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s%s%s", scan->root, *below ? "/" : "", below);
}

mm_status mm_folder_scan_folders(mm_folder_scan *scan, const char *below,
                                 mm_block *names)
{
    char path[PATH_BYTES], full[PATH_BYTES];
    entries found = {0};
    join(scan, below, path);
    mm_status st = list_folder(scan, path, compare_names, &found);
    for (int64_t i = 0; st == MM_OK && i < count(&found); i++) {
        const entry *e = entry_at(&found, i);
        const char *name = found.names.data + e->name;
        if (e->is_folder) {
            st = mm_block_append(names, name, (int64_t)strlen(name) + 1);
        } else if (snprintf(full, sizeof full, "%s/%s", path, name) > 0) {
            leave_out(scan, full);
        }
    }
    clear(&found);
    return st;
}

static bool has_ending(const char *name, const char *const *endings)
{
    const char *dot = strrchr(name, '.');
    for (; dot && *endings; endings++)
        if (strcasecmp(dot + 1, *endings) == 0)
            return true;
    return false;
}

/* Whether a file whose name says nothing begins as an image does. */
static mm_status looks_like_image(const char *path, bool *is_image)
{
    char start[12] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return mm_fail_errno("cannot open %s", path);
    ssize_t got = read(fd, start, sizeof start);
    mm_status st = got < 0 ? mm_fail_errno("cannot read %s", path) : MM_OK;
    close(fd);
    *is_image =
        got == sizeof start &&
        (memcmp(start, "\xff\xd8\xff", 3) == 0 ||
         memcmp(start, "\x89PNG\r\n\x1a\n", 8) == 0 ||
         (memcmp(start, "RIFF", 4) == 0 && memcmp(start + 8, "WEBP", 4) == 0));
    return st;
}

static mm_status check_file(mm_folder_scan *scan, const char *path,
                            mm_block *paths, int64_t *n)
{
    static const char *const readable[] = {"jpg", "jpeg", "jpe", "jfif",
                                           "png", "webp", "ppm", "pgm",
                                           "pbm", "pnm",  NULL};
    static const char *const unreadable[] = {
        "bmp", "gif", "tif", "tiff", "heic", "heif", "avif", "jp2", "j2k",
        "jxl", "tga", "psd", "exr",  "dng",  "cr2",  "nef",  NULL};
    const char *name = strrchr(path, '/') + 1;
    bool is_image = has_ending(name, readable);
    if (!is_image && has_ending(name, unreadable))
        return mm_fail(MM_E_FORMAT,
                       "%s: images of this kind cannot be read; convert it to "
                       "JPEG or PNG, or take it out of the data set",
                       path);
    if (!is_image)
        MM_TRY(looks_like_image(path, &is_image));
    if (!is_image) {
        leave_out(scan, path);
        return MM_OK;
    }
    const char *relative = path + strlen(scan->root) + 1;
    ++*n;
    return mm_block_append(paths, relative, (int64_t)strlen(relative) + 1);
}

static mm_status walk(mm_folder_scan *scan, const char *path, int depth,
                      mm_block *paths, int64_t *n)
{
    entries found = {0};
    char full[PATH_BYTES];
    mm_status st = MM_OK;
    if (depth > MAX_DEPTH)
        return mm_fail(MM_E_FORMAT,
                       "%.1000s: folders are nested more than %d deep; does a "
                       "link lead back?",
                       path, MAX_DEPTH);
    MM_TRY_GOTO(st, done, list_folder(scan, path, compare_in_paths, &found));
    for (int64_t i = 0; i < count(&found); i++) {
        const entry *e = entry_at(&found, i);
        int length = snprintf(full, sizeof full, "%s/%s", path,
                              found.names.data + e->name);
        MM_ASSERT(length < PATH_BYTES); /* add_entry has checked */
        MM_TRY_GOTO(st, done,
                    e->is_folder ? walk(scan, full, depth + 1, paths, n)
                                 : check_file(scan, full, paths, n));
    }
done:
    clear(&found);
    return st;
}

mm_status mm_folder_scan_images(mm_folder_scan *scan, const char *below,
                                mm_block *paths, int64_t *n)
{
    char path[PATH_BYTES];
    join(scan, below, path);
    return walk(scan, path, 0, paths, n);
}
