#ifndef MAGMAX_IO_WEIGHTS_TORCH_NAMES_H
#define MAGMAX_IO_WEIGHTS_TORCH_NAMES_H

#include "io/python/pickle.h"
#include "io/weights/weights.h"

/** The tensors of a pickle of PyTorch under the names of state_dict(), as
 * io/weights/weights.h says. Start from {0}. */
typedef struct mm_torch_names {
    mm_weights_kind kind;
    struct mm_torch_named {
        char *name;
        const mm_pickle_value *tensor;
    } * entries;
    int n_entries;
} mm_torch_names;

/**
 * Find them in what torch.save was given, or torch.jit.save
 * (`is_script`).
 *
 * Memory   Gives the entries, freed by mm_torch_names_clear, also after a
 *          failure. Their tensors are the pickle's.
 * Ranks    Local.
 * Errors   MM_E_FORMAT: no tensors there, names with control characters,
 *          modules that are nested too deeply or in themselves; MM_E_MEMORY.
 */
mm_status mm_torch_names_read(const mm_pickle_value *root, bool is_script,
                              mm_torch_names *names);
void mm_torch_names_clear(mm_torch_names *names);

#endif
