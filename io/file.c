/* Reads and writes whole files and parts of them, and creates folders; new
 * content is written to PATH.tmp, flushed and renamed. */

#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Linux moves at most 2 GiB per call. */
static const int64_t max_call_bytes = INT64_C(1) << 30;

mm_status mm_file_read_at(int fd, const char *path, int64_t off_bytes,
                          void *data, int64_t n_bytes)
{
    char *to = data;
    while (n_bytes > 0) {
        int64_t want = n_bytes < max_call_bytes ? n_bytes : max_call_bytes;
        ssize_t got = pread(fd, to, (size_t)want, off_bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return mm_fail_errno("cannot read %s", path);
        if (got == 0)
            return mm_fail(MM_E_FORMAT, "%s is truncated at byte %lld", path,
                           (long long)off_bytes);
        to += got;
        off_bytes += got;
        n_bytes -= got;
    }
    return MM_OK;
}

mm_status mm_file_write_at(int fd, const char *path, int64_t off_bytes,
                           const void *data, int64_t n_bytes)
{
    const char *from = data;
    while (n_bytes > 0) {
        int64_t want = n_bytes < max_call_bytes ? n_bytes : max_call_bytes;
        ssize_t put = pwrite(fd, from, (size_t)want, off_bytes);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return mm_fail_errno("cannot write %s", path);
        from += put;
        off_bytes += put;
        n_bytes -= put;
    }
    return MM_OK;
}

static mm_status read_text(FILE *file, const char *path, int64_t max_bytes,
                           char **text)
{
    /* Grown while reading: what /proc or a pipe holds has no size. */
    size_t used = 0, room = 4096;
    char *data = malloc(room);
    while (data) {
        used += fread(data + used, 1, room - used, file);
        if (used < room)
            break;
        if ((int64_t)used > max_bytes)
            break;
        room *= 2;
        char *grown = realloc(data, room);
        if (!grown)
            free(data);
        data = grown;
    }
    if (!data)
        return mm_fail(MM_E_MEMORY, "no memory for the text of %s", path);
    mm_status st = MM_OK;
    if (ferror(file))
        st = mm_fail_errno("cannot read %s", path);
    else if ((int64_t)used > max_bytes)
        st = mm_fail(MM_E_FORMAT, "%s is longer than %lld bytes", path,
                     (long long)max_bytes);
    else if (memchr(data, 0, used))
        st = mm_fail(MM_E_FORMAT, "%s is not a text file", path);
    if (st != MM_OK) {
        free(data);
        return st;
    }
    data[used] = '\0'; /* used < room here */
    *text = data;
    return MM_OK;
}

mm_status mm_file_read_text(const char *path, int64_t max_bytes, char **text)
{
    FILE *file = fopen(path, "rbe");
    if (!file)
        return mm_fail_errno("cannot open %s", path);
    mm_status st = read_text(file, path, max_bytes, text);
    fclose(file);
    return st;
}

/* Written, but neither flushed nor renamed. */
static mm_status write_new(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return mm_fail_errno("cannot create %s", path);
    mm_status st = mm_file_write_at(fd, path, 0, text, (int64_t)strlen(text));
    if (close(fd) != 0 && st == MM_OK)
        st = mm_fail_errno("cannot write %s", path);
    return st;
}

mm_status mm_file_write_text(const char *path, const char *text)
{
    char *tmp_path;
    if (asprintf(&tmp_path, "%s.tmp", path) < 0)
        return mm_fail(MM_E_MEMORY, "no memory for a file name");
    mm_status st = write_new(tmp_path, text);
    if (st == MM_OK)
        st = mm_file_commit(tmp_path, path);
    if (st != MM_OK)
        unlink(tmp_path);
    free(tmp_path);
    return st;
}

static mm_status flush(const char *path, int flags)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0)
        return mm_fail_errno("cannot open %s", path);
    mm_status st = MM_OK;
    /* Some file systems cannot flush a folder: EINVAL. */
    if (fsync(fd) != 0 && errno != EINVAL)
        st = mm_fail_errno("cannot flush %s to the disk", path);
    close(fd);
    return st;
}

/** PATH's folder; free(). */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

mm_status mm_file_check_writable(const char *path)
{
    struct stat info;
    if (!*path)
        return mm_fail(MM_E_IO, "cannot write a file without a name");
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return mm_fail(MM_E_IO, "cannot write %s: it is not a regular file",
                       path);
    char *folder = folder_of(path);
    if (!folder)
        return mm_fail(MM_E_MEMORY, "no memory for a file name");
    mm_status st = MM_OK;
    if (access(folder, W_OK | X_OK) != 0)
        st = mm_fail_errno("cannot write %s: folder %s", path, folder);
    free(folder);
    return st;
}

mm_status mm_file_commit(const char *tmp_path, const char *path)
{
    MM_TRY(flush(tmp_path, 0));
    struct stat info;
    if (lstat(path, &info) == 0 && !S_ISREG(info.st_mode) &&
        !S_ISLNK(info.st_mode))
        return mm_fail(MM_E_IO, "%s exists and is not a regular file", path);
    if (rename(tmp_path, path) != 0)
        return mm_fail_errno("cannot rename %s to %s", tmp_path, path);
    char *folder = folder_of(path);
    if (!folder)
        return mm_fail(MM_E_MEMORY, "no memory for a file name");
    mm_status st = flush(folder, O_DIRECTORY);
    free(folder);
    return st;
}

mm_status mm_file_create_folder(const char *path)
{
    char *part = strdup(path);
    if (!part)
        return mm_fail(MM_E_MEMORY, "no memory for a file name");
    mm_status st = MM_OK;
    for (char *end = part; st == MM_OK && end;) {
        end = strchr(end + 1, '/');
        if (end)
            *end = '\0';
        if (*part && mkdir(part, 0777) != 0 && errno != EEXIST)
            st = mm_fail_errno("cannot create the folder %s", part);
        if (end)
            *end = '/';
    }
    struct stat info;
    if (st == MM_OK && (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)))
        st = mm_fail(MM_E_IO, "%s exists and is not a folder", path);
    free(part);
    return st;
}

bool mm_file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool mm_file_same(const char *a, const char *b)
{
    struct stat info_a, info_b;
    if (stat(a, &info_a) == 0 && stat(b, &info_b) == 0)
        return info_a.st_dev == info_b.st_dev && info_a.st_ino == info_b.st_ino;
    return strcmp(a, b) == 0;
}
