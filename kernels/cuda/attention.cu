#include "kernels/cuda/launch.cuh"
mm_status mm_cuda_attention(mm_stream *, float *, float *, const float *, bool, int64_t, int64_t, int64_t, int64_t) { return mm_fail(MM_E_DEVICE, "todo"); }
mm_status mm_cuda_attention_grad(mm_stream *, float *, const float *, const float *, const float *, const float *, bool, int64_t, int64_t, int64_t, int64_t) { return mm_fail(MM_E_DEVICE, "todo"); }
