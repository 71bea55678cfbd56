#ifndef MAGMAX_SRC_PROGRAMS_WORKLOAD_H
#define MAGMAX_SRC_PROGRAMS_WORKLOAD_H

#include "src/data/bad_images.h"
#include "src/data/task.h"
#include "src/model/head.h"
#include "src/model/model.h"
#include "src/programs/program.h"

/*
 * What the programs that run a model have in common: their options, and opening
 * what those name.
 */

/** Option rows that several programs have. */
#define MM_ROW_MODEL                                                          \
    {                                                                         \
        .name = "model", .kind = MM_OPTION_TEXT, .value = "NAME",             \
        .help =                                                               \
            "model configuration: a built-in name or open_clip's JSON file; " \
            "without it, the one that --load records"                         \
    }
#define MM_ROW_DATASET                                                    \
    {                                                                     \
        .name = "dataset", .kind = MM_OPTION_TEXT, .value = "NAME",       \
        .required = true,                                                 \
        .help = "data set: a built-in name, a packed .h5 or .npz file, "  \
                "or a folder of class folders of JPEG, PNG, WebP or PPM " \
                "images"                                                  \
    }
#define MM_ROW_DATA_LOCATION                                             \
    {                                                                    \
        .name = "data-location", .kind = MM_OPTION_TEXT, .value = "DIR", \
        .free = true, .help = "folder of a built-in data set"            \
    }
#define MM_ROW_HEAD                                                         \
    {                                                                       \
        .name = "head", .kind = MM_OPTION_TEXT, .value = "FILE",            \
        .required = true,                                                   \
        .help = "classification head: HDF5 or safetensors with one tensor " \
                "'weight' [classes, embed_dim], already scaled"             \
    }
#define MM_ROW_N_SPLITS                                                    \
    {                                                                      \
        .name = "n-splits", .kind = MM_OPTION_INT, .value = "N", .min = 1, \
        .max = 100000, .help = "number of tasks"                           \
    }
#define MM_ROW_SPLIT_STRATEGY                                                  \
    {                                                                          \
        .name = "split-strategy", .kind = MM_OPTION_CHOICE, .value = "HOW",    \
        .choices = "class,data,domain",                                        \
        .help = "how the data set becomes tasks; without it there is one task" \
    }
#define MM_ROW_SAMPLES_PER_CLASS(of)                                          \
    {                                                                         \
        .name = "samples-per-class", .kind = MM_OPTION_INT, .value = "N",     \
        .min = 1, .max = 1e12,                                                \
        .help = "use only the first N " of " images of each class and domain" \
    }
#define MM_ROW_WORKERS                                                    \
    {                                                                     \
        .name = "workers", .kind = MM_OPTION_INT, .value = "N", .min = 0, \
        .max = 1024, .free = true,                                        \
        .help = "threads of each rank that read images ahead; 0: images " \
                "are read when they are needed; without it, 0 for raw "   \
                "pixels, else as many as the rank has cores, at most 16"  \
    }
#define MM_ROW_SKIP_BAD                                                     \
    {                                                                       \
        .name = "skip-bad-images", .kind = MM_OPTION_FLAG,                  \
        .help = "name images that cannot be decoded and go on without them" \
    }
#define MM_ROW_SEED                                                           \
    {                                                                         \
        .name = "seed", .kind = MM_OPTION_INT, .value = "N", .fallback = "5", \
        .min = 0, .max = 9e15, .help = "seed of everything random"            \
    }

#define MM_ROW_DEVICE                                                       \
    {                                                                       \
        .name = "device", .kind = MM_OPTION_CHOICE, .value = "WHICH",       \
        .fallback = "auto", .choices = "cpu,cuda,auto", .free = true,       \
        .help = "what computes; auto: the GPU of this rank where there is " \
                "one, else the CPU"                                         \
    }

#define MM_ROW_PRECISION                                                    \
    {                                                                       \
        .name = "precision", .kind = MM_OPTION_CHOICE, .value = "TYPE",     \
        .choices = "fp32,tf32,bf16",                                        \
        .help =                                                             \
            "numbers of products and, with bf16, of activations; weights, " \
            "their gradients and sums are always fp32; without it, bf16 "   \
            "on GPUs and fp32 on CPUs, which have no other"                 \
    }

/** An open model, data set and head, divided into tasks. Start from {0}. */
typedef struct mm_workload {
    mm_device *device;
    mm_model model;
    mm_dataset *dataset;
    mm_head head;
    mm_task_list tasks;
    mm_bad_images *bad; /* with --skip-bad-images, else NULL */
} mm_workload;

/**
 * Open the device of --device and --precision, which is then the device's in
 * job->options, and the model of --model and --load; without --load, random
 * weights from `seed`. For training on GPUs, no two ranks may share one.
 *
 * Memory   Fills *work, freed by mm_workload_close.
 * Ranks    Collective, same seed; the same status on every rank.
 */
mm_status mm_workload_open_model(const mm_job *job, bool for_training,
                                 uint64_t seed, mm_workload *work);

/** Likewise the device and the model's text tower, of --load. Ranks:
 * collective; the same status on every rank. */
mm_status mm_workload_open_text_model(const mm_job *job, mm_workload *work);

/** Open the data set of --dataset and --data-location. Ranks: as above. */
mm_status mm_workload_open_dataset(const mm_job *job, mm_workload *work);

/** Open --head and divide the data set as --split-strategy, --n-splits and
 * --samples-per-class say; warns where the head's class names are not the data
 * set's. Ranks: as above. */
mm_status mm_workload_open_tasks(const mm_job *job, bool for_training,
                                 mm_workload *work);

/** Prepare for --skip-bad-images, which may be off, in `half`. Ranks: as
 * above. */
mm_status mm_workload_open_bad(const mm_job *job, const mm_half *half,
                               mm_workload *work);

void mm_workload_close(mm_workload *work);

/** --workers; negative where it is not given. */
int mm_workload_n_workers(const mm_options *options);

/** Log how many images were skipped, if any; returns the number. Ranks: local.
 */
int64_t mm_workload_report_bad(const mm_job *job, const mm_workload *work);

/**
 * How a file came about: {"program", "version", "options"}, as JSON text.
 *
 * Memory   Gives the text (free()); NULL without memory.
 * Ranks    Local.
 */
char *mm_workload_provenance(const mm_job *job, const char *program);

#endif
