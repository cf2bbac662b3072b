/*
 * A single row and its experts, told to who computes them by who chooses them, piece by piece and before
 * that kernel has ended:
 *
 *   told   | id, number |   |   |   | id, number |   |   |   | ..     a slot every 32 bytes
 *   row    | x, number | x, number | ..
 *
 * The number is that of the launch it is told to (packets_cuda.cuh), so that only who counts launches may be
 * told: what nobody counts would be told again, and be taken for what comes next. Ids are a hint: whoever
 * takes them looks again when the kernel in front has ended, and what does not come is waited for but a
 * while.
 */
#ifndef TSR_KERNELS_CUDA_DEVICE_TOLD_CUDA_CUH
#define TSR_KERNELS_CUDA_DEVICE_TOLD_CUDA_CUH

#include "kernels/cuda/device/device_cuda.cuh"

/* Whether the kernel of these experts for a single row, at `rows`, takes what is told, and counts it
 * (tiles_one_cuda.cu). */
bool tsr_cuda_takes_told(tsr_cuda_device *cuda, const tsr_experts *experts, const void *rows);

enum {
    TOLD_APART = TSR_CUDA_TOLD / TSR_MAX_TOP_K, /* words */
    TOLD_PATIENCE = 1000000,                    /* ns */
};

static __device__ __forceinline__ uint64_t told_packet(uint32_t value, uint32_t number)
{
    return (uint64_t)number << 32 | value;
}

/* Where `tells`; the store is there in any case, not behind a branch, so that it comes from as near as the
 * code around it. */
static __device__ __forceinline__ void tell_id(uint64_t *told, int32_t slot, int32_t id,
                                               uint32_t number, bool tells)
{
    asm volatile("{ .reg .pred tells; setp.ne.u32 tells, %2, 0;"
                 " @tells st.relaxed.gpu.global.u64 [%0], %1; }" ::"l"(told + slot * TOLD_APART),
                 "l"(told_packet((uint32_t)id, number)), "r"((uint32_t)tells)
                 : "memory");
}

static __device__ __forceinline__ void tell_four(uint64_t *told, int32_t column, float4 v,
                                                 uint32_t number, bool tells)
{
    asm volatile("{ .reg .pred tells; setp.ne.u32 tells, %5, 0;"
                 " @tells st.relaxed.gpu.global.v2.u64 [%0], {%1, %2};"
                 " @tells st.relaxed.gpu.global.v2.u64 [%0 + 16], {%3, %4}; }" ::"l"(
                     told + TSR_CUDA_TOLD + column),
                 "l"(told_packet(__float_as_uint(v.x), number)),
                 "l"(told_packet(__float_as_uint(v.y), number)),
                 "l"(told_packet(__float_as_uint(v.z), number)),
                 "l"(told_packet(__float_as_uint(v.w), number)), "r"((uint32_t)tells)
                 : "memory");
}

#endif
