/* The weighted sum of a token's answers, four columns of it, in the one order that it has. */
#ifndef TSR_KERNELS_CUDA_OPERANDS_COMBINE_CUDA_CUH
#define TSR_KERNELS_CUDA_OPERANDS_COMBINE_CUDA_CUH

#include "kernels/cuda/device/block_cuda.cuh"

enum {
    COMBINE_TOGETHER = 8,  /* answers on their way */
    COMBINE_PATIENCE = 64, /* looks at them before one at whether there is any point */
};

static __device__ __forceinline__ float4 combine_plus(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* Whether some of an answer has not come. */
static __device__ __forceinline__ bool combine_absent(const float4 &v)
{
    const uint32_t absent = 0xffffffffU;

    return __float_as_uint(v.x) == absent || __float_as_uint(v.y) == absent ||
           __float_as_uint(v.z) == absent || __float_as_uint(v.w) == absent;
}

static __device__ __forceinline__ float4 combine_look(const float4 *at)
{
    float4 v;
    asm volatile("ld.volatile.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "l"(at)
                 : "memory");
    return v;
}

/* Waits for what has not come of so many answers, which lie `apart` of each other, and empties their
 * places. */
static __device__ __forceinline__ void combine_take(const tsr_combine_block &b,
                                                    tsr_cuda_faults faults, int64_t at,
                                                    int32_t apart, int32_t answers,
                                                    float4 (&a)[COMBINE_TOGETHER])
{
    float4 *place = (float4 *)b.coming + at;
    const float none = __uint_as_float(0xffffffffU);
    const volatile int32_t *ended = b.ended;
    bool waits = true;

    tsr_hold(&place); /* or products of 64 bits find it anew each time */
    for (unsigned turns = 1; waits; turns++) {
        waits = false;
#pragma unroll
        for (int j = 0; j < COMBINE_TOGETHER; j++) {
            if (j < answers && combine_absent(a[j])) {
                a[j] = combine_look(place + j * apart);
                waits = true;
            }
        }
        if (turns % COMBINE_PATIENCE == 0 && waits &&
            (ended[0] != 0 || ended[1] != 0 || *(const volatile int32_t *)faults.claimed != 0))
            return;
    }
#pragma unroll
    for (int j = 0; j < COMBINE_TOGETHER; j++) {
        if (j < answers)
            place[j * apart] = make_float4(none, none, none, none);
    }
}

/* The next answers join the sum, if there are so many. */
static __device__ __forceinline__ float4 combine_some(float4 sum, const float w[COMBINE_TOGETHER],
                                                      const float4 a[COMBINE_TOGETHER],
                                                      int32_t answers)
{
#pragma unroll
    for (int j = 0; j < COMBINE_TOGETHER; j++) {
        if (j < answers)
            sum = combine_plus(
                sum, make_float4(w[j] * a[j].x, w[j] * a[j].y, w[j] * a[j].z, w[j] * a[j].w));
    }
    return sum;
}

/* The next answers to a token, of four columns of it, and what is on its way with the first of them. */
typedef struct combine_asked {
    float4 a[COMBINE_TOGETHER];
    float w[COMBINE_TOGETHER];
    float4 before;
} combine_asked;

static __device__ __forceinline__ void combine_ask(const tsr_combine_block &b, int64_t token,
                                                   int32_t four, int32_t first, combine_asked *to)
{
    const int32_t fours = b.hidden / 4;
    const float4 *answer = (const float4 *)b.answers + token * b.top_k * fours + four;
    const float *weight = b.weight + token * b.top_k;

    tsr_hold(&answer);
    tsr_hold(&weight);
#pragma unroll
    for (int j = 0; j < COMBINE_TOGETHER; j++) {
        const int32_t k = min(first + j, b.top_k - 1);
        to->a[j] = __ldcg(answer + k * fours);
        to->w[j] = __ldcg(weight + k);
    }
    if (first == 0)
        to->before = __ldcg((const float4 *)b.x + token * fours + four);
}

/* x + ((the sum of weight * answer, slot by slot) + shared), of which the first answers have been asked for.
 * Answers that are coming are waited for where `takes` is true: where nobody else does. */
static __device__ __forceinline__ float4 combine_rest(const tsr_combine_block &b,
                                                      tsr_cuda_faults faults, int64_t token,
                                                      int32_t four, bool takes,
                                                      combine_asked *asked)
{
    const int32_t fours = b.hidden / 4;
    const int64_t at = token * b.top_k * fours + four;
    float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);

    for (int32_t first = 0; first < b.top_k; first += COMBINE_TOGETHER) {
        if (first > 0)
            combine_ask(b, token, four, first, asked);
        if (b.coming != NULL && takes)
            combine_take(b, faults, at + (int64_t)first * fours, fours, b.top_k - first, asked->a);
        sum = combine_some(sum, asked->w, asked->a, b.top_k - first);
    }
    if (b.shared != NULL)
        sum = combine_plus(sum, __ldcg((const float4 *)b.shared + token * fours + four));
    return combine_plus(asked->before, sum);
}

static __device__ __forceinline__ float4 combine_four(const tsr_combine_block &b,
                                                      tsr_cuda_faults faults, int64_t token,
                                                      int32_t four, bool takes)
{
    combine_asked asked;

    combine_ask(b, token, four, 0, &asked);
    return combine_rest(b, faults, token, four, takes, &asked);
}

#endif
