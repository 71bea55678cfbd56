#ifndef MAGMAX_SRC_TOKENIZER_VOCABULARY_FIND_H
#define MAGMAX_SRC_TOKENIZER_VOCABULARY_FIND_H

#include "src/base/status.h"

/**
 * Find the tokenizer's vocabulary: the file or folder that the user named, else
 * bpe_simple_vocab_16e6.txt.gz, .txt, tokenizer.json or merges.txt in the
 * weights' folder, else in $XDG_DATA_HOME/magmax (~/.local/share/magmax), where
 * the set-up script puts it, else in the installation's share/magmax.
 *
 * Memory   option: what --vocab says, or NULL. weights_path: what --load says,
 *          or NULL. Gives *path (free()).
 * Ranks    Local.
 * Errors   MM_E_ARG when there is none: every place looked at is named, and the
 *          command that fetches it; MM_E_MEMORY.
 */
mm_status mm_vocabulary_find(const char *option, const char *weights_path,
                             char **path);

#endif
