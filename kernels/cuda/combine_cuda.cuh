/* The weighted sum of a token's answers, four columns of it, in the one order that it has. */
#ifndef TSR_KERNELS_CUDA_COMBINE_CUDA_CUH
#define TSR_KERNELS_CUDA_COMBINE_CUDA_CUH

#include "kernels/cuda/device_cuda.cuh"

enum { COMBINE_TOGETHER = 8 }; /* answers on their way */

static __device__ __forceinline__ float4 combine_plus(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* x + ((the sum of weight * answer, slot by slot) + shared). */
static __device__ __forceinline__ float4 combine_four(const tsr_combine_block &b, int64_t token,
                                                      int32_t four)
{
    const int32_t fours = b.hidden / 4;
    const int64_t i = token * fours + four;
    const float4 *answer = (const float4 *)b.answers + token * b.top_k * fours + four;
    const float *weight = b.weight + token * b.top_k;
    const float4 before = __ldcg((const float4 *)b.x + i);
    float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);

    for (int32_t first = 0; first < b.top_k; first += COMBINE_TOGETHER) {
        float4 a[COMBINE_TOGETHER];
        float w[COMBINE_TOGETHER];
#pragma unroll
        for (int j = 0; j < COMBINE_TOGETHER; j++) {
            const int32_t k = min(first + j, b.top_k - 1);
            a[j] = __ldcg(answer + (int64_t)k * fours);
            w[j] = __ldcg(weight + k);
        }
#pragma unroll
        for (int j = 0; j < COMBINE_TOGETHER; j++) {
            if (first + j < b.top_k)
                sum = combine_plus(
                    sum, make_float4(w[j] * a[j].x, w[j] * a[j].y, w[j] * a[j].z, w[j] * a[j].w));
        }
    }
    if (b.shared != NULL)
        sum = combine_plus(sum, __ldcg((const float4 *)b.shared + i));
    return combine_plus(before, sum);
}

#endif
