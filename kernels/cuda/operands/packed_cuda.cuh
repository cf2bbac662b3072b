/*
 * Weights as the kernels read them: in tiles of 16 rows, each in units of 512 bytes by ascending
 * columns, a unit in 16 bytes for each lane. What a lane gets is what it holds of the A operand of
 * mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"), and of wgmma's A in registers:
 *
 *   lane = 4 g + t    a0 = row g,     columns 2t, 2t+1       a2 = row g,     columns 2t+8, 2t+9
 *                     a1 = row g + 8, columns 2t, 2t+1       a3 = row g + 8, columns 2t+8, 2t+9
 *
 *   BF16, F16   a unit is 1 step of 16 columns     | a0 | a1 | a2 | a3 |
 *   E4M3    2 steps                            | a0 a1 | a2 a3 |  the same of the second  |
 *   E2M1    4 steps, a word each: a0 a0 in bytes 0 and 2, a1 a1 in 1 and 3, and in the other bits of
 *           these a2 a2, a3 a3; scales in an area of their own, 64 bytes for each unit: byte
 *           8 g + 2 step + r is that of row g + 8 r
 *
 *               | sign | a2 a3: e e m | a0 a1: e e m | sign of a2 a3 |      a byte of E2M1
 *
 * Everything becomes what the tensor cores take in registers, exactly: BF16 and F16 stay; E4M3 becomes
 * F16; E2M1 becomes F16 of 2^-14 of its value, the upper byte of which is such a byte without what is
 * not its own, then it is multiplied by its scale in F16: at most 6 bits, the lowest at 2^-24. 2^14 is
 * left for the end of the sum.
 */
#ifndef TSR_KERNELS_CUDA_OPERANDS_PACKED_CUDA_CUH
#define TSR_KERNELS_CUDA_OPERANDS_PACKED_CUDA_CUH

#include "kernels/cuda/device/device_cuda.cuh"

#include <cuda_fp16.h>

enum {
    PACKED_UNIT = 512,  /* bytes */
    PACKED_SCALES = 64, /* bytes of scales of a unit of E2M1 */
    PACKED_16_BIT_COLUMNS = 16,
    PACKED_E4M3_COLUMNS = 32,
    PACKED_E2M1_COLUMNS = 64,
};

/* Columns of a unit. */
static __host__ __device__ __forceinline__ constexpr int32_t
tsr_packed_columns(tsr_weight_format format)
{
    return format == TSR_WEIGHT_BF16 || format == TSR_WEIGHT_F16 ? PACKED_16_BIT_COLUMNS
           : format == TSR_WEIGHT_NVFP4                          ? PACKED_E2M1_COLUMNS
                                                                 : PACKED_E4M3_COLUMNS;
}

/* Rows of a weight in whole tiles, and of the scales of NVFP4, on their way to the device. */
tsr_status tsr_cuda_pack_rows(tsr_device *device, const tsr_linear *linear, void *weight,
                              const tsr_linear_rows *rows, tsr_stream s);
tsr_status tsr_cuda_pack_scales(tsr_device *device, const tsr_linear *linear, void *scales,
                                const tsr_linear_rows *rows, tsr_stream s);

/* A lane's share of a unit. */
typedef struct packed_unit {
    uint4 codes;
    uint2 scales; /* of E2M1: [step][row g, row g + 8] */
} packed_unit;

/* Read once: past the L1 cache. */
static __device__ __forceinline__ uint4 packed_load(const void *from)
{
    uint4 v;

    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

static __device__ __forceinline__ uint2 packed_load_scales(const void *from)
{
    uint2 v;

    asm volatile("ld.global.nc.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from));
    return v;
}

/* Four E4M3 codes to two pairs of F16. Halves are named, not shifted: the machine picks them. */
static __device__ __forceinline__ void packed_f16_of_e4m3(uint32_t codes, uint32_t *low,
                                                          uint32_t *high)
{
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2;"
        " cvt.rn.f16x2.e4m3x2 %0, l; cvt.rn.f16x2.e4m3x2 %1, h; }"
        : "=r"(*low), "=r"(*high)
        : "r"(codes));
}

/* Two pairs by the lower, and by the upper, of two factors. */
static __device__ __forceinline__ void packed_times(uint32_t factors, uint32_t *by_low,
                                                    uint32_t *by_high)
{
    asm("{ .reg .b16 l, h; .reg .b32 ll, hh; mov.b32 {l, h}, %2;"
        " mov.b32 ll, {l, l}; mov.b32 hh, {h, h};"
        " mul.rn.f16x2 %0, %0, ll; mul.rn.f16x2 %1, %1, hh; }"
        : "+r"(*by_low), "+r"(*by_high)
        : "r"(factors));
}

/* What is left of the values of a format when its operands are made: 2^14 waits for the epilogue. */
static __device__ __forceinline__ float packed_left(tsr_weight_format format)
{
    return format == TSR_WEIGHT_NVFP4 ? 0x1p14F : 1.0F;
}

/* A lane's operand of one step out of a unit; `step` is known when compiling. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void packed_operand(const packed_unit &u, int step, uint32_t a[4])
{
    const uint32_t word[4] = {u.codes.x, u.codes.y, u.codes.z, u.codes.w};

    if (FORMAT == TSR_WEIGHT_BF16 || FORMAT == TSR_WEIGHT_F16) {
        for (int i = 0; i < 4; i++)
            a[i] = word[i];
    } else if (FORMAT == TSR_WEIGHT_NVFP4) {
        uint32_t scales[2];
        const uint32_t upper = (word[step] >> 3 & 0x0e0e0e0eU) | (word[step] << 7 & 0x80808080U);
        a[0] = word[step] << 8 & 0x8e008e00U;
        a[1] = word[step] & 0x8e008e00U;
        a[2] = __byte_perm(upper, 0, 0x2404);
        a[3] = upper & 0xff00ff00U;
        packed_f16_of_e4m3(step < 2 ? u.scales.x : u.scales.y, &scales[0], &scales[1]);
        packed_times(scales[step % 2], &a[0], &a[1]);
        packed_times(scales[step % 2], &a[2], &a[3]);
    } else {
        packed_f16_of_e4m3(word[2 * step], &a[0], &a[1]);
        packed_f16_of_e4m3(word[2 * step + 1], &a[2], &a[3]);
    }
}

/* sum += A B over one step. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void packed_multiply(float sum[4], const uint32_t a[4],
                                                       uint32_t b0, uint32_t b1)
{
    if (FORMAT == TSR_WEIGHT_BF16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif
