/* The sizes of a training step, and its device memory laid out in one block. */

#include "src/train/step_memory.h"

#include "src/base/arena.h"
#include "src/input/upload.h"
#include "src/model/low_precision.h"
#include "src/model/params.h"

static mm_status count_params(const mm_model_config *config, int64_t *n)
{
    mm_tensor_table table = {0};
    mm_status st = mm_params_table(config, &table);
    *n = table.n_elems;
    mm_tensor_table_clear(&table);
    return st;
}

mm_status mm_step_sizes_of(const mm_step_plan *plan, mm_step_sizes *sizes)
{
    int64_t side = plan->config->image_size, image_bytes = side * side * 3;
    *sizes = (mm_step_sizes){
        .part_images =
            (plan->most_images + plan->accumulate - 1) / plan->accumulate,
        .image_bytes = image_bytes,
        .batch_bytes =
            plan->most_images * (image_bytes + (int64_t)sizeof(int32_t)),
        .outcome_bytes = (1 + plan->accumulate) * (int64_t)sizeof(double),
        .use = plan->recompute ? MM_VIT_RECOMPUTING : MM_VIT_TRAINING,
    };
    return count_params(plan->config, &sizes->n_params);
}

static void lay_out(const mm_step_plan *plan, const mm_step_sizes *sizes,
                    mm_arena *arena, mm_step_memory *to)
{
    int64_t n = sizes->n_params, b = sizes->part_images;
    int64_t classes = plan->most_classes, e = plan->config->embed_dim;
    to->theta = mm_arena_floats(arena, n);
    to->grad = mm_arena_floats(arena, n);
    to->m = mm_arena_floats(arena, n);
    to->v = mm_arena_floats(arena, n);
    to->theta_low = mm_low_precision_take(arena, plan->device, n);
    to->head = mm_arena_floats(arena, classes * e);
    to->logits = mm_arena_floats(arena, b * classes);
    to->dlogits = mm_arena_floats(arena, b * classes);
    to->inv_norm = mm_arena_floats(arena, b);
    to->dfeatures = mm_arena_floats(arena, b * e);
    to->outcome = mm_arena_take(arena, sizes->outcome_bytes);
    to->n_bytes = arena->used;
}

mm_status mm_step_memory_alloc(const mm_step_plan *plan,
                               const mm_step_sizes *sizes,
                               mm_step_memory *memory)
{
    mm_arena arena = {0};
    lay_out(plan, sizes, &arena, memory);
    MM_TRY(mm_device_alloc(plan->device, memory->n_bytes, &memory->block));
    arena = (mm_arena){.base = memory->block};
    lay_out(plan, sizes, &arena, memory);
    return MM_OK;
}

void mm_step_memory_free(mm_device *device, mm_step_memory *memory)
{
    mm_device_free(device, &memory->block);
    *memory = (mm_step_memory){0};
}

mm_status mm_stepper_count_bytes(const mm_step_plan *plan, int64_t *n_bytes)
{
    mm_step_sizes sizes;
    mm_step_memory memory;
    mm_arena arena = {0};
    int64_t of_vit;
    MM_TRY(mm_step_sizes_of(plan, &sizes));
    lay_out(plan, &sizes, &arena, &memory);
    MM_TRY(mm_vit_count_bytes(plan->device, plan->config, sizes.use,
                              sizes.part_images, &of_vit));
    *n_bytes = memory.n_bytes + of_vit +
               mm_upload_n_bytes(plan->device, sizes.batch_bytes);
    return MM_OK;
}
