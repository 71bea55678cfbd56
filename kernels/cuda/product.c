#include "kernels/cuda/product.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PLANS = 256 };

/** What an algorithm is chosen for. Compared as bytes: start from memset. */
typedef struct plan_key {
    int64_t m, n, k;
    int32_t transpose_a, transpose_b, type, out, compute, epilogue, in_place;
    int32_t align_a, align_b, align_c, align_d, align_vector;
} plan_key;

typedef struct plan {
    plan_key key;
    bool supported;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
} plan;

struct mm_cuda_products {
    cublasLtHandle_t handle;
    void *workspace;
    size_t workspace_bytes;
    int n_plans;
    plan plans[MOST_PLANS];
};

#define MM_CUBLAS(call) check_cublas((call), #call, __LINE__)

static mm_status check_cublas(cublasStatus_t status, const char *call, int line)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return MM_OK;
    return mm_fail(MM_E_DEVICE, "%.*s: %s, %d (%s:%d)", (int)strcspn(call, "("),
                   call, cublasLtGetStatusName(status), (int)status, __FILE__,
                   line);
}

/* ---- plans -------------------------------------------------------------- */

static int32_t alignment(const void *pointer)
{
    uintptr_t lowest = (uintptr_t)pointer & -(uintptr_t)pointer;
    return lowest == 0 || lowest > 256 ? 256 : (int32_t)lowest;
}

/** What an epilogue reads or writes beside the matrices. */
static const void *vector_of(const mm_cuda_product *p,
                             cublasLtEpilogue_t epilogue)
{
    return epilogue == CUBLASLT_EPILOGUE_BIAS     ? p->bias
           : epilogue == CUBLASLT_EPILOGUE_BGRADB ? p->a_sums
                                                  : NULL;
}

static plan_key key_of(const mm_cuda_stream *cuda, const mm_cuda_product *p,
                       cublasLtEpilogue_t epilogue)
{
    static const cublasComputeType_t of_fp32[] = {
        [MM_CUDA_FP32] = CUBLAS_COMPUTE_32F,
        [MM_CUDA_TF32] = CUBLAS_COMPUTE_32F_FAST_TF32,
        [MM_CUDA_BF16] = CUBLAS_COMPUTE_32F,
    };
    plan_key key;
    memset(&key, 0, sizeof key);
    key.m = p->m;
    key.n = p->n;
    key.k = p->k;
    key.transpose_a = p->transpose_a;
    key.transpose_b = p->transpose_b;
    key.type = (int32_t)p->type;
    key.out = (int32_t)p->out;
    key.compute = p->type == CUDA_R_32F ? (int32_t)of_fp32[cuda->precision]
                                        : (int32_t)CUBLAS_COMPUTE_32F;
    key.epilogue = (int32_t)epilogue;
    key.in_place = p->addend ? 1 : 0;
    key.align_a = alignment(p->a);
    key.align_b = alignment(p->b);
    key.align_c = alignment(p->addend ? p->addend : p->c);
    key.align_d = alignment(p->c);
    key.align_vector = alignment(vector_of(p, epilogue));
    return key;
}

static mm_status set_desc(cublasLtMatmulDesc_t desc,
                          cublasLtMatmulDescAttributes_t what,
                          const void *value, size_t n_bytes)
{
    return MM_CUBLAS(
        cublasLtMatmulDescSetAttribute(desc, what, value, n_bytes));
}

static mm_status set_preference(cublasLtMatmulPreference_t preference,
                                cublasLtMatmulPreferenceAttributes_t what,
                                const void *value, size_t n_bytes)
{
    return MM_CUBLAS(
        cublasLtMatmulPreferenceSetAttribute(preference, what, value, n_bytes));
}

/* The library is column-major: it computes c' = op(b)' op(a)'. */
static mm_status describe(plan *q, const mm_cuda_product *p)
{
    const plan_key *key = &q->key;
    cublasOperation_t of_first = key->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t of_second = key->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = (cublasLtEpilogue_t)key->epilogue;
    uint64_t m = (uint64_t)key->m, n = (uint64_t)key->n, k = (uint64_t)key->k;
    MM_TRY(MM_CUBLAS(cublasLtMatmulDescCreate(
        &q->desc, (cublasComputeType_t)key->compute, CUDA_R_32F)));
    MM_TRY(set_desc(q->desc, CUBLASLT_MATMUL_DESC_TRANSA, &of_first,
                    sizeof of_first));
    MM_TRY(set_desc(q->desc, CUBLASLT_MATMUL_DESC_TRANSB, &of_second,
                    sizeof of_second));
    MM_TRY(set_desc(q->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                    sizeof epilogue));
    MM_TRY(MM_CUBLAS(cublasLtMatrixLayoutCreate(
        &q->a, p->type, key->transpose_b ? k : n, key->transpose_b ? n : k,
        key->transpose_b ? key->k : key->n)));
    MM_TRY(MM_CUBLAS(cublasLtMatrixLayoutCreate(
        &q->b, p->type, key->transpose_a ? m : k, key->transpose_a ? k : m,
        key->transpose_a ? key->m : key->k)));
    return MM_CUBLAS(cublasLtMatrixLayoutCreate(&q->c, p->out, n, m, key->n));
}

