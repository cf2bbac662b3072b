/*
 * The weighted sum of a token's answers, slot by slot, then the shared expert, then the residual. The
 * order is fixed: where an answer was computed changes no bit. A thread four columns; where it is
 * known what follows, a CTA a token, which norms it as well (rows_cuda.cu).
 */
#include "kernels/cuda/operands/combine_cuda.cuh"

#include "kernels/cuda/device/block_cuda.cuh"
#include "kernels/cuda/device/told_cuda.cuh"
#include "kernels/cuda/experts/packets_cuda.cuh"
#include "kernels/cuda/linear/few_cuda.cuh"
#include "kernels/cuda/operands/rows_cuda.cuh"

enum {
    REHEARSED = 8,    /* tokens at most: more have no room beside the kernel in front */
    COMBINE_ONE = 64, /* threads of a CTA, of a single row */
};

static __global__ void __launch_bounds__(TSR_CUDA_THREADS, 1) /* or loads take turns */
    combine_kernel(tsr_combine_block b, tsr_cuda_faults faults)
{
    const int32_t fours = b.hidden / 4;
    const int32_t four = (int32_t)(blockIdx.y * TSR_CUDA_THREADS + threadIdx.x);
    const int64_t token = blockIdx.x;

    tsr_admit_kernel();
    /* Code that runs once is in no cache near: once to no effect, while there is nothing to do. */
#pragma unroll 1
    for (bool rehearses = gridDim.x <= REHEARSED;; rehearses = false) {
        if (!rehearses)
            tsr_await_kernel();
        const bool is_faulty = tsr_is_faulty(faults);
        const float4 sum = combine_four(b, faults, token, min(four, fours - 1),
                                        !rehearses && !is_faulty && four < fours);
        asm volatile("" ::"f"(sum.x), "f"(sum.y), "f"(sum.z), "f"(sum.w)); /* it is made, too */
        if (rehearses)
            continue;
        if (!is_faulty && four < fours)
            ((float4 *)b.x)[token * fours + four] = sum;
        return;
    }
}

/*
 * A single row, whose answers are sent by the kernel in front (packets_cuda.cuh), so that they are here
 * before it has ended. That kernel admits this one when all in front of it has ended.
 */
static __global__ void __launch_bounds__(COMBINE_ONE)
    combine_one_kernel(tsr_combine_block b, const uint64_t *sent, const uint32_t *launches,
                       tsr_cuda_faults faults)
{
    const int32_t fours = b.hidden / 4;
    const int32_t four = (int32_t)(blockIdx.x * COMBINE_ONE + threadIdx.x);
    const int32_t mine = min(four, fours - 1);
    const uint64_t late = packet_clock() + TOLD_PATIENCE;
    float4 *x = (float4 *)b.x + mine;
    float4 sum;
    bool there;

    tsr_admit_kernel();
    const uint32_t number = *(const volatile uint32_t *)launches;
    const float4 before = __ldcg(x);
    do {
        there = true;
        sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        for (int32_t first = 0; first < b.top_k; first += COMBINE_TOGETHER) {
            float4 a[COMBINE_TOGETHER];
            float w[COMBINE_TOGETHER];
#pragma unroll
            for (int j = 0; j < COMBINE_TOGETHER; j++) {
                const int32_t k = min(first + j, b.top_k - 1);
                there =
                    packet_four(sent + (int64_t)k * b.hidden + 4 * mine, number, &a[j]) && there;
                w[j] = __ldcg(b.weight + k);
            }
            sum = combine_some(sum, w, a, b.top_k - first);
        }
        sum = combine_plus(before, sum);
    } while (!there && packet_clock() < late);
    if (there && four < fours)
        *x = sum;
    tsr_await_kernel();
    if (there && *(const volatile uint32_t *)launches == number)
        return;
    if (four >= fours || tsr_is_faulty(faults))
        return;
    *x = before;
    *x = combine_four(b, faults, 0, mine, false);
}

tsr_status tsr_combine_cuda(tsr_device *device, const tsr_combine_block *b, tsr_stream s)
{
    tsr_cuda_device *cuda = tsr_cuda(device);
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    const dim3 grid((unsigned)b->tokens, tsr_cuda_ceil(b->hidden / 4, TSR_CUDA_THREADS));
    const tsr_cuda_launch_shape at = {grid, TSR_CUDA_THREADS, 0, stream, 0};
    const bool enters = b->next.linear != NULL && !tsr_few_makes(b->next.linear, b->tokens);

    if (b->tokens == 0)
        return TSR_OK;
    cuda->waits = b->coming != NULL;
    if (enters)
        return tsr_cuda_enter(cuda, b, stream);
    if (b->computed && cuda->sends && b->tokens == 1 && b->shared == NULL && b->coming == NULL) {
        const tsr_cuda_launch_shape one = {dim3(tsr_cuda_ceil(b->hidden / 4, COMBINE_ONE)),
                                           COMBINE_ONE, 0, stream, 0};
        return tsr_cuda_launch(one, combine_one_kernel, *b, cuda->work.sent, cuda->work.launch,
                               cuda->faults);
    }
    return tsr_cuda_launch(at, combine_kernel, *b, cuda->faults);
}
