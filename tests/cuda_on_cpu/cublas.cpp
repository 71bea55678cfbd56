/*
 * cuBLASLt's products through oneDNN, in fp32, on bf16 factors or on fp32 ones
 * rounded as the compute type says. Column-major, as the library's. What its
 * manual does not list as supported is refused, and an algorithm is held to
 * what it was chosen for.
 */
#include "tests/cuda_on_cpu/cublas.h"
#include "tests/cuda_on_cpu/include/cuda_bf16.h"
#include "tests/cuda_on_cpu/launch.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <dnnl.h>
#include <vector>

struct mm_emu_handle {
    int unused;
};

struct mm_emu_desc {
    cublasComputeType_t compute;
    cublasOperation_t of_a = CUBLAS_OP_N, of_b = CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    void *vector = nullptr;
    std::int32_t vector_type = -1; /* that of D */
};

struct mm_emu_layout {
    cudaDataType_t type;
    std::int64_t rows, cols, ld;
};

struct mm_emu_preference {
    std::uint32_t alignment[4] = {256, 256, 256, 256};
    std::uint32_t reductions = 7; /* all of the library's */
    std::uint64_t workspace_bytes = 0;
};

namespace mm_emu
{

product_seen last_product;

namespace
{

/** What the library keeps in an algorithm's bytes, as far as it goes here. */
struct algorithm {
    std::uint32_t alignment[4]; /* of A, B, C, D */
    std::uint32_t vector_alignment;
    std::uint32_t n_parts; /* of k, each summed into a number of D's type */
    std::uint32_t id;
    std::uint64_t workspace_bytes;
};
static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t));

struct problem {
    mm_emu_desc desc;
    algorithm how;
    void *workspace;
    float alpha, beta;
    const void *a, *b, *c;
    void *d;
    mm_emu_layout of_a, of_b, of_d;
};

std::size_t extent(const mm_emu_layout &layout)
{
    std::size_t n =
        static_cast<std::size_t>((layout.cols - 1) * layout.ld + layout.rows);
    return n * (layout.type == CUDA_R_16BF ? 2 : 4);
}

float load(const void *from, cudaDataType_t type, std::size_t i)
{
    if (type == CUDA_R_16BF)
        return __bfloat162float(static_cast<const __nv_bfloat16 *>(from)[i]);
    return static_cast<const float *>(from)[i];
}

/** To tf32's ten bits. How the library rounds it does not say, and the tensor
 * cores themselves ignore the other bits: so do we. */
float rounded(float x, cublasComputeType_t compute)
{
    return compute == CUBLAS_COMPUTE_32F_FAST_TF32
               ? __uint_as_float(__float_as_uint(x) & ~0x1FFFu)
               : x;
}

/** Packed, ld = rows. */
std::vector<float> factor(const void *from, const mm_emu_layout &layout,
                          cublasComputeType_t compute)
{
    std::vector<float> packed(
        static_cast<std::size_t>(layout.rows * layout.cols));
    for (std::int64_t j = 0; j < layout.cols; j++)
        for (std::int64_t i = 0; i < layout.rows; i++)
            packed[static_cast<std::size_t>(j * layout.rows + i)] =
                rounded(load(from, layout.type,
                             static_cast<std::size_t>(j * layout.ld + i)),
                        compute);
    return packed;
}

/** The vector that an epilogue reads or writes: of the type of D. */
void finish(const problem &p, std::int64_t k, const std::vector<float> &b,
            std::vector<float> &sums)
{
    const std::int64_t m = p.of_d.rows, n = p.of_d.cols;
    const mm_emu_layout bias = {p.of_d.type, m, 1, m};
    float *vector = static_cast<float *>(p.desc.vector);
    if (p.desc.epilogue == CUBLASLT_EPILOGUE_BIAS) {
        require_device_memory("bias", p.desc.vector, extent(bias));
        for (std::int64_t j = 0; j < n; j++)
            for (std::int64_t i = 0; i < m; i++)
                sums[static_cast<std::size_t>(j * m + i)] +=
                    load(p.desc.vector, bias.type, static_cast<std::size_t>(i));
    }
    if (p.desc.epilogue == CUBLASLT_EPILOGUE_BGRADB) {
        require_device_memory("bias gradient", vector,
                              static_cast<std::size_t>(n) * sizeof(float));
        for (std::int64_t j = 0; j < n; j++) {
            float sum = 0.0f;
            for (std::int64_t l = 0; l < k; l++)
                sum += b[static_cast<std::size_t>(
                    p.desc.of_b == CUBLAS_OP_T ? l * n + j : j * k + l)];
            vector[j] = sum;
        }
    }
}

