/* Products on cuBLASLt: a plan for each shape, and kernels of our own where the
 * library has no epilogue. */

#include "kernels/cuda/product_plan.h"
#include "kernels/cuda/product_table.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_PLANS = 256 };

struct mm_cuda_products {
    cublasLtHandle_t handle;
    const mm_product_table *table; /* NULL: the library's first choice */
    size_t workspace_bytes;        /* that the library may choose for */
    void *room;
    size_t room_bytes; /* that, or more where the table says so */
    int n_plans;
    mm_product_plan plans[MOST_PLANS];
};

/* ---- plans -------------------------------------------------------------- */

/** Take what the table has measured, where the library still offers it. */
static bool take_measured(const mm_cuda_products *all, mm_product_plan *q)
{
    const mm_product_entry *entry = mm_product_table_find(all->table, &q->key);
    cublasLtMatmulHeuristicResult_t offers[MM_PRODUCT_CHOICES];
    if (!entry)
        return false;
    const int n =
        mm_product_offers(all->handle, q, (size_t)entry->workspace_mib << 20,
                          MM_PRODUCT_CHOICES, offers);
    if (entry->rank >= n)
        return false;
    const cublasLtMatmulAlgo_t *offered = &offers[entry->rank].algo;
    const mm_product_fingerprint is = mm_product_fingerprint_of(offered);
    if (memcmp(&is, &entry->fingerprint, sizeof is) != 0)
        return false;
    q->algorithm = *offered;
    return true;
}

static void take_first(const mm_cuda_products *all, mm_product_plan *q)
{
    cublasLtMatmulHeuristicResult_t first;
    if (mm_product_offers(all->handle, q, all->workspace_bytes, 1, &first))
        q->algorithm = first.algo;
}

/** The plan for this shape, made where it is new; one that the library refuses
 * is kept like the others. */
static mm_product_plan *find_plan(const mm_cuda_stream *cuda,
                                  const mm_cuda_product *p,
                                  cublasLtEpilogue_t epilogue)
{
    mm_cuda_products *all = cuda->products;
    const mm_product_plan made = mm_product_plan_of(
        p, mm_product_compute(p->type, cuda->precision), epilogue);
    for (int i = 0; i < all->n_plans; i++) {
        mm_product_plan *q = &all->plans[i];
        if (!memcmp(&q->key, &made.key, sizeof made.key) &&
            !memcmp(&q->alignments, &made.alignments, sizeof made.alignments))
            return q;
    }
    /* Full: shapes that change from step to step take turns in the last. */
    if (all->n_plans == MOST_PLANS)
        mm_product_plan_clear(&all->plans[--all->n_plans]);
    mm_product_plan *q = &all->plans[all->n_plans++];
    *q = made;
    if (mm_product_describe(q, p) && !take_measured(all, q))
        take_first(all, q);
    return q;
}

/* ---- products ----------------------------------------------------------- */

/** Enqueue with this epilogue; NULL, or the plan that the library refuses. */
static const mm_product_plan *refused(const mm_cuda_stream *cuda,
                                      const mm_cuda_product *p,
                                      cublasLtEpilogue_t epilogue)
{
    mm_cuda_products *all = cuda->products;
    mm_product_plan *q = find_plan(cuda, p, epilogue);
    if (q->status != CUBLAS_STATUS_SUCCESS)
        return q;
    if (mm_product_enqueue(all->handle, q, p, all->room, all->room_bytes,
                           cuda->stream))
        return NULL;
    /* The error that it leaves must not fail the next kernel. */
    (void)cudaGetLastError();
    return q;
}

static const char *name_of(cudaDataType_t type)
{
    return type == CUDA_R_16BF ? "bf16" : "fp32";
}

/** Without an epilogue, a refusal is an error. */
static mm_status multiply_plainly(const mm_cuda_stream *cuda,
                                  const mm_cuda_product *p)
{
    const mm_product_plan *q = refused(cuda, p, CUBLASLT_EPILOGUE_DEFAULT);
    if (!q)
        return MM_OK;
    return mm_fail(MM_E_DEVICE,
                   "product of [%lld, %lld] and [%lld, %lld], %s to %s: %.*s: "
                   "%s, %d",
                   (long long)p->m, (long long)p->k, (long long)p->k,
                   (long long)p->n, name_of(p->type), name_of(p->out),
                   (int)strcspn(q->call, "("), q->call,
                   cublasLtGetStatusName(q->status), (int)q->status);
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
    if (p->bias && mm_product_alignment(p->bias) >= 16)
        return CUBLASLT_EPILOGUE_BIAS;
    if (!p->bias && p->a_sums && !p->accumulate_sums && of_library &&
        mm_product_alignment(p->a_sums) >= 16)
        return CUBLASLT_EPILOGUE_BGRADB;
    return CUBLASLT_EPILOGUE_DEFAULT;
}

/* The library may refuse an epilogue, for any reason: the product without it
 * follows then, and reports true failures. */
mm_status mm_cuda_multiply(mm_stream *stream, const mm_cuda_product *product)
{
    const mm_cuda_stream *cuda = mm_cuda_stream_of(stream);
    mm_cuda_product p = *product;
    if (p.k == 0 || p.m == 0 || p.n == 0)
        return empty_product(stream, &p);
    const cublasLtEpilogue_t epilogue = epilogue_for(cuda, &p);
    const bool done =
        epilogue != CUBLASLT_EPILOGUE_DEFAULT && !refused(cuda, &p, epilogue);
    if (done && epilogue == CUBLASLT_EPILOGUE_BGRADB)
        return MM_OK;
    if (!done && p.bias)
        MM_TRY(add_bias_first(stream, &p));
    if (!done)
        MM_TRY(multiply_plainly(cuda, &p));
    if (!p.a_sums)
        return MM_OK;
    return mm_cuda_column_sums(stream, p.type, p.a_sums, p.a, p.m,
                               p.accumulate_sums, p.k, p.m);
}

mm_status mm_cuda_products_create(int64_t workspace_bytes,
                                  const mm_product_table *table,
                                  mm_cuda_products **products)
{
    mm_cuda_products *all = calloc(1, sizeof *all);
    *products = all;
    if (!all)
        return mm_fail(MM_E_MEMORY, "no memory for products");
    const cublasStatus_t status = cublasLtCreate(&all->handle);
    if (status != CUBLAS_STATUS_SUCCESS)
        return mm_fail(MM_E_DEVICE, "cublasLtCreate: %s, %d",
                       cublasLtGetStatusName(status), (int)status);
    const int64_t of_table = mm_product_table_workspace(table);
    all->table = table;
    all->workspace_bytes = (size_t)workspace_bytes;
    all->room_bytes =
        (size_t)(of_table > workspace_bytes ? of_table : workspace_bytes);
    return MM_CUDA(cudaMalloc(&all->room, all->room_bytes),
                   "allocating the workspace of products");
}

void mm_cuda_products_destroy(mm_cuda_products **products)
{
    mm_cuda_products *all = *products;
    if (!all)
        return;
    for (int i = 0; i < all->n_plans; i++)
        mm_product_plan_clear(&all->plans[i]);
    if (all->handle)
        (void)cublasLtDestroy(all->handle);
    (void)cudaFree(all->room);
    free(all);
    *products = NULL;
}
