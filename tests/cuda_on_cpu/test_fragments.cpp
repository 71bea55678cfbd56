/*
 * Tensor-core instructions as kernels/cuda/mma.cuh calls them, against tables
 * that are not ours: where CUTLASS's CuTe says that an element lies (the
 * layouts "TV" of its atoms SM80_16x8x16_F32BF16BF16F32_TN,
 * SM80_16x8x8_F32TF32TF32F32_TN and SM75_U32x4_LDSM, of which SM90_U32x4_STSM_N
 * is the reverse), as strides of a lane's and a value's digits.
 */
#include "kernels/cuda/mma.cuh"

#include <csetjmp>
#include <cstdarg>
#include <vector>

extern "C" {
#include <cmocka.h>
}

namespace
{

cudaStream_t stream;

/** Where in a matrix, down its columns, value v of a lane lies. */
struct layout {
    int lane_low, lane_high; /* strides of lane % 4 and lane / 4 */
    int value[3];            /* of v's bits */
    int at(int lane, int v) const
    {
        int place = lane % 4 * lane_low + lane / 4 * lane_high;
        for (int bit = 0; bit < 3; bit++)
            place += (v >> bit & 1) * value[bit];
        return place;
    }
};

template <typename T> struct atom;

template <> struct atom<mm_bf16> {
    static layout a()
    {
        return {32, 1, {16, 8, 128}}; /* [16, 16] */
    }
    static layout b()
    {
        return {16, 1, {8, 64, 0}}; /* [8, 16] */
    }
};

template <> struct atom<float> {
    static layout a()
    {
        return {16, 1, {8, 64, 0}}; /* [16, 8] */
    }
    static layout b()
    {
        return {8, 1, {32, 0, 0}}; /* [8, 8] */
    }
};

const layout of_c = {32, 1, {16, 8, 0}}; /* [16, 8] */

void *device_copy(const void *from, std::size_t n_bytes)
{
    void *memory = nullptr;
    assert_int_equal(cudaMalloc(&memory, n_bytes), cudaSuccess);
    cudaMemcpyAsync(memory, from, n_bytes, cudaMemcpyHostToDevice, stream);
    cudaStreamSynchronize(stream);
    return memory;
}

} // namespace

template <typename T>
__global__ void multiply_kernel(float *c, const uint32_t *a, const uint32_t *b)
{
    const int lane = mm_lane();
    float sum[4];
    for (int i = 0; i < 4; i++)
        sum[i] = c[4 * lane + i];
    mm_multiply(sum, a + 4 * lane, b + 2 * lane, T());
    for (int i = 0; i < 4; i++)
        c[4 * lane + i] = sum[i];
}

/** Small integers as lanes hold them: N values a lane. */
template <typename T>
static std::vector<T> deal(const layout &of, int n, const std::vector<int> &m)
{
    std::vector<T> dealt;
    for (int lane = 0; lane < MM_WARP; lane++)
        for (int v = 0; v < n; v++) {
            T x;
            mm_set(x, (float)m[of.at(lane, v)]);
            dealt.push_back(x);
        }
    return dealt;
}