/** With an epilogue, its vector, whose type the library wants to be c's: so
 * biases come from the weights' shadow, and their gradients go with c fp32. */
static mm_status point_at_vector(const plan *q, const mm_cuda_product *p)
{
    const void *vector = vector_of(p, (cublasLtEpilogue_t)q->key.epilogue);
    const int32_t type = p->out;
    if (!vector)
        return MM_OK;
    MM_TRY(set_desc(q->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type,
                    sizeof type));
    return set_desc(q->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &vector,
                    sizeof vector);
}

/* Partial sums over k meet in fp32, in the workspace: elsewhere they would be
 * rounded to c's type on the way. */
static mm_status choose(const mm_cuda_products *all, plan *q)
{
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint64_t workspace = all->workspace_bytes;
    const uint32_t align_a = (uint32_t)q->key.align_b;
    const uint32_t align_b = (uint32_t)q->key.align_a;
    const uint32_t align_c = (uint32_t)q->key.align_c;
    const uint32_t align_d = (uint32_t)q->key.align_d;
    const struct {
        cublasLtMatmulPreferenceAttributes_t what;
        const void *value;
        size_t n_bytes;
    } wishes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
         sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
         sizeof reductions},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &align_a, sizeof align_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &align_b, sizeof align_b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &align_c, sizeof align_c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &align_d, sizeof align_d},
    };
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t best;
    int n_found = 0;
    MM_TRY(MM_CUBLAS(cublasLtMatmulPreferenceCreate(&preference)));
    mm_status st = MM_OK;
    for (size_t i = 0; st == MM_OK && i < sizeof wishes / sizeof *wishes; i++)
        st = set_preference(preference, wishes[i].what, wishes[i].value,
                            wishes[i].n_bytes);
    if (st == MM_OK) {
        cublasStatus_t found = cublasLtMatmulAlgoGetHeuristic(
            all->handle, q->desc, q->a, q->b, q->c, q->c, preference, 1, &best,
            &n_found);
        q->supported = found == CUBLAS_STATUS_SUCCESS && n_found > 0 &&
                       best.state == CUBLAS_STATUS_SUCCESS;
        if (found != CUBLAS_STATUS_NOT_SUPPORTED)
            st =
                check_cublas(found, "cublasLtMatmulAlgoGetHeuristic", __LINE__);
        if (q->supported)
            q->algo = best.algo;
    }
    (void)cublasLtMatmulPreferenceDestroy(preference);
    return st;
}

static void plan_clear(plan *q)
{
    if (q->a)
        (void)cublasLtMatrixLayoutDestroy(q->a);
    if (q->b)
        (void)cublasLtMatrixLayoutDestroy(q->b);
    if (q->c)
        (void)cublasLtMatrixLayoutDestroy(q->c);
    if (q->desc)
        (void)cublasLtMatmulDescDestroy(q->desc);
    memset(q, 0, sizeof *q);
}

/** The plan for this shape, made where it is new. */
static mm_status find_plan(const mm_cuda_stream *cuda, const mm_cuda_product *p,
                           cublasLtEpilogue_t epilogue, plan **found)
{
    mm_cuda_products *all = cuda->products;
    const plan_key key = key_of(cuda, p, epilogue);
    for (int i = 0; i < all->n_plans; i++)
        if (!memcmp(&all->plans[i].key, &key, sizeof key)) {
            *found = &all->plans[i];
            return MM_OK;
        }
    /* Full: shapes that change from step to step take turns in the last. */
    if (all->n_plans == MOST_PLANS)
        plan_clear(&all->plans[--all->n_plans]);
    plan *q = &all->plans[all->n_plans];
    q->key = key;
    mm_status st = describe(q, p);
    if (st == MM_OK)
        st = point_at_vector(q, p);
    if (st == MM_OK)
        st = choose(all, q);
    if (st != MM_OK) {
        plan_clear(q);
        return st;
    }
    all->n_plans++;
    *found = q;
    return MM_OK;
}

/* ---- products ----------------------------------------------------------- */

static const char *name_of(cudaDataType_t type)
{
    return type == CUDA_R_16BF ? "bf16" : "fp32";
}

static mm_status refused(const mm_cuda_product *p, mm_status st)
{
    return st == MM_OK
               ? MM_OK
               : mm_fail_within(st,
                                "product of [%lld, %lld] and [%lld, %lld], "
                                "%s to %s",
                                (long long)p->m, (long long)p->k,
                                (long long)p->k, (long long)p->n,
                                name_of(p->type), name_of(p->out));
}

