#ifndef MAGMAX_SRC_TOKENIZER_TOKENIZER_H
#define MAGMAX_SRC_TOKENIZER_TOKENIZER_H

#include "src/base/status.h"

#include <stdint.h>

/** What CLIP's models have: ids in the vocabulary, ids per text. */
enum { MM_CLIP_N_IDS = 49408, MM_CLIP_CONTEXT_LENGTH = 77 };

/** CLIP's byte-pair encoding of texts. It never changes: any number of threads
 * may encode with one. */
typedef struct mm_tokenizer mm_tokenizer;

/**
 * Read a vocabulary: open_clip's bpe_simple_vocab_16e6.txt.gz (or unpacked),
 * Hugging Face's merges.txt or tokenizer.json. The format is recognised by the
 * content, not by the name.
 *
 * Memory   Gives *tokenizer, freed by mm_tokenizer_destroy. n_ids: the model's
 *          vocab_size, MM_CLIP_N_IDS for CLIP.
 * Ranks    Local.
 * Timing   Blocking.
 * Errors   MM_E_IO; MM_E_FORMAT for what is not a vocabulary, or one for
 * another number of ids (both numbers are named); MM_E_MEMORY.
 */
mm_status mm_tokenizer_read(const char *path, int64_t n_ids,
                            mm_tokenizer **tokenizer);

/** As mm_tokenizer_read, of a vocabulary's text; `where` is named in messages.
 */
mm_status mm_tokenizer_parse(const char *text, const char *where, int64_t n_ids,
                             mm_tokenizer **tokenizer);
void mm_tokenizer_destroy(mm_tokenizer **tokenizer);

/** Size of the vocabulary; the last two ids are the start and the end. */
int64_t mm_tokenizer_n_ids(const mm_tokenizer *tokenizer);

/**
 * Encode one text as open_clip's SimpleTokenizer does: HTML entities resolved
 * twice, white space collapsed, lower case, byte pairs; then the start's id,
 * the text's, the end's, and zeros. A text that is too long loses its tail and
 * keeps the end. The largest id of a text is therefore its end.
 *
 * Memory   utf8: NUL-terminated. ids: [context_length], context_length >= 2.
 * Ranks    Local. Repeat: same everywhere.
 * Timing   Blocking; linear in the text, but for a logarithm in the longest
 *          word.
 * Errors   MM_E_VALUE for a text that is not UTF-8 (the byte is named);
 *          MM_E_MEMORY.
 */
mm_status mm_tokenizer_encode(const mm_tokenizer *tokenizer, const char *utf8,
                              int64_t context_length, int32_t *ids);

#endif
