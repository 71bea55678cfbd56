/*
 * What bench/merge.sh measures magmax_merge against, and the files for both.
 *
 *   merge_stream make FILE SEED      a safetensors file with the tensors of
 *                                    ViT-B/16's image tower, 345 MB
 *   merge_stream run OUT BASE FILE...
 *                                    read all, keep of each weight the largest
 *                                    change, write OUT, fsync, rename
 *
 * `run` is one thread and plain calls: no checksums, no search for NaN, no
 * names. It stands for the least that a merge must do.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 1 << 16 };

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- files -------------------------------------------------------------- */

typedef struct header {
    char text[1 << 16];
    int used;
    int64_t n_elems;
} header;

static void add(header *h, const char *name, int64_t rows, int64_t columns)
{
    char shape[64];
    int64_t n = rows * (columns ? columns : 1);
    if (columns)
        snprintf(shape, sizeof shape, "%" PRId64 ",%" PRId64, rows, columns);
    else
        snprintf(shape, sizeof shape, "%" PRId64, rows);
    h->used += snprintf(h->text + h->used, sizeof h->text - (size_t)h->used,
                        "%c\"visual.%s\":{\"dtype\":\"F32\",\"shape\":[%s],"
                        "\"data_offsets\":[%" PRId64 ",%" PRId64 "]}",
                        h->n_elems ? ',' : '{', name, shape, 4 * h->n_elems,
                        4 * (h->n_elems + n));
    h->n_elems += n;
}

static void add_pair(header *h, const char *name, const char *join,
                     int64_t rows, int64_t columns)
{
    char full[160];
    snprintf(full, sizeof full, "%s%sweight", name, join);
    add(h, full, rows, columns);
    snprintf(full, sizeof full, "%s%sbias", name, join);
    add(h, full, rows, 0);
}

static void add_vit_b_16(header *h)
{
    enum { C = 768, TOKENS = 197, EMBED = 512, LAYERS = 12 };
    add(h, "class_embedding", C, 0);
    add(h, "positional_embedding", TOKENS, C);
    add(h, "proj", C, EMBED);
    add(h, "conv1.weight", C, 3 * 16 * 16);
    add_pair(h, "ln_pre", ".", C, 0);
    for (int layer = 0; layer < LAYERS; layer++) {
        char name[96], *end;
        snprintf(name, sizeof name, "transformer.resblocks.%d.", layer);
        end = name + strlen(name);
        add_pair(h, strcat(name, "ln_1"), ".", C, 0);
        strcpy(end, "attn.in_proj");
        add_pair(h, name, "_", 3 * C, C);
        strcpy(end, "attn.out_proj");
        add_pair(h, name, ".", C, C);
        strcpy(end, "ln_2");
        add_pair(h, name, ".", C, 0);
        strcpy(end, "mlp.c_fc");
        add_pair(h, name, ".", 4 * C, C);
        strcpy(end, "mlp.c_proj");
        add_pair(h, name, ".", C, 4 * C);
    }
    add_pair(h, "ln_post", ".", C, 0);
    h->text[h->used++] = '}';
    while (h->used % 8)
        h->text[h->used++] = ' ';
}

static void make(const char *path, uint64_t seed)
{
    static header h;
    static float block[BLOCK];
    add_vit_b_16(&h);
    FILE *file = fopen(path, "wb");
    uint64_t n_bytes = (uint64_t)h.used, state = seed * 2 + 1;
    if (!file || fwrite(&n_bytes, 8, 1, file) != 1 ||
        fwrite(h.text, (size_t)h.used, 1, file) != 1)
        fail(path);
    for (int64_t at = 0; at < h.n_elems; at += BLOCK) {
        size_t n = h.n_elems - at < BLOCK ? (size_t)(h.n_elems - at) : BLOCK;
        for (size_t i = 0; i < n; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            block[i] = (float)(int32_t)(state >> 32) * 0x1p-36f;
        }
        if (fwrite(block, 4, n, file) != n)
            fail(path);
    }
    if (fclose(file))
        fail(path);
}

/* ---- the stream --------------------------------------------------------- */

typedef struct source {
    int fd;
    off_t at, end;
} source;

static source open_source(const char *path)
{
    source s = {.fd = open(path, O_RDONLY)};
    uint64_t n_bytes;
    if (s.fd < 0 || pread(s.fd, &n_bytes, 8, 0) != 8)
        fail(path);
    s.at = 8 + (off_t)n_bytes;
    s.end = lseek(s.fd, 0, SEEK_END);
    return s;
}

static void next_block(source *s, float *block, size_t n_bytes)
{
    if (pread(s->fd, block, n_bytes, s->at) != (ssize_t)n_bytes)
        fail("read");
    s->at += (off_t)n_bytes;
}

static void select_largest(float *restrict best, const float *restrict tuned,
                           const float *restrict base, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float d = tuned[i] - base[i];
        best[i] = fabsf(d) >= fabsf(best[i]) ? d : best[i];
    }
}

static void run(const char *output, int n_files, char **paths)
{
    static float base[BLOCK], tuned[BLOCK], best[BLOCK];
    char tmp[4096];
    snprintf(tmp, sizeof tmp, "%s.tmp", output);
    source *sources = calloc((size_t)n_files, sizeof *sources);
    for (int i = 0; i < n_files; i++)
        sources[i] = open_source(paths[i]);
    int out = open(tmp, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (out < 0)
        fail(tmp);
    while (sources[0].at < sources[0].end) {
        off_t left = sources[0].end - sources[0].at;
        size_t n_bytes = left < (off_t)sizeof base ? (size_t)left : sizeof base;
        int64_t n = (int64_t)(n_bytes / 4);
        next_block(&sources[0], base, n_bytes);
        memset(best, 0, n_bytes);
        for (int i = 1; i < n_files; i++) {
            next_block(&sources[i], tuned, n_bytes);
            select_largest(best, tuned, base, n);
        }
        for (int64_t i = 0; i < n; i++)
            best[i] = base[i] + 0.5f * best[i];
        if (write(out, best, n_bytes) != (ssize_t)n_bytes)
            fail(tmp);
    }
    if (fsync(out) || close(out) || rename(tmp, output))
        fail(tmp);
    free(sources);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "make") == 0)
        make(argv[2], strtoull(argv[3], NULL, 10));
    else if (argc >= 5 && strcmp(argv[1], "run") == 0)
        run(argv[2], argc - 3, argv + 3);
    else
        return fputs("merge_stream make FILE SEED\n"
                     "merge_stream run OUT BASE FILE...\n",
                     stderr),
               2;
    return 0;
}
