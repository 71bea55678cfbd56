/*
 * Device memory of a training step, computed, not taken: every way of saving
 * for one model and batch, as rows of a table.
 *
 *   train_memory DEVICE MODEL BATCH
 */
#include "src/model/model.h"
#include "src/train/step.h"

#include <stdio.h>
#include <stdlib.h>

static void must(mm_status st)
{
    if (st == MM_OK)
        return;
    fprintf(stderr, "train_memory: %s\n", mm_fail_message());
    exit(1);
}

int main(int argc, char **argv)
{
    static const int64_t parts[] = {1, 2, 4, 8};
    const int64_t n_parts = (int64_t)(sizeof parts / sizeof *parts);
    if (argc != 4) {
        fprintf(stderr, "usage: train_memory DEVICE MODEL BATCH\n");
        return 2;
    }
    mm_model_config config = {0};
    mm_device *device = NULL;
    must(mm_device_open(argv[1], 1, &device));
    must(mm_model_config_find(argv[2], &config));
    for (int64_t i = 0; i < 2 * n_parts; i++) {
        mm_step_plan plan = {
            .device = device,
            .config = &config,
            .most_images = atoll(argv[3]),
            .most_classes = 1000,
            .accumulate = parts[i / 2],
            .recompute = i % 2,
        };
        int64_t n_bytes;
        must(mm_stepper_count_bytes(&plan, &n_bytes));
        printf("| %s | %s | %lld | %s | %.1f |\n", argv[2], argv[1],
               (long long)plan.accumulate, plan.recompute ? "yes" : "no",
               (double)n_bytes / (1 << 30));
    }
    mm_model_config_clear(&config);
    mm_device_close(&device);
    return 0;
}
