/* Vocabularies: lists of merges, compressed or not, and tokenizer.json. The
 * last byte says how many merges are expected. */

#include "io/gzip.h"
#include "src/tokenizer/byte_pairs.h"
#include "tests/fuzz/fuzz_file.h"

enum { MAX_TEXT = 1 << 16, MAX_IDS = 16 };

static void encode_with(const mm_vocabulary *vocabulary)
{
    static const char word[] = "banana</w>\xff\xffna";
    mm_byte_pairs pairs;
    mm_byte_pairs_work work = {0};
    int32_t ids[MAX_IDS];
    int64_t n_ids;
    for (int32_t i = 0; i < vocabulary->n_pairs; i++)
        for (int side = 0; side < 2; side++)
            if (vocabulary->pairs[i][side] < 0 ||
                vocabulary->pairs[i][side] >= MM_N_BYTE_SYMBOLS + i)
                abort();
    if (mm_byte_pairs_init(vocabulary, &pairs) != MM_OK)
        return;
    if (mm_byte_pairs_encode(&pairs, &work, word, sizeof word - 1, MAX_IDS, ids,
                             &n_ids) != MM_OK)
        abort();
    for (int64_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || ids[i] >= MM_N_BYTE_SYMBOLS + vocabulary->n_pairs)
            abort();
    mm_byte_pairs_work_clear(&work);
    mm_byte_pairs_clear(&pairs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    int64_t n_ids =
        MM_N_BYTE_SYMBOLS + MM_N_SPECIAL_IDS + (int64_t)data[size - 1] % 16;
    fuzz_file file = fuzz_file_open(data, size - 1);
    char *text;
    if (mm_gzip_read_text(file.path, MAX_TEXT, &text) == MM_OK) {
        mm_vocabulary vocabulary;
        if (mm_vocabulary_parse(text, "input", n_ids, &vocabulary) == MM_OK) {
            encode_with(&vocabulary);
            mm_vocabulary_clear(&vocabulary);
        }
        free(text);
    }
    fuzz_file_close(&file);
    return 0;
}
