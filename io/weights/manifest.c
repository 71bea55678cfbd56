/* Writes and parses the manifest of a checkpoint, the text that lists the
 * checksums of its tensors and texts. */

#include "io/weights/manifest.h"

#include "io/weights/checksum.h"
#include "src/base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool write_line(FILE *out, uint32_t crc, const char *name)
{
    char *stored = mm_utf8_escape(name);
    if (stored)
        fprintf(out, "%08x  %s\n", crc, stored);
    free(stored);
    return stored != NULL;
}

mm_status mm_manifest_write(const mm_tensor_table *table, const uint32_t *crc,
                            const char *const *names, const char *const *texts,
                            char **text)
{
    char *data = NULL;
    size_t n_bytes = 0;
    FILE *out = open_memstream(&data, &n_bytes);
    if (!out)
        return mm_fail(MM_E_MEMORY, "no memory for a manifest");
    bool fits = true;
    for (int i = 0; fits && i < table->n_tensors; i++)
        fits = write_line(out, crc[i], table->tensors[i].name);
    for (int i = 0; names[i]; i++)
        if (texts[i])
            fprintf(out, "%08x  %s\n",
                    mm_crc32(texts[i], (int64_t)strlen(texts[i])), names[i]);
    /* After the flush, data and n_bytes are up to date. */
    bool failed = fflush(out) != 0 || !fits;
    if (!failed)
        fprintf(out, "%08x  manifest\n", mm_crc32(data, (int64_t)n_bytes));
    if (fclose(out) != 0 || failed) {
        free(data);
        return mm_fail(MM_E_MEMORY, "no memory for a manifest");
    }
    *text = data;
    return MM_OK;
}

static bool read_hex(const char *text, uint32_t *value)
{
    *value = 0;
    for (int i = 0; i < 8; i++) {
        const char *digits = "0123456789abcdef";
        const char *at = text[i] ? strchr(digits, text[i]) : NULL;
        if (!at)
            return false;
        *value = *value << 4 | (uint32_t)(at - digits);
    }
    return true;
}

bool mm_manifest_next(const char **cursor, mm_manifest_line *line)
{
    const char *text = *cursor;
    if (!read_hex(text, &line->crc) || text[8] != ' ' || text[9] != ' ')
        return false;
    const char *end = strchr(text, '\n');
    if (!end || end - text > INT32_MAX)
        return false;
    line->name = text + 10;
    line->name_bytes = (int)(end - line->name);
    *cursor = end + 1;
    return true;
}

bool mm_manifest_is(const mm_manifest_line *line, const char *name)
{
    return strlen(name) == (size_t)line->name_bytes &&
           memcmp(name, line->name, (size_t)line->name_bytes) == 0;
}

mm_status mm_manifest_is_of(const mm_manifest_line *line, const char *tensor,
                            bool *is_of)
{
    *is_of = mm_manifest_is(line, tensor);
    if (*is_of)
        return MM_OK;
    char *stored = mm_utf8_escape(tensor);
    if (!stored)
        return mm_fail(MM_E_MEMORY, "no memory for the name of a tensor");
    *is_of = mm_manifest_is(line, stored);
    free(stored);
    return MM_OK;
}

mm_status mm_manifest_check(const char *path, char *text)
{
    size_t n_bytes = strlen(text);
    char *last = text;
    if (n_bytes > 0 && text[n_bytes - 1] == '\n') {
        last = text + n_bytes - 1;
        while (last > text && last[-1] != '\n')
            last--;
    }
    const char *cursor = last;
    mm_manifest_line line;
    if (!mm_manifest_next(&cursor, &line) || *cursor ||
        !mm_manifest_is(&line, "manifest") ||
        line.crc != mm_crc32(text, last - text))
        return mm_fail(MM_E_FORMAT,
                       "%s is damaged: its manifest's checksum is wrong", path);
    *last = '\0';
    return MM_OK;
}
