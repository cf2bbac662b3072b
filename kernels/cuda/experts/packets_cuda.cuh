/*
 * Gate, up and down in one kernel, whose CTAs give each other the values between as packets of a value and
 * the launch's number:
 *
 *   packets [slot][I]   | value, number | value, number | ..     read until all have this launch's
 *
 * so that a value is there as soon as it is seen, and nothing has to be cleared. All CTAs have to be there
 * at once; who waits in vain leaves a fault.
 */
#ifndef TSR_KERNELS_CUDA_EXPERTS_PACKETS_CUDA_CUH
#define TSR_KERNELS_CUDA_EXPERTS_PACKETS_CUDA_CUH

#include "kernels/cuda/device/number_cuda.cuh"
#include "kernels/cuda/experts/tiles_cuda.cuh"
#include "kernels/cuda/operands/pairs_cuda.cuh"

enum {
    PACKET_LINEARS = 3,
    PACKET_SECONDS = 4, /* that a value is awaited */
};

/* What is needed of an expert: of gate, up and down. */
typedef struct packet_expert {
    const unsigned char *codes[PACKET_LINEARS];
    const unsigned char *scales[PACKET_LINEARS];
    const float *bias[PACKET_LINEARS];
    const float4 *factor[2]; /* of operand rows, or NULL: of gate and up, of down */
    float weight_scale[PACKET_LINEARS];
    float input_scale[2];
} packet_expert;

/* Tables of all experts here, which no kernel in front writes. */
static __device__ __forceinline__ void packet_tables(const pair_args &pairs, const tsr_mlp *mlps,
                                                     packet_expert *experts, int32_t *local_of)
{
#pragma unroll 1
    for (int32_t e = (int32_t)threadIdx.x; e < pairs.local; e += (int32_t)blockDim.x) {
        const tsr_linear *l = &mlps[e].gate; /* up and down lie behind it */
        packet_expert near;
#pragma unroll
        for (int i = 0; i < PACKET_LINEARS; i++) {
            near.codes[i] = (const unsigned char *)l[i].weight;
            near.scales[i] = (const unsigned char *)l[i].scales;
            near.bias[i] = l[i].bias;
            near.weight_scale[i] = l[i].weight_scale;
        }
        near.factor[0] = (const float4 *)(const void *)l[0].pre_quant_scale;
        near.factor[1] = (const float4 *)(const void *)l[2].pre_quant_scale;
        near.input_scale[0] = l[0].input_scale;
        near.input_scale[1] = l[2].input_scale;
        experts[e] = near;
    }
#pragma unroll 1
    for (int32_t e = (int32_t)threadIdx.x; e < pairs.experts; e += (int32_t)blockDim.x)
        local_of[e] = pairs.local_of[e];
}

/* One CTA more has seen the launch's number, or needs none. The last one counts it on. */
static __device__ __forceinline__ void packet_number_seen(uint32_t *number)
{
    const uint32_t ctas = gridDim.x * gridDim.y;

    if (atomicInc(number + 1, ctas - 1) == ctas - 1)
        atomicAdd(number, 1);
}

/* What a row that becomes E4M3 is divided by. */
static __device__ __noinline__ float packet_scale(tsr_activation activation, float input_scale,
                                                  float most)
{
    return activation == TSR_ACTIVATION_FP8 ? input_scale : most / 448.0F;
}

static __device__ __noinline__ void packet_leave_fault(tsr_cuda_faults faults, tsr_fault fault)
{
    tsr_leave_fault(faults, fault);
}

/* 1 / x of a power of two; 0 of infinity. */
static __device__ __forceinline__ float packet_inverse(float x)
{
    return __int_as_float(max(0x7f000000 - __float_as_int(x), 0));
}

typedef struct packet_pair {
    uint64_t two[2];
} packet_pair;

static __device__ __forceinline__ void packet_send(uint64_t *to, float value, uint32_t number)
{
    const uint64_t packet = (uint64_t)number << 32 | __float_as_uint(value);

    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"(packet) : "memory");
}

static __device__ __forceinline__ packet_pair packet_look(const uint64_t *from)
{
    packet_pair p;

    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];"
                 : "=l"(p.two[0]), "=l"(p.two[1])
                 : "l"(from)
                 : "memory");
    return p;
}

static __device__ __forceinline__ uint64_t packet_clock(void)
{
    uint64_t ns;

    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns)::"memory");
    return ns;
}

/* Four values, if all have been computed. */
static __device__ __forceinline__ bool packet_four(const uint64_t *from, uint32_t number,
                                                   float4 *ret_four)
{
    const packet_pair p = packet_look(from);
    const packet_pair q = packet_look(from + 2);

    *ret_four =
        make_float4(__uint_as_float((uint32_t)p.two[0]), __uint_as_float((uint32_t)p.two[1]),
                    __uint_as_float((uint32_t)q.two[0]), __uint_as_float((uint32_t)q.two[1]));
    return (uint32_t)(p.two[0] >> 32) == number && (uint32_t)(p.two[1] >> 32) == number &&
           (uint32_t)(q.two[0] >> 32) == number && (uint32_t)(q.two[1] >> 32) == number;
}

/* The same, once they have. False: they were not in time. */
static __device__ __forceinline__ bool packet_await_four(const uint64_t *from, uint32_t number,
                                                         uint64_t ns, float4 *ret_four)
{
    const uint64_t late = packet_clock() + ns;

    while (!packet_four(from, number, ret_four)) {
        if (packet_clock() > late)
            return false;
    }
    return true;
}

static __device__ __forceinline__ bool packet_await(const uint64_t *from, uint32_t number,
                                                    uint64_t ns, uint32_t *ret_value)
{
    const uint64_t late = packet_clock() + ns;
    uint64_t packet;

    do {
        asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(packet) : "l"(from) : "memory");
        *ret_value = (uint32_t)packet;
        if ((uint32_t)(packet >> 32) == number)
            return true;
    } while (packet_clock() < late);
    return false;
}

/* ---- on the host ---- */

/* What both kernels of this kind take of a product, whatever they have room for. */
static inline bool packet_takes(const tsr_cuda_tiles *t)
{
    return (t->format == TSR_WEIGHT_NVFP4 || t->format == TSR_WEIGHT_FP8 ||
            t->format == TSR_WEIGHT_FP8_CHANNEL) &&
           t->x != NULL && !t->grouped && t->in % 4 == 0;
}

/* The next so many bytes of a CTA's dynamic shared memory. */
static inline int32_t packet_room(int32_t *end, size_t bytes)
{
    const int32_t at = *end;

    *end += (int32_t)tsr_aligned(bytes, 128);
    return at;
}

static inline tsr_status packet_prepare(const void *kernel, size_t most_bytes)
{
    return TSR_CUDA(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)most_bytes));
}

#endif
