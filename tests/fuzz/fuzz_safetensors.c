/* safetensors files, and the indices that lead to them. */

#include "tests/fuzz/fuzz_weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_file file = fuzz_file_open(data, size);
    fuzz_weights_read(file.path);
    fuzz_file_close(&file);
    return 0;
}