/** sums += op(A) op(B) over `n` of the k, from `at` on. */
void multiply_part(const problem &p, const std::vector<float> &a,
                   const std::vector<float> &b, std::int64_t k, std::int64_t at,
                   std::int64_t n, std::vector<float> &sums)
{
    const std::int64_t rows = p.of_d.rows, cols = p.of_d.cols;
    const bool a_turned = p.desc.of_a == CUBLAS_OP_T;
    const bool b_turned = p.desc.of_b == CUBLAS_OP_T;
    /* Row-major, the transposes: d' = op(b)' op(a)'. */
    dnnl_status_t status =
        dnnl_sgemm(b_turned ? 'T' : 'N', a_turned ? 'T' : 'N', cols, rows, n,
                   p.alpha, b.data() + (b_turned ? at * cols : at),
                   b_turned ? cols : k, a.data() + (a_turned ? at : at * rows),
                   a_turned ? k : rows, 1.0f, sums.data(), rows);
    if (status != dnnl_success)
        die("oneDNN refuses a product");
}

void round_as(cudaDataType_t type, std::vector<float> &x)
{
    if (type == CUDA_R_16BF)
        for (float &value : x)
            value = __bfloat162float(__float2bfloat16(value));
}

void multiply(const problem &p)
{
    const std::int64_t m = p.of_d.rows, n = p.of_d.cols;
    const std::int64_t k =
        p.desc.of_a == CUBLAS_OP_T ? p.of_a.rows : p.of_a.cols;
    require_device_memory("matrix A", p.a, extent(p.of_a));
    require_device_memory("matrix B", p.b, extent(p.of_b));
    require_device_memory("matrix D", p.d, extent(p.of_d));
    require_device_memory("workspace", p.workspace, p.how.workspace_bytes);
    poison(p.workspace, p.how.workspace_bytes);
    std::vector<float> a = factor(p.a, p.of_a, p.desc.compute);
    std::vector<float> b = factor(p.b, p.of_b, p.desc.compute);
    std::vector<float> sums(static_cast<std::size_t>(m * n));
    if (p.beta != 0.0f) {
        require_device_memory("matrix C", p.c, extent(p.of_d));
        sums = factor(p.c, p.of_d, CUBLAS_COMPUTE_32F);
        for (float &sum : sums)
            sum *= p.beta;
    }
    for (std::int64_t at = 0, part = 1; at < k; part++) {
        std::int64_t end = k * part / p.how.n_parts;
        multiply_part(p, a, b, k, at, end - at, sums);
        if (end < k)
            round_as(p.of_d.type, sums);
        at = end;
    }
    finish(p, k, b, sums);
    for (std::int64_t j = 0; j < n; j++)
        for (std::int64_t i = 0; i < m; i++) {
            float x = sums[static_cast<std::size_t>(j * m + i)];
            if (p.of_d.type == CUDA_R_16BF)
                static_cast<__nv_bfloat16 *>(p.d)[j * p.of_d.ld + i] =
                    __float2bfloat16(x);
            else
                static_cast<float *>(p.d)[j * p.of_d.ld + i] = x;
        }
}

bool is_aligned(const void *pointer, std::uint32_t to)
{
    return reinterpret_cast<std::uintptr_t>(pointer) % to == 0;
}

/** Of each problem; they do the same by different names, and want more
 * workspace, where it is allowed, from one to the next. */
enum : int { N_ALGORITHMS = 3, FIRST_ID = 60 };

