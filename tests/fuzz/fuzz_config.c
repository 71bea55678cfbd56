/* Model configurations: open_clip's JSON, and the files of open_clip and
 * Hugging Face that lie beside weights. */

#include "src/model/config_files.h"
#include "tests/fuzz/fuzz_file.h"

#include <string.h>

/** What a reader accepts must be readable as open_clip's, or refused. */
static void parse(const char *text)
{
    mm_model_config config = {0};
    char *again = NULL;
    if (mm_model_config_parse(text, "input", &config) == MM_OK &&
        mm_model_config_write(&config, &again) == MM_OK) {
        mm_model_config same = {0};
        if (mm_model_config_parse(again, "again", &same) != MM_OK ||
            same.image.mlp_width != config.image.mlp_width ||
            same.image.n_tokens != config.image.n_tokens)
            abort();
        mm_model_config_clear(&same);
    }
    free(again);
    mm_model_config_clear(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *model = NULL;
    bool other_pixels;
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    parse(text);
    if (mm_config_from_open_clip(text, "input", &model, &other_pixels) == MM_OK)
        parse(model);
    free(model);
    if (mm_config_from_huggingface(text, "input", &model) == MM_OK)
        parse(model);
    free(model);
    free(text);
    return 0;
}
