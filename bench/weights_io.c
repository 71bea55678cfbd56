/*
 * How fast files of weights are read and written, against plain copies of
 * their bytes.
 *
 *   weights_io read FILE              every tensor, through one buffer
 *   weights_io bytes FILE             the file's bytes, with read(2) alone
 *   weights_io write FILE OUT TYPE    FILE's tensors to safetensors (F32, ...)
 *
 * Prints seconds of the clock, seconds of this process on the processor, and
 * the file's GB/s by both.
 */
#include "io/weights/weights.h"
#include "io/weights/weights_writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PIECE_ELEMS = 1 << 22 };

static double wall_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* Into one buffer that is used again, and on into a file where there is one. */
static mm_status pass(mm_weights *weights, mm_weights_writer *out,
                      float *buffer)
{
    int64_t n = mm_weights_table(weights)->n_elems;
    for (int64_t lo = 0; lo < n; lo += PIECE_ELEMS) {
        int64_t hi = lo + PIECE_ELEMS < n ? lo + PIECE_ELEMS : n;
        MM_TRY(mm_weights_read(weights, lo, hi, buffer));
        if (out)
            MM_TRY(mm_weights_writer_write(out, lo, hi, buffer));
    }
    return mm_weights_verify(weights, NULL);
}

static mm_status copy(const char *path, const char *out_path,
                      const char *type_name, float *buffer)
{
    mm_weights *weights = NULL;
    mm_weights_writer *out = NULL;
    mm_comm *comm = NULL;
    mm_elem_type type = MM_ELEM_F64;
    MM_TRY(mm_weights_open(path, &weights));
    mm_status st = MM_OK;
    if (out_path) {
        while (type < MM_ELEM_OTHER &&
               strcmp(mm_elem_name(type), type_name) != 0)
            type++;
        st = mm_comm_create(NULL, NULL, &comm);
        if (st == MM_OK)
            st = mm_safetensors_begin(comm, out_path, mm_weights_table(weights),
                                      type, NULL, NULL, &out);
    }
    if (st == MM_OK)
        st = pass(weights, out, buffer);
    if (out)
        st = mm_weights_writer_commit(&out, st, NULL, NULL);
    mm_comm_destroy(&comm);
    mm_weights_close(&weights);
    return st;
}

static mm_status read_bytes(const char *path, void *buffer)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return mm_fail_errno("cannot open %s", path);
    ssize_t got;
    do
        got = read(fd, buffer, 1 << 17);
    while (got > 0);
    close(fd);
    return got < 0 ? mm_fail_errno("cannot read %s", path) : MM_OK;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 2 ? argv[1] : "";
    /* Pages copy fastest to where they begin at a page's start. */
    float *buffer = aligned_alloc(4096, PIECE_ELEMS * sizeof *buffer);
    struct stat info;
    mm_status st;
    double wall = wall_s(), cpu = cpu_s();
    if (!buffer || argc < 3 || stat(argv[2], &info) != 0)
        return 2;
    if (strcmp(verb, "bytes") == 0)
        st = read_bytes(argv[2], buffer);
    else if (strcmp(verb, "read") == 0)
        st = copy(argv[2], NULL, NULL, buffer);
    else if (strcmp(verb, "write") == 0 && argc == 5)
        st = copy(argv[2], argv[3], argv[4], buffer);
    else
        return 2;
    wall = wall_s() - wall;
    cpu = cpu_s() - cpu;
    double gb = 1e-9 * (double)info.st_size;
    if (st != MM_OK)
        printf("%s\n", mm_fail_message());
    printf("%s %s: %.3f s wall, %.3f s cpu, %.2f GB/s wall, %.2f GB/s cpu\n",
           verb, argv[2], wall, cpu, gb / wall, gb / cpu);
    free(buffer);
    return (int)st;
}
