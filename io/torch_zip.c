#include "io/weights_impl.h"
mm_status mm_weights_open_torch(mm_weights *weights)
{
    return mm_fail(MM_E_FORMAT, "%s is a zip file", weights->file->path);
}
