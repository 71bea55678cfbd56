/* What test_convert.py has the towers do:
 *
 *   features_tool image WEIGHTS MODEL IMAGES OUT
 *   features_tool text WEIGHTS MODEL TOKENS OUT
 *
 * MODEL: what a user types for --model, or "-". IMAGES: raw uint8 [N,S,S,3].
 * TOKENS: raw int32 [N,context_length]. OUT: raw fp32 [N,embed_dim], before
 * normalising. A failure is printed and exits with its mm_status. */
#include "src/model/model.h"
#include "src/model/text.h"
#include "src/model/vit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** A whole file; its size in *n_bytes. */
static void *read_raw(const char *path, size_t *n_bytes)
{
    FILE *in = fopen(path, "rb");
    if (!in || fseek(in, 0, SEEK_END) != 0)
        exit(100);
    *n_bytes = (size_t)ftell(in);
    rewind(in);
    void *data = malloc(*n_bytes + 1);
    if (!data || fread(data, 1, *n_bytes, in) != *n_bytes)
        exit(100);
    fclose(in);
    return data;
}

static void write_raw(const char *path, const float *features, size_t n)
{
    FILE *out = fopen(path, "wb");
    if (!out || fwrite(features, sizeof *features, n, out) != n ||
        fclose(out) != 0)
        exit(100);
}

static mm_status encode_images(mm_device *device, mm_stream *stream,
                               const mm_model *model, const char *in,
                               const char *out)
{
    mm_vit *vit = NULL;
    float *features;
    size_t n_bytes;
    uint8_t *images = read_raw(in, &n_bytes);
    const mm_model_config *c = &model->config;
    int64_t n = (int64_t)n_bytes / (3 * c->image_size * c->image_size);
    MM_TRY(mm_vit_create(device, stream, c, MM_VIT_INFERENCE, n, &vit));
    MM_TRY(mm_vit_forward(vit, model->theta, (const mm_act *)model->theta,
                          images, n, &features));
    MM_TRY(mm_stream_sync(stream));
    write_raw(out, features, (size_t)(n * c->embed_dim));
    mm_vit_destroy(&vit);
    free(images);
    return MM_OK;
}

/* The end token has the highest number. */
static int64_t find_end(const int32_t *tokens, int64_t n)
{
    int64_t end = 0;
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] > tokens[end])
            end = i;
    return end;
}

static mm_status encode_texts(mm_device *device, mm_stream *stream,
                              const mm_model *model, const char *in,
                              const char *out)
{
    mm_text *text = NULL;
    float *features;
    size_t n_bytes;
    int32_t *tokens = read_raw(in, &n_bytes);
    const mm_model_config *c = &model->config;
    int64_t length = c->text.n_tokens;
    int64_t n = (int64_t)(n_bytes / sizeof *tokens) / length;
    int64_t *ends = calloc((size_t)n, sizeof *ends);
    for (int64_t i = 0; i < n; i++)
        ends[i] = i * length + find_end(tokens + i * length, length);
    MM_TRY(mm_text_create(device, stream, c, n * length, &text));
    MM_TRY(mm_text_forward(text, model->theta, (const mm_act *)model->theta,
                           tokens, ends, n, length, &features));
    MM_TRY(mm_stream_sync(stream));
    write_raw(out, features, (size_t)(n * c->embed_dim));
    mm_text_destroy(&text);
    free(ends);
    free(tokens);
    return MM_OK;
}

static mm_status run(mm_comm *comm, bool text, char **argv)
{
    const char *name = strcmp(argv[3], "-") == 0 ? NULL : argv[3];
    mm_device *device = NULL;
    mm_stream *stream = NULL;
    mm_model model = {0};
    MM_TRY(mm_device_open("cpu", 2, &device));
    MM_TRY(mm_stream_create(device, &stream));
    mm_log *log = mm_log_create("features_tool", 0, false);
    mm_status st = text ? mm_model_init_text(comm, log, name, argv[2], &model)
                        : mm_model_init(comm, log, name, argv[2], 0, &model);
    if (st == MM_OK)
        st = text ? encode_texts(device, stream, &model, argv[4], argv[5])
                  : encode_images(device, stream, &model, argv[4], argv[5]);
    mm_model_clear(&model);
    mm_log_destroy(&log);
    mm_stream_destroy(&stream);
    mm_device_close(&device);
    return st;
}

int main(int argc, char **argv)
{
    mm_comm *comm = NULL;
    bool text = argc > 1 && strcmp(argv[1], "text") == 0;
    if (argc != 6 || mm_comm_create(&argc, &argv, &comm) != MM_OK)
        return 100;
    mm_status st = run(comm, text, argv);
    if (st != MM_OK)
        printf("%s\n", mm_fail_message());
    mm_comm_destroy(&comm);
    return (int)st;
}
