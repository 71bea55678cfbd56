/* Cutting images into rows of normalised patches; a table of 256 values per
 * channel does the arithmetic. */

#include "kernels/cpu/cpu.h"

/* A byte has 256 values: a table gives the exact formula at a load's cost. */
typedef struct pixel_table {
    float of[3][256];
} pixel_table;

static pixel_table make_table(const float *mean, const float *std)
{
    pixel_table table;
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++)
            table.of[c][v] = ((float)v / 255.0f - mean[c]) / std[c];
    return table;
}

static void cut(float *columns, const uint8_t *image, const pixel_table *table,
                int64_t image_size, int64_t patch_size)
{
    int64_t area = patch_size * patch_size;
    for (int64_t y = 0; y < patch_size; y++) {
        const uint8_t *row = image + y * image_size * 3;
        float *out = columns + y * patch_size;
        for (int64_t x = 0; x < patch_size; x++) {
            out[x] = table->of[0][row[3 * x]];
            out[area + x] = table->of[1][row[3 * x + 1]];
            out[2 * area + x] = table->of[2][row[3 * x + 2]];
        }
    }
}

mm_status MM_CPU(patchify)(mm_stream *stream, mm_act *columns,
                           const uint8_t *images, int64_t n_images,
                           int64_t image_size, int64_t patch_size,
                           const float *mean, const float *std)
{
    MM_CPU_REQUIRE("patchify", stream && n_images >= 0 && image_size >= 0);
    MM_CPU_REQUIRE("patchify", patch_size > 0 && image_size % patch_size == 0);
    if (n_images == 0 || image_size == 0)
        return MM_OK;
    MM_CPU_REQUIRE("patchify", columns && images && mean && std);
    float *out = MM_CPU_FLOATS(columns);
    const pixel_table table = make_table(mean, std);
    int64_t grid = image_size / patch_size;
    int64_t n_patches = n_images * grid * grid;
    int64_t n_elems = 3 * patch_size * patch_size;
    int team = mm_cpu_team(mm_cpu_stream_of(stream), n_patches * n_elems);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t patch = 0; patch < n_patches; patch++) {
        int64_t b = patch / (grid * grid);
        int64_t gy = patch / grid % grid, gx = patch % grid;
        int64_t first =
            (b * image_size + gy * patch_size) * image_size + gx * patch_size;
        cut(out + patch * n_elems, images + 3 * first, &table, image_size,
            patch_size);
    }
    return MM_OK;
}
