/*
 * A row's norm by a warp, with the additions of router_cuda.cuh: it is looked at once for its squares, and
 * once more, near by then, to be written down.
 */
#ifndef TSR_KERNELS_CUDA_ROUTER_ROUTER_NORM_CUDA_CUH
#define TSR_KERNELS_CUDA_ROUTER_ROUTER_NORM_CUDA_CUH

#include "kernels/cuda/router/router_cuda.cuh"

enum {
    ROUTE_CHAINS = ROUTE_PARTS * ROUTE_SLICES * ROUTE_FOURS / TSR_CUDA_LANES, /* in a lane */
    ROUTE_AHEAD = 4, /* fours of each chain that are on their way together */
    ROUTE_LEFT = 16, /* fours of a row likewise, when it is written down */
};

/* Squares of a row, by a warp: chain l + 32 i in lane l. */
static __device__ __forceinline__ float route_norm_factor(const route_args &a, const float4 *x)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t steps = a.slice / TSR_CUDA_STEP;
    float sum[ROUTE_CHAINS] = {};
    float square[ROUTE_PARTS];

#pragma unroll 1
    for (int32_t first = 0; first < steps; first += ROUTE_AHEAD) {
        float4 v[ROUTE_CHAINS][ROUTE_AHEAD];
#pragma unroll
        for (int i = 0; i < ROUTE_CHAINS; i++) {
            const int32_t chain = i * TSR_CUDA_LANES + lane;
            const int32_t at = chain / ROUTE_FOURS * steps * ROUTE_FOURS + chain % ROUTE_FOURS;
#pragma unroll
            for (int q = 0; q < ROUTE_AHEAD; q++) {
                const int32_t four = at + (first + q) * ROUTE_FOURS;
                const bool is = first + q < steps && four < a.gate.in / 4;
                v[i][q] = is ? __ldcg(x + four) : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
            }
        }
#pragma unroll
        for (int i = 0; i < ROUTE_CHAINS; i++) {
#pragma unroll
            for (int q = 0; q < ROUTE_AHEAD; q++)
                sum[i] = route_squares(v[i][q], sum[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < ROUTE_CHAINS; i++) {
        const float slice = route_slice_squares(sum[i]);
        float part = slice;
        for (int s = 1; s < ROUTE_SLICES; s++)
            part += __shfl_down_sync(TSR_ALL_LANES, slice, s * ROUTE_FOURS);
        square[2 * i] = __shfl_sync(TSR_ALL_LANES, part, 0);
        square[2 * i + 1] = __shfl_sync(TSR_ALL_LANES, part, TSR_CUDA_LANES / 2);
    }
    return route_factor(a, square);
}

/* A row of x, normed, by a warp; several fours of columns on their way. */
static __device__ __forceinline__ void route_leave_row(const route_args &a, int64_t row,
                                                       float factor)
{
    const int32_t fours = a.gate.in / 4;
    const float4 *x = (const float4 *)(const void *)(a.x + row * a.gate.in);
    const float4 *norm = (const float4 *)(const void *)a.norm;
    float4 *to = (float4 *)(void *)(a.normed + row * a.normed_stride);

#pragma unroll 1
    for (int32_t first = (int32_t)(threadIdx.x % TSR_CUDA_LANES); first < fours;
         first += ROUTE_LEFT * TSR_CUDA_LANES) {
        float4 v[ROUTE_LEFT];
#pragma unroll
        for (int i = 0; i < ROUTE_LEFT; i++)
            v[i] = __ldcg(x + min(first + i * TSR_CUDA_LANES, fours - 1));
#pragma unroll
        for (int i = 0; i < ROUTE_LEFT; i++) {
            const int32_t four = first + i * TSR_CUDA_LANES;
            if (four < fours)
                to[four] = route_times(v[i], factor, __ldg(norm + four));
        }
    }
}

#endif
