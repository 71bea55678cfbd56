/* Data sets in .npz files. */

#include "io/dataset/dataset.h"
#include "tests/fuzz/fuzz_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_file file = fuzz_file_open(data, size);
    mm_dataset *dataset = NULL;
    if (mm_dataset_open_file(file.path, &dataset) == MM_OK)
        mm_dataset_close(&dataset);
    fuzz_file_close(&file);
    return 0;
}
