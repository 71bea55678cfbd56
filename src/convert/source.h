#ifndef MAGMAX_SRC_CONVERT_SOURCE_H
#define MAGMAX_SRC_CONVERT_SOURCE_H

#include "io/weights/weights.h"
#include "src/base/log.h"
#include "src/convert/naming.h"

/** A file of a CLIP's weights, under the names of any program. Start from {0}.
 */
typedef struct mm_convert_source {
    const char *path;
    mm_weights *weights;
    const mm_naming *naming;
    char prefix[MM_NAME_BYTES]; /* before every name */
    bool has_text;              /* a text tower with its blocks */
    bool is_openai; /* has constants that only OpenAI's files have */
    /* The configuration's JSON that comes with the weights, and the file that
     * it is from; NULL where nothing says. */
    char *model, *model_path;
} mm_convert_source;

/**
 * Open a file, recognise its names, and find what it or a configuration file
 * beside it says of the model.
 *
 * Memory   Fills *source, emptied by mm_convert_source_close, also after a
 *          failure. Keeps `path`.
 * Ranks    Local. Warns of preprocessing that is not CLIP's.
 * Errors   As mm_weights_open, mm_naming_recognize and the readers of
 *          src/model/config_files.h.
 */
mm_status mm_convert_source_open(const char *path, mm_log *log,
                                 mm_convert_source *source);
void mm_convert_source_close(mm_convert_source *source);

/** The tensors of a file that one of ours is made of. */
typedef struct mm_stored {
    int n_parts;               /* equal shares of the rows */
    int tensors[MM_MAX_PARTS]; /* in mm_weights_table */
    bool transposed;
} mm_stored;

/** Find one of our tensors. False where a part is missing, whose name in this
 * file is then in `missing`. */
bool mm_convert_source_find(const mm_convert_source *source, const char *ours,
                            mm_stored *stored, char missing[MM_NAME_BYTES]);

/** Size `dim` of one of ours, put together; 0 where it has another number of
 * dimensions than n_dims. */
int64_t mm_convert_source_extent(const mm_convert_source *source,
                                 const mm_stored *stored, int dim, int n_dims);

/** One more than the highest number of a block: `ours` names a tensor of block
 * 0 of a tower. */
int64_t mm_convert_source_n_layers(const mm_convert_source *source,
                                   const char *ours);

/** A tensor's name without the prefix; NULL where it has another one. */
const char *mm_convert_source_bare_name(const mm_convert_source *source,
                                        int tensor);

#endif
