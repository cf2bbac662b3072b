/*
 * Values over a scale, rounded to E4M3 and kept in F16: the bits of tsr_round_e4m3(x / scale), with five
 * operations a quotient instead of some twenty-five. By a scale of 0, which no checkpoint may have, zeros.
 *
 *   r = 1 / s,   q = x r,   q + r (x - s q)      the remainder by one fused operation
 *
 * is the quotient before rounding within 3 * 2^-24 of a unit in its last place. A code depends on the
 * rounded quotient only where that stands on one of the borders between codes, which have five bits. So
 * both can only differ where x / s is so near the middle between a border and the next float: with s = S
 * 2^a, S of 24 bits, that is where S is within 6 of a multiple of 2^20 but none (x has 24 bits, too). Such
 * scales, and those with which something leaves the range of floats, divide.
 */
#ifndef TSR_KERNELS_CUDA_DEVICE_E4M3_CUDA_CUH
#define TSR_KERNELS_CUDA_DEVICE_E4M3_CUDA_CUH

#include "kernels/cuda/device/number_cuda.cuh"

typedef struct tsr_divisor {
    float by;
    float inverse; /* 0: divide */
} tsr_divisor;

static __device__ __forceinline__ tsr_divisor tsr_divisor_of(float by)
{
    const uint32_t step = 1U << 20;
    const uint32_t near = 32; /* more than 6: a reciprocal may be a hair off */
    const uint32_t beyond = (__float_as_uint(by) + near) & (step - 1);
    const bool is_safe = by >= 0x1p-60F && by <= 0x1p60F && (beyond > 2 * near || beyond == near);
    tsr_divisor d = {by, 0.0F};
    float r;

    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(by));
    r = fmaf(fmaf(-by, r, 1.0F), r, r);
    if (is_safe)
        d.inverse = r;
    return d;
}

/* Beyond 448 all quotients are alike: bounded ones stay in range, and NaN comes back with x. */
static __device__ __forceinline__ float tsr_quotient(float x, tsr_divisor d)
{
    const float most = 1024.0F;
    const float q = fminf(fmaxf(x * d.inverse, -most), most);

    return fmaf(fmaf(-q, d.by, x), d.inverse, q);
}

/* Two quotients; zeros are positive, as tsr_round_e4m3 has them. */
static __device__ __forceinline__ uint32_t tsr_e4m3_pair(float low, float high, tsr_divisor d)
{
    uint32_t pair;

    asm("{ .reg .b16 codes; .reg .b32 zeros;"
        " cvt.rn.satfinite.e4m3x2.f32 codes, %2, %1;"
        " cvt.rn.f16x2.e4m3x2 %0, codes;"
        " mov.b32 zeros, 0; add.rn.f16x2 %0, %0, zeros; }"
        : "=r"(pair)
        : "f"(tsr_quotient(low, d)), "f"(tsr_quotient(high, d)));
    return pair;
}

static __device__ __forceinline__ uint32_t tsr_e4m3_pair_divided(float low, float high, float by)
{
    const uint32_t l = __half_as_ushort(__float2half_rn(tsr_round_e4m3(low / by)));
    const uint32_t h = __half_as_ushort(__float2half_rn(tsr_round_e4m3(high / by)));

    return by == 0.0F ? 0 : l | h << 16;
}

static __device__ __forceinline__ uint2 tsr_e4m3_four_quick(float4 v, tsr_divisor d)
{
    return make_uint2(tsr_e4m3_pair(v.x, v.y, d), tsr_e4m3_pair(v.z, v.w, d));
}

static __device__ __forceinline__ uint2 tsr_e4m3_four_divided(float4 v, float by)
{
    return make_uint2(tsr_e4m3_pair_divided(v.x, v.y, by), tsr_e4m3_pair_divided(v.z, v.w, by));
}

/* Four values. */
static __device__ __forceinline__ uint2 tsr_e4m3_four(float4 v, tsr_divisor d)
{
    return d.inverse != 0.0F ? tsr_e4m3_four_quick(v, d) : tsr_e4m3_four_divided(v, d.by);
}

static __device__ __noinline__ uint2 tsr_e4m3_four_seldom(float4 v, float by)
{
    return tsr_e4m3_four_divided(v, by);
}

/* The same, where what is seldom done is out of the way. */
static __device__ __forceinline__ uint2 tsr_e4m3_four_near(float4 v, tsr_divisor d)
{
    return d.inverse != 0.0F ? tsr_e4m3_four_quick(v, d) : tsr_e4m3_four_seldom(v, d.by);
}

/* The same: what takes more code, where it runs once, has it once. */
static __device__ __noinline__ uint2 tsr_e4m3_four_once(float4 v, float by)
{
    return tsr_e4m3_four(v, tsr_divisor_of(by));
}

#endif
