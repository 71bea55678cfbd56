/* Describing products to cuBLASLt, asking it for algorithms, and enqueueing
 * them. */

#include "kernels/cuda/product_plan.h"

#include <string.h>

static bool accepted(mm_product_plan *plan, cublasStatus_t status,
                     const char *call)
{
    plan->status = status;
    plan->call = call;
    return status == CUBLAS_STATUS_SUCCESS;
}

#define MM_ACCEPTED(plan, call) accepted((plan), (call), #call)

mm_cuda_product mm_cuda_product_forward(cudaDataType_t type, int64_t n_rows,
                                        int64_t n_in, int64_t n_out)
{
    const mm_cuda_product p = {.m = n_rows,
                               .n = n_out,
                               .k = n_in,
                               .transpose_b = true,
                               .type = type,
                               .out = type};
    return p;
}

mm_cuda_product mm_cuda_product_input_grad(cudaDataType_t type, int64_t n_rows,
                                           int64_t n_in, int64_t n_out)
{
    const mm_cuda_product p = {
        .m = n_rows, .n = n_in, .k = n_out, .type = type, .out = type};
    return p;
}

mm_cuda_product mm_cuda_product_weight_grad(cudaDataType_t type, int64_t n_rows,
                                            int64_t n_in, int64_t n_out)
{
    const mm_cuda_product p = {.m = n_out,
                               .n = n_in,
                               .k = n_rows,
                               .transpose_a = true,
                               .type = type,
                               .out = CUDA_R_32F};
    return p;
}

int64_t mm_product_alignment(const void *address)
{
    const uintptr_t lowest = (uintptr_t)address & -(uintptr_t)address;
    return lowest == 0 || lowest > 256 ? 256 : (int64_t)lowest;
}

cublasComputeType_t mm_product_compute(cudaDataType_t type,
                                       mm_cuda_precision precision)
{
    return type == CUDA_R_32F && precision == MM_CUDA_TF32
               ? CUBLAS_COMPUTE_32F_FAST_TF32
               : CUBLAS_COMPUTE_32F;
}

/** What an epilogue reads or writes beside the matrices. */
static const void *vector_of(const mm_cuda_product *p, int64_t epilogue)
{
    return epilogue == CUBLASLT_EPILOGUE_BIAS     ? p->bias
           : epilogue == CUBLASLT_EPILOGUE_BGRADB ? p->a_sums
                                                  : NULL;
}

mm_product_plan mm_product_plan_of(const mm_cuda_product *p,
                                   cublasComputeType_t compute,
                                   cublasLtEpilogue_t epilogue)
{
    mm_product_plan plan = {
        .key = {.m = p->m,
                .n = p->n,
                .k = p->k,
                .transpose_a = p->transpose_a,
                .transpose_b = p->transpose_b,
                .type = (int64_t)p->type,
                .out = (int64_t)p->out,
                .compute = (int64_t)compute,
                .epilogue = (int64_t)epilogue,
                .has_addend = p->addend != NULL},
        .alignments = {
            .a = mm_product_alignment(p->a),
            .b = mm_product_alignment(p->b),
            .c = mm_product_alignment(p->addend ? p->addend : p->c),
            .d = mm_product_alignment(p->c),
            .vector = mm_product_alignment(vector_of(p, (int64_t)epilogue))}};
    return plan;
}

void mm_product_plan_clear(mm_product_plan *plan)
{
    if (plan->a)
        (void)cublasLtMatrixLayoutDestroy(plan->a);
    if (plan->b)
        (void)cublasLtMatrixLayoutDestroy(plan->b);
    if (plan->c)
        (void)cublasLtMatrixLayoutDestroy(plan->c);
    if (plan->desc)
        (void)cublasLtMatmulDescDestroy(plan->desc);
    memset(plan, 0, sizeof *plan);
}

/* ---- describing --------------------------------------------------------- */

static bool set(mm_product_plan *plan, cublasLtMatmulDescAttributes_t what,
                const void *value, size_t n_bytes)
{
    return MM_ACCEPTED(
        plan, cublasLtMatmulDescSetAttribute(plan->desc, what, value, n_bytes));
}

/** Of a row-major matrix, which the library reads as its transpose. */
static bool lay_out(mm_product_plan *plan, cublasLtMatrixLayout_t *layout,
                    int64_t type, int64_t rows, int64_t cols)
{
    return MM_ACCEPTED(
        plan, cublasLtMatrixLayoutCreate(layout, (cudaDataType_t)type,
                                         (uint64_t)cols, (uint64_t)rows, cols));
}

/** With an epilogue, its vector, whose type the library wants to be c's: so
 * biases come from the low-precision copy of the weights, and their gradients
 * go with c in fp32. */
static bool point_at_vector(mm_product_plan *plan, const mm_cuda_product *p)
{
    const void *vector = vector_of(p, plan->key.epilogue);
    const int32_t type = (int32_t)plan->key.out;
    return !vector || (set(plan, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type,
                           sizeof type) &&
                       set(plan, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &vector,
                           sizeof vector));
}