/** Opaque, but what it was chosen for has to hold when it is used. */
cublasLtMatmulAlgo_t algorithm_for(const mm_emu_desc &desc,
                                   const mm_emu_layout &d,
                                   const mm_emu_preference &preference,
                                   int rank)
{
    algorithm how = {};
    how.id = static_cast<std::uint32_t>(FIRST_ID + rank);
    std::copy_n(preference.alignment, 4, how.alignment);
    /* From the pointer that is set now, 16 bytes at least. */
    how.vector_alignment = 256;
    while (how.vector_alignment > 16 &&
           !is_aligned(desc.vector, how.vector_alignment))
        how.vector_alignment /= 2;
    how.n_parts =
        d.type == CUDA_R_16BF && (preference.reductions &
                                  ~CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
            ? 2
            : 1;
    how.workspace_bytes =
        std::min<std::uint64_t>(preference.workspace_bytes, 1024u << rank);
    cublasLtMatmulAlgo_t algo = {};
    std::memcpy(&algo, &how, sizeof how);
    return algo;
}

/** Do the shapes and leading dimensions fit together? */
bool agree(const mm_emu_desc &desc, const mm_emu_layout &a,
           const mm_emu_layout &b, const mm_emu_layout &c,
           const mm_emu_layout &d)
{
    bool a_turned = desc.of_a == CUBLAS_OP_T;
    bool b_turned = desc.of_b == CUBLAS_OP_T;
    return d.rows == (a_turned ? a.cols : a.rows) &&
           d.cols == (b_turned ? b.rows : b.cols) &&
           (a_turned ? a.rows : a.cols) == (b_turned ? b.cols : b.rows) &&
           c.rows == d.rows && c.cols == d.cols && a.ld >= a.rows &&
           b.ld >= b.rows && c.ld >= c.rows && d.ld >= d.rows;
}

/** The manual's table of types under cublasLtMatmul(), as far as it is about
 * bf16 and fp32: compute type, A and B, C and D. An epilogue's vector has the
 * type of D. */
bool is_supported(const mm_emu_desc &desc, const mm_emu_layout &a,
                  const mm_emu_layout &b, const mm_emu_layout &c,
                  const mm_emu_layout &d)
{
    static const struct {
        cublasComputeType_t compute;
        cudaDataType_t factors, results;
    } table[] = {
        {CUBLAS_COMPUTE_32F, CUDA_R_16BF, CUDA_R_16BF},
        {CUBLAS_COMPUTE_32F, CUDA_R_16BF, CUDA_R_32F},
        {CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_32F},
        {CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_32F, CUDA_R_32F},
    };
    bool listed = false;
    for (const auto &row : table)
        listed |= desc.compute == row.compute && a.type == row.factors &&
                  b.type == row.factors && c.type == row.results &&
                  d.type == row.results;
    return listed && (desc.vector_type == -1 ||
                      desc.vector_type == static_cast<std::int32_t>(d.type));
}

/** MAGMAX_CUDA_ON_CPU_EPILOGUES: how the library refuses those that it does not
 * have: no_algorithm, invalid (the heuristic says so), attribute (setting one
 * does), run (cublasLtMatmul does). */
bool refuses(cublasLtEpilogue_t epilogue, const char *how)
{
    const char *set = std::getenv("MAGMAX_CUDA_ON_CPU_EPILOGUES");
    return epilogue != CUBLASLT_EPILOGUE_DEFAULT && set &&
           !std::strcmp(set, how);
}

} // namespace

} // namespace mm_emu