template <typename T> static void products_are_exact(void **)
{
    constexpr int K = mm_mma<T>::K, IN_REGISTER = 4 / (int)sizeof(T);
    std::vector<int> a(16 * K), b(8 * K), c(16 * 8);
    for (int i = 0; i < 16 * K; i++)
        a[i] = i * 7 % 61 - 30;
    for (int i = 0; i < 8 * K; i++)
        b[i] = i * 11 % 53 - 26;
    for (int i = 0; i < 16 * 8; i++)
        c[i] = i * 5 % 37 - 18;
    auto in_a = deal<T>(atom<T>::a(), 4 * IN_REGISTER, a);
    auto in_b = deal<T>(atom<T>::b(), 2 * IN_REGISTER, b);
    auto in_c = deal<float>(of_c, 4, c);
    void *on_a = device_copy(in_a.data(), in_a.size() * sizeof(T));
    void *on_b = device_copy(in_b.data(), in_b.size() * sizeof(T));
    void *on_c = device_copy(in_c.data(), in_c.size() * sizeof(float));
    MM_LAUNCH((multiply_kernel<T>), 1, MM_WARP, 0, stream, (float *)on_c,
              (const uint32_t *)on_a, (const uint32_t *)on_b);
    std::vector<float> got(in_c.size());
    cudaMemcpyAsync(got.data(), on_c, got.size() * sizeof(float),
                    cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    for (int lane = 0; lane < MM_WARP; lane++)
        for (int v = 0; v < 4; v++) {
            const int place = of_c.at(lane, v), m = place % 16, n = place / 16;
            int want = c[place];
            for (int k = 0; k < K; k++)
                want += a[m + 16 * k] * b[n + 8 * k];
            assert_true(got[4 * lane + v] == (float)want);
        }
    for (void *memory : {on_a, on_b, on_c})
        cudaFree(memory);
}

template <bool TRANSPOSED>
__global__ void load_kernel(uint32_t *to, const mm_bf16 *from)
{
    MM_SHARED(mm_bf16, rows, MM_WARP * 8);
    for (int i = 0; i < 8; i++)
        rows[8 * mm_lane() + i] = from[8 * mm_lane() + i];
    __syncthreads();
    mm_load_matrices<TRANSPOSED>(to + 4 * mm_lane(), rows + 8 * mm_lane());
}

/* Of matrix i, whose rows lanes 8 i .. 8 i + 7 point at, a lane gets elements
 * 2 (lane % 4) and the next of row lane / 4; transposed, of column lane / 4. */
template <bool TRANSPOSED> static void matrices_are_loaded(void **)
{
    std::vector<mm_bf16> rows(MM_WARP * 8);
    for (int i = 0; i < MM_WARP * 8; i++)
        mm_set(rows[i], (float)i);
    void *from = device_copy(rows.data(), rows.size() * sizeof rows[0]);
    void *to = device_copy(rows.data(), rows.size() * sizeof rows[0]);
    MM_LAUNCH((load_kernel<TRANSPOSED>), 1, MM_WARP, 0, stream, (uint32_t *)to,
              (const mm_bf16 *)from);
    std::vector<mm_bf16> got(rows.size());
    cudaMemcpyAsync(got.data(), to, got.size() * sizeof got[0],
                    cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    for (int lane = 0; lane < MM_WARP; lane++)
        for (int v = 0; v < 8; v++) {
            const int line = lane / 4, place = lane % 4 * 2 + v % 2;
            const int row = TRANSPOSED ? place : line;
            const int col = TRANSPOSED ? line : place;
            assert_true(mm_float_of(got[8 * lane + v]) ==
                        (float)(v / 2 * 64 + row * 8 + col));
        }
    cudaFree(from);
    cudaFree(to);
}

enum { STORED_LD = 24 };

template <typename T, bool PAIRS>
__global__ void store_kernel(T *to, const float *c)
{
    MM_SHARED(T, tile, 16 * STORED_LD);
    for (int i = mm_lane(); i < 16 * STORED_LD; i += MM_WARP)
        mm_set(tile[i], -1.0f);
    float sum[2][4];
    for (int i = 0; i < 8; i++)
        sum[i / 4][i % 4] = c[32 * (4 * (i / 4)) + 4 * mm_lane() + i % 4];
    __syncwarp();
    if (PAIRS)
        mm_store_pairs(tile, STORED_LD, sum);
    else
        mm_store_c(tile, STORED_LD, sum);
    __syncwarp();
    for (int i = mm_lane(); i < 16 * STORED_LD; i += MM_WARP)
        to[i] = tile[i];
}

/* Two c tiles side by side become 16 rows of 16, and nothing else is touched.
 */
template <typename T, bool PAIRS> static void sums_are_stored(void **)
{
    std::vector<int> m[2];
    std::vector<float> c;
    for (int n = 0; n < 2; n++) {
        for (int i = 0; i < 16 * 8; i++)
            m[n].push_back(n * 128 + i);
        const std::vector<float> dealt = deal<float>(of_c, 4, m[n]);
        c.insert(c.end(), dealt.begin(), dealt.end());
    }
    std::vector<T> got(16 * STORED_LD);
    void *from = device_copy(c.data(), c.size() * sizeof c[0]);
    void *to = device_copy(got.data(), got.size() * sizeof got[0]);
    MM_LAUNCH((store_kernel<T, PAIRS>), 1, MM_WARP, 0, stream, (T *)to,
              (const float *)from);
    cudaMemcpyAsync(got.data(), to, got.size() * sizeof got[0],
                    cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    for (int row = 0; row < 16; row++)
        for (int col = 0; col < STORED_LD; col++)
            assert_true(
                mm_float_of(got[row * STORED_LD + col]) ==
                (col < 16 ? (float)m[col / 8][row + 16 * (col % 8)] : -1.0f));
    cudaFree(from);
    cudaFree(to);
}

int main()
{
    assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                     cudaSuccess);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_exact<mm_bf16>),
        cmocka_unit_test(products_are_exact<float>),
        cmocka_unit_test(matrices_are_loaded<false>),
        cmocka_unit_test(matrices_are_loaded<true>),
        cmocka_unit_test((sums_are_stored<mm_bf16, false>)),
        cmocka_unit_test((sums_are_stored<mm_bf16, true>)),
        cmocka_unit_test((sums_are_stored<float, false>)),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
