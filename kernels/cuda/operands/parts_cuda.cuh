/* Where rows lie that have no one place: answers that go to other GPUs as they are computed. */
#ifndef TSR_KERNELS_CUDA_OPERANDS_PARTS_CUDA_CUH
#define TSR_KERNELS_CUDA_OPERANDS_PARTS_CUDA_CUH

#include <stddef.h>
#include <stdint.h>

/* Rows that lie in parts: number n is row n % 2^bits of part n >> bits. */
typedef struct tsr_cuda_parts {
    float *const *part; /* NULL: rows lie one behind the other */
    int32_t bits;
} tsr_cuda_parts;

/* Row `number` of so many values, of `y` where there are no parts. */
static __device__ __forceinline__ float *tsr_cuda_row(const tsr_cuda_parts &into, float *y,
                                                      int32_t number, int64_t stride)
{
    if (into.part == NULL)
        return y + number * stride;
    return into.part[number >> into.bits] + (number & ((1 << into.bits) - 1)) * stride;
}

#endif
