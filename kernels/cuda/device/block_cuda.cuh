/*
 * What the threads of one CTA find together, in an order that its size alone fixes: lanes of a warp
 * by halves, then the warps in turn. Every thread of the CTA calls, and gets the result.
 */
#ifndef TSR_KERNELS_CUDA_DEVICE_BLOCK_CUDA_CUH
#define TSR_KERNELS_CUDA_DEVICE_BLOCK_CUDA_CUH

#include "kernels/cuda/device/device_cuda.cuh"

enum { TSR_CUDA_LANES = 32, TSR_CUDA_WARPS = TSR_CUDA_THREADS / TSR_CUDA_LANES };

#define TSR_ALL_LANES 0xffffffffU

/* What is known before the kernel in front has ended is not left for later. */
static __device__ __forceinline__ void tsr_hold(uint32_t *x)
{
    asm volatile("" : "+r"(*x));
}

static __device__ __forceinline__ void tsr_hold(int32_t *x)
{
    asm volatile("" : "+r"(*x));
}

template <typename element> static __device__ __forceinline__ void tsr_hold(element **p)
{
    asm volatile("" : "+l"(*p));
}

static __device__ __forceinline__ float tsr_warp_sum(float x)
{
    for (int apart = TSR_CUDA_LANES / 2; apart > 0; apart /= 2)
        x += __shfl_xor_sync(TSR_ALL_LANES, x, apart);
    return x;
}

static __device__ __forceinline__ float tsr_warp_max(float x)
{
    for (int apart = TSR_CUDA_LANES / 2; apart > 0; apart /= 2)
        x = fmaxf(x, __shfl_xor_sync(TSR_ALL_LANES, x, apart));
    return x;
}

static __device__ __forceinline__ float tsr_cta_sum(float x)
{
    __shared__ float part[TSR_CUDA_WARPS];
    float sum = 0.0F;

    x = tsr_warp_sum(x);
    __syncthreads(); /* the last call's readers are done */
    if (threadIdx.x % TSR_CUDA_LANES == 0)
        part[threadIdx.x / TSR_CUDA_LANES] = x;
    __syncthreads();
    for (int w = 0; w < TSR_CUDA_WARPS; w++)
        sum += part[w];
    return sum;
}

static __device__ __forceinline__ float tsr_cta_max(float x)
{
    __shared__ float part[TSR_CUDA_WARPS];
    float most;

    x = tsr_warp_max(x);
    __syncthreads();
    if (threadIdx.x % TSR_CUDA_LANES == 0)
        part[threadIdx.x / TSR_CUDA_LANES] = x;
    __syncthreads();
    most = part[0];
    for (int w = 1; w < TSR_CUDA_WARPS; w++)
        most = fmaxf(most, part[w]);
    return most;
}

/* The least of the threads' numbers. */
static __device__ __forceinline__ int32_t tsr_cta_least(int32_t x)
{
    __shared__ int32_t least;

    __syncthreads();
    if (threadIdx.x == 0)
        least = INT32_MAX;
    __syncthreads();
    atomicMin(&least, x);
    __syncthreads();
    return least;
}

static __device__ __forceinline__ bool tsr_is_faulty(tsr_cuda_faults faults)
{
    return *faults.claimed != 0;
}

/*
 * Leaves a fault, where there is none. In a kernel that calls it every CTA finds it for itself and
 * does nothing else, so that none sees it come while it works.
 */
static __device__ void tsr_leave_fault(tsr_cuda_faults faults, tsr_fault fault)
{
    volatile tsr_fault *seen = faults.seen;

    if (atomicCAS(faults.claimed, 0, 1) != 0)
        return;
    seen->row = fault.row;
    seen->slot = fault.slot;
    seen->value = fault.value;
    seen->limit = fault.limit;
    __threadfence_system(); /* the kind is seen last */
    seen->kind = fault.kind;
    __threadfence_system();
}

#endif
