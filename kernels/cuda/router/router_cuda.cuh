/*
 * The router's sums: norm and logits of a row, in f32, in an order that the width alone fixes. K is cut
 * into 8 parts of 4 slices, as equal as steps of 16 columns allow:
 *
 *   2048   | 64 | 64 | 64 | 64 |   x 8         5120   | 160 | 160 | 160 | 160 |   x 8
 *
 *   products   x * norm weight, times the gate's weight: a slice is one chain in ascending order
 *   squares    of a slice: 4 chains, of every fourth four of columns; (0 + 1) + (2 + 3)
 *   both       slices of a part in ascending order, then parts in ascending order
 *   logit      products * (1 / sqrt(mean of squares + eps)) + bias
 *
 * For few rows weights stand in registers and rows pass by (router_few_cuda.cu), a CTA has one part; for
 * many rows both pass by, and a CTA has one part or several (router_many_cuda.cu).
 */
#ifndef TSR_KERNELS_CUDA_ROUTER_ROUTER_CUDA_CUH
#define TSR_KERNELS_CUDA_ROUTER_ROUTER_CUDA_CUH

#include "kernels/cuda/router/choose_cuda.cuh"

enum {
    ROUTE_PARTS = 8,  /* CTAs of a cluster */
    ROUTE_SLICES = 4, /* of a part */
    ROUTE_FOURS = 4,  /* of columns in a step */
};

typedef struct route_args {
    choose_args c;
    tsr_linear gate;
    const float *x;
    const float *norm; /* NULL: x is normed */
    float *normed;     /* row t at normed_stride * t, where there is a norm */
    int64_t normed_stride;
    float *product; /* [parts, T, E to a multiple of four], between kernels */
    float *factor;  /* [T], likewise, where there is a norm */
    int32_t shares; /* many rows: CTAs among which parts are shared out; one adds them up */
    int32_t parts;  /* ... that are not added up */
    int32_t tokens;
    int32_t slice; /* columns */
    float share;   /* of a column in a mean */
    float eps;
} route_args;

static inline int32_t route_slice(int32_t in)
{
    const int32_t all = ROUTE_PARTS * ROUTE_SLICES * TSR_CUDA_STEP;

    return (in + all - 1) / all * TSR_CUDA_STEP;
}

/* Experts to a multiple of four. */
static __host__ __device__ __forceinline__ int32_t route_experts(int32_t experts)
{
    return (experts + 3) / 4 * 4;
}

/* Columns of a part that there are. */
static __device__ __forceinline__ int32_t route_columns(const route_args &a, int32_t part)
{
    const int32_t most = a.slice * ROUTE_SLICES;

    return max(0, min(most, a.gate.in - part * most));
}

static __device__ __forceinline__ float route_squares(float4 v, float sum)
{
    return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
}

static __device__ __forceinline__ float4 route_times(float4 v, float factor, float4 w)
{
    return make_float4(v.x * factor * w.x, v.y * factor * w.y, v.z * factor * w.z,
                       v.w * factor * w.w);
}

/* What a row is divided by, from the squares of its parts. */
static __device__ __forceinline__ float route_factor(const route_args &a,
                                                     const float square[ROUTE_PARTS])
{
    float sum = square[0];

    for (int p = 1; p < ROUTE_PARTS; p++)
        sum += square[p];
    return a.norm != NULL ? rsqrtf(fmaf(sum, a.share, a.eps)) : 1.0F;
}

/* Rounded here and there alike. */
static __device__ __forceinline__ float route_logit(const route_args &a, float product,
                                                    float factor, int32_t e)
{
    const float x = __fmul_rn(product, factor);

    return a.gate.bias != NULL && e < a.c.experts ? __fadd_rn(x, a.gate.bias[e]) : x;
}

static __device__ __forceinline__ float4 route_sum(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* A slice's squares from those of its four fours, in four lanes. */
static __device__ __forceinline__ float route_slice_squares(float sum)
{
    sum += __shfl_xor_sync(TSR_ALL_LANES, sum, 1);
    sum += __shfl_xor_sync(TSR_ALL_LANES, sum, 2);
    return sum;
}

/* A pair of codes to values. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void route_pair(uint32_t codes, float *low, float *high)
{
    if (FORMAT == TSR_WEIGHT_BF16) {
        *low = __uint_as_float(codes << 16);
        *high = __uint_as_float(codes & 0xffff0000U);
    } else {
        *low = tsr_from_f16((uint16_t)codes);
        *high = tsr_from_f16((uint16_t)(codes >> 16));
    }
}

tsr_status tsr_route_few(const route_args *a, tsr_cuda_faults faults, cudaStream_t stream);

/* Takes so many bytes of memory, on 16; SIZE_MAX: not built for. */
size_t tsr_route_many_bytes(const route_args *a);
tsr_status tsr_route_many(const route_args *a, void *memory, int32_t processors,
                          tsr_cuda_faults faults, cudaStream_t stream);

tsr_status tsr_choose_cuda(tsr_device *device, const tsr_choose_block *b, tsr_stream s);

/* Once, before the first. */
tsr_status tsr_cuda_prepare_router(void);
tsr_status tsr_route_prepare_few(void);
tsr_status tsr_route_prepare_many(void);

#endif
