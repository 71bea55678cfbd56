#ifndef MAGMAX_IO_WEIGHTS_WEIGHTS_H
#define MAGMAX_IO_WEIGHTS_WEIGHTS_H

#include "comm/comm.h"
#include "io/weights/number_types.h"
#include "src/base/tensor_table.h"

#include <stdbool.h>

/**
 * Files of named tensors, open for reading, told apart by content:
 *
 * - a checkpoint or any HDF5 file of ours (group /model, or datasets in the
 *   root where there is no such group). Datasets must be contiguous: another
 *   layout is an error that says how to rewrite the file.
 * - safetensors.
 * - what torch.save and torch.jit.save write (zip files: .pt, .pth, .bin): a
 *   dictionary of tensors, a whole module, or a TorchScript archive; nothing in
 *   them is ever imported or called. Names are those of state_dict(): of a
 *   module, those of `_modules`, `_parameters` and persistent `_buffers` joined
 *   by dots; of a TorchScript object, its attributes that are tensors. A
 *   dictionary or module under the key "state_dict", "model_state_dict",
 *   "model" or "module" of a dictionary without tensors of its own is read
 *   instead of it; other entries that are not tensors are ignored. Prefixes
 *   that wrappers put before every name ("module.", "_orig_mod.") are removed;
 *   all else keeps the name that it has in the file.
 * - an index, "NAME.index.json", of a model in several safetensors or PyTorch
 *   files beside it: one table of all tensors.
 *
 * Elements are read directly at their offset in the file and converted to fp32,
 * so that every rank reads its own slice and nothing else. Numbers of any type
 * are read (mm_elem_to_f32); HDF5's must be little-endian F64, F32, F16 or
 * BF16. Tensors of anything else are listed in the table, and an error when
 * they are read.
 */
typedef struct mm_weights mm_weights;

/** A file with more is not a model: names are compared one by one. */
enum { MM_MAX_TENSORS = 16384 };

/**
 * Open a file and read its table, not its tensors.
 *
 * Memory   Gives *weights, freed by mm_weights_close.
 * Ranks    Local.
 * Errors   MM_E_IO, MM_E_FORMAT, naming the file; a file that is shorter than
 *          its table says is MM_E_FORMAT ("truncated").
 */
mm_status mm_weights_open(const char *path, mm_weights **weights);
void mm_weights_close(mm_weights **weights);

const char *mm_weights_path(const mm_weights *weights);

/** Whether a name leads to the file, or to one of an index's. */
bool mm_weights_is_read_from(const mm_weights *weights, const char *path);

/** Every tensor of the file, in the file's order (for our checkpoints: the
 * order in which they were written). */
const mm_tensor_table *mm_weights_table(const mm_weights *weights);

/** The model configuration's JSON text, or NULL where the file has none. */
const char *mm_weights_model(const mm_weights *weights);

/** JSON text on how the weights came about, or NULL. */
const char *mm_weights_provenance(const mm_weights *weights);

typedef enum mm_weights_kind {
    MM_WEIGHTS_CHECKPOINT, /* HDF5, written by mm_weights_writer */
    MM_WEIGHTS_HDF5,       /* any other HDF5 */
    MM_WEIGHTS_SAFETENSORS,
    MM_WEIGHTS_TORCH_DICT,   /* torch.save of a dictionary */
    MM_WEIGHTS_TORCH_MODULE, /* torch.save of a whole module */
    MM_WEIGHTS_TORCHSCRIPT   /* torch.jit.save, as OpenAI's CLIP files */
} mm_weights_kind;

/** What sort of file it is; of an index, its files'. */
mm_weights_kind mm_weights_get_kind(const mm_weights *weights);

/** Number type of a tensor of mm_weights_table in the file. */
mm_elem_type mm_weights_type(const mm_weights *weights, int tensor);

/**
 * Choose what mm_weights_read's flat coordinates mean: `wanted`'s tensors,
 * found by name. Without this call they mean mm_weights_table.
 *
 * Memory   Keeps `wanted`.
 * Errors   MM_E_FORMAT naming the tensor: one that is missing, or has another
 *          shape (both are given), or a visual.* tensor in the file that is not
 *          wanted, if any wanted one is visual.*.
 */
mm_status mm_weights_bind(mm_weights *weights, const mm_tensor_table *wanted);

/**
 * Read elements [lo, hi) of the flat buffer as fp32.
 *
 * Memory   out: host, [hi - lo].
 * Ranks    Local.
 * Errors   MM_E_IO; MM_E_FORMAT when the file ends early; MM_E_VALUE naming the
 *          tensor and element that is NaN or infinite.
 */
mm_status mm_weights_read(mm_weights *weights, int64_t lo, int64_t hi,
                          float *out);

/**
 * Compare the checksums of what was read with the file's. The pieces may have
 * come in any order and from any tensor. With `comm`, all ranks' pieces
 * together must have covered the bound table once; with NULL, this rank must
 * have read whole, once, each tensor of which it read anything. Files without
 * checksums pass. The next read starts another pass.
 *
 * Ranks    Collective when `comm` is given; the same status everywhere.
 * Errors   MM_E_FORMAT naming the first tensor whose bytes have changed;
 *          MM_E_ARG naming one that was not read whole, or more than once.
 */
mm_status mm_weights_verify(mm_weights *weights, mm_comm *comm);

/**
 * Open, bind, read everything, verify, close, in one call.
 *
 * Memory   out: host, [wanted->n_elems].
 * Ranks    Local (agree afterwards).
 */
mm_status mm_weights_load(const char *path, const mm_tensor_table *wanted,
                          float *out);

#endif
