#ifndef MAGMAX_SRC_CONVERT_CONVERT_H
#define MAGMAX_SRC_CONVERT_CONVERT_H

#include "comm/comm.h"
#include "io/weights/number_types.h"
#include "src/base/log.h"

#include <jansson.h>

typedef struct mm_convert_request {
    const char *input;
    const char *with; /* file with the tensors missing in the input, or NULL */
    const char *output;       /* .h5: a checkpoint, .safetensors */
    const char *model;        /* the value of --model, or NULL */
    const char *names;        /* one of MM_NAMINGS */
    const char *dtype;        /* f32, f16, bf16; NULL: the format's usual one */
    const json_t *provenance; /* of the output; may be NULL */
} mm_convert_request;

/**
 * Weights of a CLIP from any format and naming into another, streaming: reading
 * and writing go on in blocks of 1 MB on every rank.
 *
 * Ranks    Collective, same request; a path that is read may lead elsewhere on
 *          each rank. Every rank reads and writes its own tensors.
 * Repeat   Same bytes for any number of ranks.
 * Errors   The same on every rank; MM_E_ARG for an invalid request;
 *          else as mm_convert_source_open, mm_convert_model_find,
 *          mm_convert_plan_init, mm_weights_writer_commit, mm_weights_verify.
 *          Nothing is written then; an earlier output stays.
 */
mm_status mm_convert(mm_comm *comm, mm_log *log,
                     const mm_convert_request *request);

#endif