using namespace mm_emu;

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = new mm_emu_handle{};
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED"
           : status == CUBLAS_STATUS_ARCH_MISMATCH
               ? "CUBLAS_STATUS_ARCH_MISMATCH"
               : "CUBLAS_STATUS_INVALID_VALUE";
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc,
                                        cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    if (scale != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *desc = new mm_emu_desc{compute};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                               cublasLtMatmulDescAttributes_t what,
                               const void *value, size_t n_bytes)
{
    void *to = nullptr;
    std::size_t size = 0;
    switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        to = &desc->of_a, size = sizeof desc->of_a;
        break;
    case CUBLASLT_MATMUL_DESC_TRANSB:
        to = &desc->of_b, size = sizeof desc->of_b;
        break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        to = &desc->epilogue, size = sizeof desc->epilogue;
        break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        to = &desc->vector, size = sizeof desc->vector;
        break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        to = &desc->vector_type, size = sizeof desc->vector_type;
        break;
    }
    if (n_bytes != size)
        return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(to, value, size);
    /* One is refused by its name, the other by its vector. */
    if (refuses(desc->epilogue, "attribute") &&
        (desc->epilogue == CUBLASLT_EPILOGUE_BGRADB ||
         what == CUBLASLT_MATMUL_DESC_BIAS_POINTER))
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout,
                                          cudaDataType_t type, uint64_t rows,
                                          uint64_t cols, int64_t ld)
{
    *layout = new mm_emu_layout{type, static_cast<std::int64_t>(rows),
                                static_cast<std::int64_t>(cols), ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new mm_emu_preference{};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                     cublasLtMatmulPreferenceAttributes_t what,
                                     const void *value, size_t n_bytes)
{
    const bool is_size = what == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    if (n_bytes != (is_size ? sizeof(std::uint64_t) : sizeof(std::uint32_t)))
        return CUBLAS_STATUS_INVALID_VALUE;
    void *to =
        is_size ? static_cast<void *>(&preference->workspace_bytes)
        : what == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK
            ? &preference->reductions
            : &preference
                   ->alignment[what -
                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES];
    std::memcpy(to, value, n_bytes);
    return CUBLAS_STATUS_SUCCESS;
}

/* Where there is no algorithm the status says so, or that of a result.
 */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
    cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int most,
    cublasLtMatmulHeuristicResult_t results[], int *n_results)
{
    *n_results = 0;
    if (most < 1 || !agree(*desc, *a, *b, *c, *d) ||
        refuses(desc->epilogue, "invalid"))
        return CUBLAS_STATUS_INVALID_VALUE;
    const bool none = refuses(desc->epilogue, "no_algorithm");
    if (!is_supported(*desc, *a, *b, *c, *d) ||
        (none && desc->epilogue == CUBLASLT_EPILOGUE_BGRADB))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < most && i < N_ALGORITHMS; i++) {
        results[i].algo = algorithm_for(*desc, *d, *preference, i);
        results[i].workspaceSize = 1024u << i;
        results[i].state =
            none ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
        *n_results = i + 1;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(
    const cublasLtMatmulAlgo_t *algo, cublasLtMatmulAlgoConfigAttributes_t what,
    void *value, size_t n_bytes, size_t *n_written)
{
    const bool is_narrow = what >= CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID;
    algorithm how;
    std::memcpy(&how, algo, sizeof how);
    if (n_bytes != (is_narrow ? sizeof(std::uint16_t) : sizeof(std::uint32_t)))
        return CUBLAS_STATUS_INVALID_VALUE;
    const std::uint32_t number = what == CUBLASLT_ALGO_CONFIG_ID ? how.id
                                 : what == CUBLASLT_ALGO_CONFIG_SPLITK_NUM
                                     ? how.n_parts
                                     : 0;
    std::memcpy(value, &number, n_bytes);
    *n_written = n_bytes;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                              const void *alpha, const void *a,
                              cublasLtMatrixLayout_t of_a, const void *b,
                              cublasLtMatrixLayout_t of_b, const void *beta,
                              const void *c, cublasLtMatrixLayout_t, void *d,
                              cublasLtMatrixLayout_t of_d,
                              const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    const void *pointers[4] = {a, b, c, d};
    if (refuses(desc->epilogue, "run")) {
        set_error(cudaErrorInvalidConfiguration);
        return desc->epilogue == CUBLASLT_EPILOGUE_BIAS
                   ? CUBLAS_STATUS_NOT_SUPPORTED
                   : CUBLAS_STATUS_ARCH_MISMATCH;
    }
    problem p = {*desc, {}, workspace, 0, 0, a, b, c, d, *of_a, *of_b, *of_d};
    std::memcpy(&p.how, algo, sizeof p.how);
    for (int i = 0; i < 4; i++)
        if (!is_aligned(pointers[i], p.how.alignment[i]))
            die("cublasLtMatmul: a matrix is aligned less than its algorithm "
                "was chosen for");
    if (desc->epilogue != CUBLASLT_EPILOGUE_DEFAULT &&
        (!desc->vector || !is_aligned(desc->vector, p.how.vector_alignment)))
        die("cublasLtMatmul: the vector of an epilogue is aligned less than "
            "its algorithm was chosen for, or than 16 bytes");
    if (workspace_bytes < p.how.workspace_bytes || !is_aligned(workspace, 256))
        die("cublasLtMatmul: the workspace is too small, or not aligned");
    std::memcpy(&p.alpha, alpha, sizeof p.alpha);
    std::memcpy(&p.beta, beta, sizeof p.beta);
    last_product = {desc->epilogue, p.how.id, workspace_bytes};
    enqueue(stream, [p]() { multiply(p); });
    return CUBLAS_STATUS_SUCCESS;
}
