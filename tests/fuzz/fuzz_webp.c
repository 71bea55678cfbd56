/* WebP files, decoded and resized. A few bytes may stand for a picture of any
 * size; large ones would only take time. */

#include "tests/fuzz/fuzz_image.h"

#include <webp/decode.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int width, height;
    if (WebPGetInfo(data, size, &width, &height) &&
        (int64_t)width * height > 1 << 20)
        return 0;
    fuzz_image(data, size);
    return 0;
}