/* The library is column-major: it computes c' = op(b)' op(a)'. */
bool mm_product_describe(mm_product_plan *plan, const mm_cuda_product *p)
{
    const mm_product_key *key = &plan->key;
    const int64_t m = key->m, n = key->n, k = key->k;
    const cublasOperation_t of_first =
        key->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t of_second =
        key->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = (cublasLtEpilogue_t)key->epilogue;
    return MM_ACCEPTED(plan, cublasLtMatmulDescCreate(
                                 &plan->desc, (cublasComputeType_t)key->compute,
                                 CUDA_R_32F)) &&
           set(plan, CUBLASLT_MATMUL_DESC_TRANSA, &of_first, sizeof of_first) &&
           set(plan, CUBLASLT_MATMUL_DESC_TRANSB, &of_second,
               sizeof of_second) &&
           set(plan, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
               sizeof epilogue) &&
           point_at_vector(plan, p) &&
           lay_out(plan, &plan->a, key->type, key->transpose_a ? k : m,
                   key->transpose_a ? m : k) &&
           lay_out(plan, &plan->b, key->type, key->transpose_b ? n : k,
                   key->transpose_b ? k : n) &&
           lay_out(plan, &plan->c, key->out, m, n);
}

/* ---- algorithms --------------------------------------------------------- */

/* Partial sums over k meet in fp32, in the workspace: elsewhere they would be
 * rounded to c's type on the way. */
static bool prefer(mm_product_plan *plan, cublasLtMatmulPreference_t preference,
                   size_t workspace_bytes)
{
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint64_t workspace = workspace_bytes;
    const mm_product_alignments *of = &plan->alignments;
    const uint32_t a = (uint32_t)of->a, b = (uint32_t)of->b,
                   c = (uint32_t)of->c, d = (uint32_t)of->d;
    const struct {
        cublasLtMatmulPreferenceAttributes_t what;
        const void *value;
        size_t n_bytes;
    } preferences[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
         sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
         sizeof reductions},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &b, sizeof b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &a, sizeof a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c, sizeof c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &d, sizeof d},
    };
    for (size_t i = 0; i < sizeof preferences / sizeof *preferences; i++)
        if (!MM_ACCEPTED(plan,
                         cublasLtMatmulPreferenceSetAttribute(
                             preference, preferences[i].what,
                             preferences[i].value, preferences[i].n_bytes)))
            return false;
    return true;
}

int mm_product_offers(cublasLtHandle_t handle, mm_product_plan *plan,
                      size_t workspace_bytes, int most,
                      cublasLtMatmulHeuristicResult_t offers[])
{
    cublasLtMatmulPreference_t preference = NULL;
    int n_found = 0, n = 0;
    if (!MM_ACCEPTED(plan, cublasLtMatmulPreferenceCreate(&preference)))
        return 0;
    if (!prefer(plan, preference, workspace_bytes) ||
        !MM_ACCEPTED(plan, cublasLtMatmulAlgoGetHeuristic(
                               handle, plan->desc, plan->b, plan->a, plan->c,
                               plan->c, preference, most, offers, &n_found)))
        n_found = 0;
    for (int i = 0; i < n_found; i++)
        if (MM_ACCEPTED(plan, offers[i].state))
            offers[n++] = offers[i];
    if (n > 0)
        plan->status = CUBLAS_STATUS_SUCCESS;
    else if (plan->status == CUBLAS_STATUS_SUCCESS)
        accepted(plan, CUBLAS_STATUS_NOT_SUPPORTED,
                 "cublasLtMatmulAlgoGetHeuristic");
    (void)cublasLtMatmulPreferenceDestroy(preference);
    return n;
}

mm_product_fingerprint
mm_product_fingerprint_of(const cublasLtMatmulAlgo_t *algorithm)
{
    static const size_t n_bytes[MM_PRODUCT_ATTRIBUTES] = {
        [CUBLASLT_ALGO_CONFIG_ID] = 4,
        [CUBLASLT_ALGO_CONFIG_TILE_ID] = 4,
        [CUBLASLT_ALGO_CONFIG_SPLITK_NUM] = 4,
        [CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME] = 4,
        [CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING] = 4,
        [CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION] = 4,
        [CUBLASLT_ALGO_CONFIG_STAGES_ID] = 4,
        [CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID] = 2,
        [CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID] = 2,
    };
    mm_product_fingerprint fingerprint;
    for (int i = 0; i < MM_PRODUCT_ATTRIBUTES; i++) {
        uint16_t narrow = 0;
        uint32_t wide = 0;
        size_t n_written = 0;
        void *to = n_bytes[i] == 2 ? (void *)&narrow : &wide;
        const cublasStatus_t status = cublasLtMatmulAlgoConfigGetAttribute(
            algorithm, (cublasLtMatmulAlgoConfigAttributes_t)i, to, n_bytes[i],
            &n_written);
        fingerprint.attributes[i] =
            status == CUBLAS_STATUS_SUCCESS ? (int64_t)narrow + wide : -1;
    }
    return fingerprint;
}

bool mm_product_enqueue(cublasLtHandle_t handle, mm_product_plan *plan,
                        const mm_cuda_product *p, void *workspace,
                        size_t workspace_bytes, cudaStream_t stream)
{
    const float one = 1.0f, beta = p->addend ? 1.0f : 0.0f;
    const void *addend = p->addend ? p->addend : p->c;
    return point_at_vector(plan, p) &&
           MM_ACCEPTED(plan,
                       cublasLtMatmul(handle, plan->desc, &one, p->b, plan->b,
                                      p->a, plan->a, &beta, addend, plan->c,
                                      p->c, plan->c, &plan->algorithm,
                                      workspace, workspace_bytes, stream));
}
