/*
 * The small number formats on a GPU: what numeric.h and lane_math.h define, one value or a pair at a
 * time. Conversions to BF16 round to nearest, ties to even; everything else here is exact.
 */
#ifndef TSR_KERNELS_CUDA_DEVICE_NUMBER_CUDA_CUH
#define TSR_KERNELS_CUDA_DEVICE_NUMBER_CUDA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <stdint.h>

static __device__ __forceinline__ float tsr_from_bf16(uint16_t code)
{
    return __uint_as_float((uint32_t)code << 16);
}

static __device__ __forceinline__ uint16_t tsr_to_bf16(float x)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

/* `low` in the lower half. */
static __device__ __forceinline__ uint32_t tsr_to_bf16_pair(float low, float high)
{
    return (uint32_t)tsr_to_bf16(low) | (uint32_t)tsr_to_bf16(high) << 16;
}

static __device__ __forceinline__ float tsr_from_f16(uint16_t code)
{
    return __half2float(__ushort_as_half(code));
}

/* Two codes to two values: every e4m3 value is one of f16. */
static __device__ __forceinline__ float2 tsr_from_e4m3_pair(uint32_t codes)
{
    const __half2_raw raw =
        __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)(codes & 0xffffU), __NV_E4M3);

    return make_float2(tsr_from_f16(raw.x), tsr_from_f16(raw.y));
}

/* Saturates at 448. */
static __device__ __forceinline__ uint8_t tsr_to_e4m3(float x)
{
    return (uint8_t)__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}

/* The largest power of two that is not above |x|; 0 of subnormals. */
static __device__ __forceinline__ float tsr_power_below(float x)
{
    return __uint_as_float(__float_as_uint(x) & 0x7f800000U);
}

/* Adding and taking away a large number leaves the bits that a format has (lane_math.h). */
static __device__ __forceinline__ float tsr_round_at(float x, float rounder)
{
    return __fsub_rn(__fadd_rn(x, rounder), rounder);
}

/* Between -most and most; NaN stays NaN. */
static __device__ __forceinline__ float tsr_bounded(float x, float most)
{
    const float low = x > most ? most : x;

    return low < -most ? -most : low;
}

/* The nearest e4m3 value, ties to even, saturated at 448. */
static __device__ __forceinline__ float tsr_round_e4m3(float value)
{
    const float x = tsr_bounded(value, 448.0F);
    const float power = fmaxf(tsr_power_below(x), 0x1p-6F);

    return tsr_round_at(x, power * 0x1.8p20F);
}

/* The nearest e2m1 value, ties to even, saturated at 6. */
static __device__ __forceinline__ float tsr_round_e2m1(float value)
{
    const float x = tsr_bounded(value, 6.0F);
    const float power = fmaxf(tsr_power_below(x), 1.0F);

    return tsr_round_at(x, power * 0x1.8p22F);
}

static __device__ __forceinline__ float tsr_sigmoid(float x)
{
    const float e = expf(-fabsf(x));

    return (x < 0.0F ? e : 1.0F) / (1.0F + e);
}

/* x times its sigmoid, by a reciprocal that is one unit off at most: this is done of every value between
 * gate and down. */
static __device__ __forceinline__ float tsr_silu(float x)
{
    const float e = expf(-fabsf(x));

    return __fdividef(x < 0.0F ? __fmul_rn(x, e) : x, 1.0F + e);
}

#endif
