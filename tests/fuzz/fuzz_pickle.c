/* Pickles, and what PyTorch's archives make of them. */

#include "io/python/pickle.h"
#include "io/weights/torch_names.h"
#include "io/weights/torch_tensor.h"
#include "tests/fuzz/fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mm_pickle *pickle;
    if (mm_pickle_read(data, (int64_t)size, mm_torch_callables, &pickle) !=
        MM_OK)
        return 0;
    for (int is_script = 0; is_script < 2; is_script++) {
        mm_torch_names names = {0};
        mm_torch_tensor tensor;
        mm_torch_names_read(mm_pickle_root(pickle), is_script, &names);
        for (int i = 0; i < names.n_entries; i++)
            mm_torch_tensor_read(names.entries[i].tensor, &tensor);
        mm_torch_names_clear(&names);
    }
    mm_pickle_destroy(&pickle);
    return 0;
}
