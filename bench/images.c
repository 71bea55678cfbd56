/*
 * Times JPEG files in memory on their way to the model's input, 224 x 224 in
 * normalised fp32, on one core, beside decoding alone.
 *
 *   images REPEATS FILE...
 *
 * Prints one JSON object of images/s, by processor time: `decode` is the JPEG
 * library alone, to RGB; `ours` is mm_image_decode, mm_transform_evaluation and
 * the op that normalises. For every file in turn both are run, so that a
 * machine whose speed changes changes both. `resize_ms` and `normalise_ms` are
 * parts of ours.
 */
#include "io/image/image.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "src/image/transform.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <jpeglib.h>

enum { SIZE = 224, N_FLOATS = SIZE * SIZE * 3 };

/** One file, and what decoding alone writes to. */
typedef struct file {
    uint8_t *bytes, *rgb;
    int64_t n_bytes;
} file;

typedef struct tools {
    mm_image_decoder *decoder;
    mm_transform *transform;
    mm_device *device;
    mm_stream *stream;
    uint8_t *pixels;
    float *input;
} tools;

typedef struct seconds {
    double decode, ours, resize, normalise;
} seconds;

static void must(mm_status st)
{
    if (st != MM_OK) {
        fprintf(stderr, "images: %s\n", mm_fail_message());
        exit(1);
    }
}

static void *allocate(size_t n_bytes)
{
    void *memory = malloc(n_bytes);
    if (!memory)
        must(mm_fail(MM_E_MEMORY, "no memory"));
    return memory;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static file read_file(const char *path)
{
    file f = {NULL, NULL, 0};
    FILE *in = fopen(path, "rb");
    if (!in || fseek(in, 0, SEEK_END) || (f.n_bytes = ftell(in)) < 1)
        must(mm_fail_errno("%s", path));
    rewind(in);
    f.bytes = allocate((size_t)f.n_bytes);
    if (fread(f.bytes, 1, (size_t)f.n_bytes, in) != (size_t)f.n_bytes)
        must(mm_fail_errno("%s", path));
    fclose(in);
    return f;
}

static void decode_alone(file *f)
{
    struct jpeg_decompress_struct lib;
    struct jpeg_error_mgr errors;
    lib.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&lib);
    jpeg_mem_src(&lib, f->bytes, (unsigned long)f->n_bytes);
    jpeg_read_header(&lib, TRUE);
    lib.out_color_space = JCS_RGB;
    jpeg_start_decompress(&lib);
    size_t row_bytes = lib.output_width * (size_t)3;
    if (!f->rgb)
        f->rgb = allocate(row_bytes * lib.output_height);
    while (lib.output_scanline < lib.output_height) {
        JSAMPROW row = f->rgb + lib.output_scanline * row_bytes;
        jpeg_read_scanlines(&lib, &row, 1);
    }
    jpeg_finish_decompress(&lib);
    jpeg_destroy_decompress(&lib);
}

static void whole_path(const tools *t, const file *f, seconds *s)
{
    const float mean[] = {0.48145466f, 0.4578275f, 0.40821073f};
    const float deviation[] = {0.26862954f, 0.26130258f, 0.27577711f};
    mm_image image;
    double start = now_s();
    must(mm_image_decode(t->decoder, f->bytes, f->n_bytes, "file", &image));
    double decoded = now_s();
    must(mm_transform_evaluation(t->transform, &image, t->pixels));
    double resized = now_s();
    /* One patch of the whole image: channels first, as PyTorch has it. */
    must(mm_device_ops(t->device)->patchify(t->stream, (mm_act *)t->input,
                                            t->pixels, 1, SIZE, SIZE, mean,
                                            deviation));
    double end = now_s();
    s->ours += end - start;
    s->resize += resized - decoded;
    s->normalise += end - resized;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: images REPEATS FILE...\n");
        return 2;
    }
    int n_repeats = atoi(argv[1]), n_files = argc - 2;
    file *files = allocate((size_t)n_files * sizeof *files);
    for (int i = 0; i < n_files; i++)
        files[i] = read_file(argv[i + 2]);

    tools t;
    must(mm_image_decoder_create(&t.decoder));
    must(mm_transform_create(SIZE, &t.transform));
    must(mm_device_open("cpu", 1, &t.device));
    must(mm_stream_create(t.device, &t.stream));
    t.pixels = allocate(N_FLOATS);
    t.input = allocate(N_FLOATS * sizeof(float));

    seconds total = {0, 0, 0, 0};
    for (int repeat = -1; repeat < n_repeats; repeat++) {
        if (repeat == 0) /* the first time warms up */
            total = (seconds){0, 0, 0, 0};
        for (int i = 0; i < n_files; i++) {
            double start = now_s();
            decode_alone(&files[i]);
            total.decode += now_s() - start;
            whole_path(&t, &files[i], &total);
        }
    }
    double n = (double)n_repeats * n_files;
    printf("{\"decode\": %.1f, \"ours\": %.1f, \"resize_ms\": %.3f, "
           "\"normalise_ms\": %.3f}\n",
           n / total.decode, n / total.ours, 1e3 * total.resize / n,
           1e3 * total.normalise / n);
    return 0;
}
