/*
 * The steps of the order that attend_cuda.h lays down, for the fragments of one warp:
 *
 *   queries   16 rows (heads, or heads of positions) on M
 *   keys      8 positions on N, dims on K
 *   values    8 dims on N, positions on K
 *
 *   lane 4 g + t holds of 16 x 8 sums: row g, columns 2 t, 2 t + 1; row g + 8, the same columns
 */
#ifndef TSR_KERNELS_CUDA_ATTENTION_ATTEND_SUMS_CUDA_CUH
#define TSR_KERNELS_CUDA_ATTENTION_ATTEND_SUMS_CUDA_CUH

#include "kernels/cuda/attention/attend_tile_cuda.cuh"

static __device__ __forceinline__ void tsr_load_matrices(uint32_t to[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

static __device__ __forceinline__ void tsr_load_turned_matrices(uint32_t to[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

/* sum += a b */
static __device__ __forceinline__ void tsr_mma(float sum[4], const uint32_t a[4], uint32_t b0,
                                               uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Rows first .. first + 15 of a matrix of ROWS, columns of step `step`: the A operand. */
template <int ROWS>
static __device__ __forceinline__ void tsr_load_rows(uint32_t to[4], uint32_t matrix, int first,
                                                     int step)
{
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);

    tsr_load_matrices(to, matrix + tsr_piece_at<ROWS>(first + lane % 16, 2 * step + lane / 16));
}

/* Keys `first` .. first + 15 of a tile, dims of step `step`: two B operands. */
static __device__ __forceinline__ void tsr_load_keys(uint32_t to[4], uint32_t tile, int first,
                                                     int step)
{
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);

    tsr_load_matrices(to, tile + tsr_piece_at<TSR_TILE>(first + lane / 16 * 8 + lane % 8,
                                                        2 * step + lane / 8 % 2));
}

/* Values of positions 16 step .. of a tile, dims 8 piece .. 8 piece + 15: two B operands. */
static __device__ __forceinline__ void tsr_load_values(uint32_t to[4], uint32_t tile, int step,
                                                       int piece)
{
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);

    tsr_load_turned_matrices(
        to, tile + tsr_piece_at<TSR_TILE>(TSR_STEP * step + lane % 16, piece + lane / 16));
}

/* Where a warp holds more pieces than these, it leaves out products by one, for all of its rows. */
enum { TSR_FEW_PIECES = 4 };

/* A lane's rows, g and g + 8, of PIECES pieces of 8 dims. Where ROWS is 1 there are eight rows, and what
 * belongs to g + 8 is anything. */
template <int PIECES, int ROWS = 2> struct tsr_sums {
    float value[PIECES][4];
    float weight[4]; /* every column is the sum of weights */
    float most[2];   /* what weights are relative to, in units of log2; none: -INFINITY */
};

static __device__ __forceinline__ float tsr_exp2(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

template <int PIECES, int ROWS>
static __device__ __forceinline__ void tsr_sums_clear(tsr_sums<PIECES, ROWS> *s)
{
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++)
            s->value[i][n] = 0.0F;
    }
#pragma unroll
    for (int n = 0; n < 4; n++)
        s->weight[n] = 0.0F;
    s->most[0] = s->most[1] = -INFINITY;
}

/* What a tile's largest raw scores do to a split. */
typedef struct tsr_rise {
    float most[2];   /* the split's from now on */
    float base[2];   /* the same, or 0 where nothing is seen yet */
    float shrink[2]; /* what was added up before is worth: a power of two, mostly one */
} tsr_rise;

/* No score is above it. Far apart, so that it seldom rises. */
static __device__ __forceinline__ float tsr_most_of(float score)
{
    enum { APART = 8 };

    return ceilf(score * (1.0F / APART)) * APART;
}

template <int ROWS = 2>
static __device__ __forceinline__ tsr_rise tsr_rise_of(const float most[2], const float peak[2],
                                                       float scale)
{
    tsr_rise rise;

#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        rise.most[r] = fmaxf(most[r], tsr_most_of(peak[r] * scale));
        rise.base[r] = rise.most[r] == -INFINITY ? 0.0F : rise.most[r];
        rise.shrink[r] = tsr_exp2(most[r] - rise.base[r]);
    }
    return rise;
}

template <int PIECES, int ROWS>
static __device__ __forceinline__ void tsr_sums_rise(tsr_sums<PIECES, ROWS> *s,
                                                     const tsr_rise &rise)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        s->most[r] = rise.most[r];
    if (PIECES > TSR_FEW_PIECES &&
        __all_sync(TSR_ALL_LANES, rise.shrink[0] * rise.shrink[ROWS - 1] == 1.0F))
        return;
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
#pragma unroll
        for (int n = 0; n < 2 * ROWS; n++)
            s->value[i][n] *= rise.shrink[n / 2];
    }
#pragma unroll
    for (int n = 0; n < 2 * ROWS; n++)
        s->weight[n] *= rise.shrink[n / 2];
}

static __device__ __forceinline__ float tsr_weight_of(float score, float scale, float base)
{
    return tsr_exp2(fmaf(score, scale, -base));
}

/* Adds a split's sums to those of the splits before it. A row that saw nothing changes nothing. */
template <int PIECES, int ROWS>
static __device__ __forceinline__ void tsr_sums_add(tsr_sums<PIECES, ROWS> *to,
                                                    const tsr_sums<PIECES, ROWS> &split)
{
    float keep[2];
    float take[2];

#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float most = fmaxf(to->most[r], split.most[r]);
        const float base = most == -INFINITY ? 0.0F : most;
        keep[r] = tsr_exp2(to->most[r] - base);
        take[r] = tsr_exp2(split.most[r] - base);
        to->most[r] = most;
    }
    const bool same = keep[0] * take[0] == 1.0F && keep[ROWS - 1] * take[ROWS - 1] == 1.0F;
    if (PIECES > TSR_FEW_PIECES && __all_sync(TSR_ALL_LANES, same)) {
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
#pragma unroll
            for (int n = 0; n < 2 * ROWS; n++)
                to->value[i][n] += split.value[i][n];
        }
#pragma unroll
        for (int n = 0; n < 2 * ROWS; n++)
            to->weight[n] += split.weight[n];
        return;
    }
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
#pragma unroll
        for (int n = 0; n < 2 * ROWS; n++)
            to->value[i][n] =
                fmaf(split.value[i][n], take[n / 2], __fmul_rn(to->value[i][n], keep[n / 2]));
    }
#pragma unroll
    for (int n = 0; n < 2 * ROWS; n++)
        to->weight[n] = fmaf(split.weight[n], take[n / 2], __fmul_rn(to->weight[n], keep[n / 2]));
}

#endif
