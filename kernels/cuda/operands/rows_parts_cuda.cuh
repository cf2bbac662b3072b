/*
 * What the kernels that make operand rows share: four columns at once, what F16 is divided by, and the
 * tiles that pairs come in.
 */
#ifndef TSR_KERNELS_CUDA_OPERANDS_ROWS_PARTS_CUDA_CUH
#define TSR_KERNELS_CUDA_OPERANDS_ROWS_PARTS_CUDA_CUH

#include "kernels/cuda/device/block_cuda.cuh"
#include "kernels/cuda/device/number_cuda.cuh"
#include "kernels/cuda/operands/rows_cuda.cuh"

enum {
    LINE_BYTES = 128, /* of the cache */
    PAIR_GRID = 1024,
    APART = 2, /* fours of columns that a thread combines at once */
};

static __device__ __forceinline__ uint16_t rounded_to(bool bf16, float v)
{
    return bf16 ? tsr_to_bf16(v) : __half_as_ushort(__float2half_rn(v));
}

/* The power of two that a row in F16 is divided by, of its largest value. fmaxf passes over NaN,
 * which stays what it is. */
static __device__ __forceinline__ float f16_scale(float most)
{
    const float power = tsr_power_below(most);

    return power == 0.0F ? 1.0F : fmaxf(power, 0x1p-100F) * 0x1p-14F;
}

static __device__ __forceinline__ float4 times(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

static __device__ __forceinline__ float4 scaled(float4 a, float b)
{
    return make_float4(a.x * b, a.y * b, a.z * b, a.w * b);
}

static __device__ __forceinline__ float squares(float4 v, float sum)
{
    return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
}

/* Weights are there before the kernel in front has ended, but far away. */
static __device__ __forceinline__ void call_for(const float *weight, int32_t in)
{
    const int32_t i = (int32_t)threadIdx.x * (LINE_BYTES / (int32_t)sizeof(float));

    if (weight != NULL && i < in)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(weight + i));
}

/* The tiles of pairs that a row of the grid goes through, one after the other. */
typedef struct tile_walk {
    tsr_cuda_tile tile;
    tsr_linear linear; /* of its expert */
    int32_t next;
} tile_walk;

static __device__ __forceinline__ bool next_tile(const tsr_mlp *mlps, tsr_cuda_side side,
                                                 const tsr_cuda_work &w, tile_walk *at)
{
    if (at->next >= *w.tiles)
        return false;
    at->tile = w.tile[at->next];
    at->linear = *tsr_side_of(&mlps[at->tile.expert], side);
    at->next += (int32_t)gridDim.y;
    return true;
}

#endif
