/*
 * Norm of one head, then rotation by halves of its first dims, by a warp: the same operations in the
 * same order in every kernel that turns heads.
 *
 *   x     | 4 | 4 | 4 | ..          four dims a lane, then the next 128
 *   room  | low  .. half | high .. 2 half | rest |      f32, in shared memory, the warp's own
 */
#ifndef TSR_KERNELS_CUDA_HEAD_CUDA_CUH
#define TSR_KERNELS_CUDA_HEAD_CUDA_CUH

#include "kernels/cuda/block_cuda.cuh"

/* What turns a head. cos and sin are those of its position; half is 0 where nothing rotates. */
typedef struct tsr_turn {
    const float *norm; /* [D] or NULL */
    const float *cos;  /* [half] */
    const float *sin;  /* [half] */
    int32_t dim;       /* D, a multiple of 16, at most TSR_CUDA_HEAD_DIM */
    float share;       /* 1 / D */
    int32_t half;
    float eps;
} tsr_turn;

enum { TSR_TURN_SPAN = 4, TSR_TURN_SPANS = TSR_CUDA_HEAD_DIM / TSR_TURN_SPAN / TSR_CUDA_LANES };

/* What a lane holds of a head. */
typedef struct tsr_head_spans {
    float4 span[TSR_TURN_SPANS];
} tsr_head_spans;

static __device__ __forceinline__ tsr_head_spans tsr_load_head(const float *x, int32_t dim)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    tsr_head_spans h;

#pragma unroll
    for (int i = 0; i < TSR_TURN_SPANS; i++) {
        const int32_t at = TSR_TURN_SPAN * (lane + TSR_CUDA_LANES * i);
        h.span[i] = at < dim ? *(const float4 *)(x + at) : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
    return h;
}

static __device__ __forceinline__ float tsr_head_factor(const tsr_turn &t, const tsr_head_spans &h)
{
    float sum = 0.0F;

#pragma unroll
    for (int i = 0; i < TSR_TURN_SPANS; i++) {
        sum = fmaf(h.span[i].x, h.span[i].x, sum);
        sum = fmaf(h.span[i].y, h.span[i].y, sum);
        sum = fmaf(h.span[i].z, h.span[i].z, sum);
        sum = fmaf(h.span[i].w, h.span[i].w, sum);
    }
    return rsqrtf(fmaf(tsr_warp_sum(sum), t.share, t.eps));
}

/* Leaves the turned head in room; the whole warp may read it afterwards. */
static __device__ __forceinline__ void tsr_turn_head(const tsr_turn &t, const tsr_head_spans &h,
                                                     float *room)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const float factor = t.norm != NULL ? tsr_head_factor(t, h) : 1.0F;

    __syncwarp(); /* the last head's readers are done */
#pragma unroll
    for (int i = 0; i < TSR_TURN_SPANS; i++) {
        const int32_t at = TSR_TURN_SPAN * (lane + TSR_CUDA_LANES * i);
        float4 x = h.span[i];
        if (at >= t.dim)
            continue;
        if (t.norm != NULL) {
            const float4 n = *(const float4 *)(t.norm + at);
            x = make_float4(x.x * factor * n.x, x.y * factor * n.y, x.z * factor * n.z,
                            x.w * factor * n.w);
        }
        *(float4 *)(room + at) = x;
    }
    __syncwarp();
#pragma unroll 1
    for (int32_t i = lane; i < t.half; i += TSR_CUDA_LANES) {
        const float low = room[i];
        const float high = room[i + t.half];
        room[i] = fmaf(low, t.cos[i], -__fmul_rn(high, t.sin[i]));
        room[i + t.half] = fmaf(high, t.cos[i], __fmul_rn(low, t.sin[i]));
    }
    __syncwarp();
}

#endif