/** Enqueue with this epilogue; *done is false where there is no algorithm. */
static mm_status try_product(const mm_cuda_stream *cuda,
                             const mm_cuda_product *p,
                             cublasLtEpilogue_t epilogue, bool *done)
{
    const float one = 1.0f, beta = p->addend ? 1.0f : 0.0f;
    const void *addend = p->addend ? p->addend : p->c;
    plan *q = NULL;
    MM_TRY(find_plan(cuda, p, epilogue, &q));
    *done = q->supported;
    if (!q->supported)
        return MM_OK;
    MM_TRY(point_at_vector(q, p));
    return MM_CUBLAS(cublasLtMatmul(
        cuda->products->handle, q->desc, &one, p->b, q->a, p->a, q->b, &beta,
        addend, q->c, p->c, q->c, &q->algo, cuda->products->workspace,
        cuda->products->workspace_bytes, cuda->stream));
}

/** Nothing to multiply; there may be something to add. */
static mm_status empty_product(mm_stream *stream, const mm_cuda_product *p)
{
    if (p->a_sums)
        MM_TRY(mm_cuda_column_sums(stream, p->type, p->a_sums, p->a, p->m,
                                   p->accumulate_sums, p->k, p->m));
    if (p->m == 0 || p->n == 0)
        return MM_OK;
    return mm_cuda_add_bias(stream, p->out, p->c, p->bias, p->addend, p->m,
                            p->n);
}

/** Have the bias in c beforehand, and the product added to it. */
static mm_status add_bias_first(mm_stream *stream, mm_cuda_product *p)
{
    MM_TRY(
        mm_cuda_add_bias(stream, p->out, p->c, p->bias, p->addend, p->m, p->n));
    p->bias = NULL;
    p->addend = p->c;
    return MM_OK;
}

/** The library's epilogues read vectors 16 bytes at a time. */
static cublasLtEpilogue_t epilogue_for(const mm_cuda_stream *cuda,
                                       const mm_cuda_product *p)
{
    const bool of_library = cuda->variants.bias_sums == MM_BIAS_SUMS_LIBRARY;
    if (p->bias && alignment(p->bias) >= 16)
        return CUBLASLT_EPILOGUE_BIAS;
    if (!p->bias && p->a_sums && !p->accumulate_sums && of_library &&
        alignment(p->a_sums) >= 16)
        return CUBLASLT_EPILOGUE_BGRADB;
    return CUBLASLT_EPILOGUE_DEFAULT;
}

mm_status mm_cuda_multiply(mm_stream *stream, const mm_cuda_product *product)
{
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    mm_cuda_product p = *product;
    if (p.k == 0 || p.m == 0 || p.n == 0)
        return empty_product(stream, &p);
    const cublasLtEpilogue_t epilogue = epilogue_for(cuda, &p);
    bool done = false;
    if (epilogue != CUBLASLT_EPILOGUE_DEFAULT)
        MM_TRY(refused(&p, try_product(cuda, &p, epilogue, &done)));
    if (done && epilogue == CUBLASLT_EPILOGUE_BGRADB)
        return MM_OK;
    if (!done && p.bias)
        MM_TRY(add_bias_first(stream, &p));
    if (!done)
        MM_TRY(refused(
            &p, try_product(cuda, &p, CUBLASLT_EPILOGUE_DEFAULT, &done)));
    if (!done)
        return refused(&p, mm_fail(MM_E_DEVICE, "cuBLASLt has no algorithm"));
    if (!p.a_sums)
        return MM_OK;
    return mm_cuda_column_sums(stream, p.type, p.a_sums, p.a, p.m,
                               p.accumulate_sums, p.k, p.m);
}

mm_status mm_cuda_products_create(int64_t workspace_bytes,
                                  mm_cuda_products **products)
{
    mm_cuda_products *all = calloc(1, sizeof *all);
    *products = all;
    if (!all)
        return mm_fail(MM_E_MEMORY, "no memory for products");
    MM_TRY(MM_CUBLAS(cublasLtCreate(&all->handle)));
    all->workspace_bytes = (size_t)workspace_bytes;
    return MM_CUDA(cudaMalloc(&all->workspace, all->workspace_bytes),
                   "making room for products");
}

void mm_cuda_products_destroy(mm_cuda_products **products)
{
    mm_cuda_products *all = *products;
    if (!all)
        return;
    for (int i = 0; i < all->n_plans; i++)
        plan_clear(&all->plans[i]);
    if (all->handle)
        (void)cublasLtDestroy(all->handle);
    (void)cudaFree(all->workspace);
    free(all);
    *products = NULL;
}
