/* Reads text files that may be compressed by gzip, by zlib, which reads both.
 */

#include "io/gzip.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static mm_status read_failed(gzFile stream, const char *path)
{
    int code;
    const char *text = gzerror(stream, &code);
    if (code == Z_ERRNO)
        return mm_fail_errno("cannot read %s", path);
    if (code == Z_BUF_ERROR)
        return mm_fail(MM_E_FORMAT, "%s is truncated", path);
    return mm_fail(MM_E_FORMAT, "%s is damaged: %s", path, text);
}

static mm_status check(gzFile stream, const char *path, const char *text,
                       int n_bytes, int64_t max_bytes)
{
    int code = Z_OK;
    if (n_bytes >= 0)
        gzerror(stream, &code); /* a truncated file still gives its start */
    if (n_bytes < 0 || code < 0)
        return read_failed(stream, path);
    if (n_bytes > max_bytes)
        return mm_fail(MM_E_FORMAT, "%s is longer than %lld bytes", path,
                       (long long)max_bytes);
    if (memchr(text, 0, (size_t)n_bytes))
        return mm_fail(MM_E_FORMAT, "%s is not a text file", path);
    return MM_OK;
}

mm_status mm_gzip_read_text(const char *path, int64_t max_bytes, char **text)
{
    MM_ASSERT(max_bytes < INT_MAX);
    gzFile stream = gzopen(path, "rbe");
    if (!stream)
        return mm_fail_errno("cannot open %s", path);
    /* Room for one byte too many, which shows that the file is longer; what is
     * never written is never mapped. */
    char *data = malloc((size_t)max_bytes + 1);
    mm_status st;
    if (data) {
        int got = gzread(stream, data, (unsigned)max_bytes + 1);
        st = check(stream, path, data, got, max_bytes);
        if (st == MM_OK) {
            data[got] = '\0';
            char *shrunk = realloc(data, (size_t)got + 1);
            *text = shrunk ? shrunk : data;
            data = NULL;
        }
    } else {
        st = mm_fail(MM_E_MEMORY, "no memory for the text of %s", path);
    }
    free(data);
    gzclose(stream);
    return st;
}
