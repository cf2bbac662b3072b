/*
 * A warpgroup's product: 64 rows of a weight, in registers, with N tokens in shared memory.
 *
 *   weight   warp w holds rows 16 w .. of them, as A of mma.m16n8k16 (packed_cuda.cuh)
 *   tokens   128 bytes (64 columns) each, 8 of them 1 KiB; 16-byte piece p of token t stands at p ^ t % 8
 *   sums     a lane's 4 j + 2 r + e: row lane / 4 + 8 r of the warp's, token 8 j + 2 (lane % 4) + e
 *
 * On Hopper by wgmma, which goes on while threads do; elsewhere by mma.sync with the same bits.
 */
#ifndef TSR_KERNELS_CUDA_DEVICE_WGMMA_CUDA_CUH
#define TSR_KERNELS_CUDA_DEVICE_WGMMA_CUDA_CUH

#include <stdint.h>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define WGMMA_HARDWARE 1
#else
#define WGMMA_HARDWARE 0
#endif

/* Registers that instructions under way read or write: not to be touched before they are done. */
template <int COUNT> static __device__ __forceinline__ void wgmma_hold(float (&sum)[COUNT])
{
    for (int i = 0; i < COUNT; i++)
        asm volatile("" : "+f"(sum[i])::"memory");
}

template <int COUNT> static __device__ __forceinline__ void wgmma_hold(uint32_t (&a)[COUNT])
{
    for (int i = 0; i < COUNT; i++)
        asm volatile("" : "+r"(a[i])::"memory");
}

/* How far it is from 16 columns of tokens to the next, as wgmma_tokens counts. */
enum { WGMMA_UNIT = WGMMA_HARDWARE ? 16 : 1, WGMMA_STEP = 32 / WGMMA_UNIT };

#if WGMMA_HARDWARE

static __device__ __forceinline__ void wgmma_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until all but the last LEFT groups are done. */
template <int LEFT> static __device__ __forceinline__ void wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

/* The lower word of what describes tokens: swizzled by 128 bytes, 1 KiB from 8 of them to the next 8. */
static __device__ __forceinline__ uint32_t wgmma_tokens(uint32_t at)
{
    return (at >> 4 & 0x3fffU) | 1U << 16;
}

/* The sums as operands of the instruction, and their names in its text. */
#define WGMMA_4(i)     "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define WGMMA_8(i)     WGMMA_4(i), WGMMA_4(i + 4)
#define WGMMA_SUMS_8   WGMMA_8(0)
#define WGMMA_SUMS_16  WGMMA_SUMS_8, WGMMA_8(8)
#define WGMMA_SUMS_24  WGMMA_SUMS_16, WGMMA_8(16)
#define WGMMA_SUMS_32  WGMMA_SUMS_24, WGMMA_8(24)
#define WGMMA_SUMS_40  WGMMA_SUMS_32, WGMMA_8(32)
#define WGMMA_SUMS_48  WGMMA_SUMS_40, WGMMA_8(40)
#define WGMMA_SUMS_56  WGMMA_SUMS_48, WGMMA_8(48)
#define WGMMA_SUMS_64  WGMMA_SUMS_56, WGMMA_8(56)
#define WGMMA_NAMES_8  "%0,%1,%2,%3,%4,%5,%6,%7"
#define WGMMA_NAMES_16 WGMMA_NAMES_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define WGMMA_NAMES_24 WGMMA_NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define WGMMA_NAMES_32 WGMMA_NAMES_24 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_NAMES_40 WGMMA_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define WGMMA_NAMES_48 WGMMA_NAMES_40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define WGMMA_NAMES_56 WGMMA_NAMES_48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define WGMMA_NAMES_64 WGMMA_NAMES_56 ",%56,%57,%58,%59,%60,%61,%62,%63"

/* The rest of its operands follow the sums: a0..a3 and the tokens. */
#define WGMMA_RUN(n, type, names, a0, a1, a2, a3, b, ...)                                          \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" names         \
                 "}, {%" a0 ",%" a1 ",%" a2 ",%" a3 "}, %" b ", 1, 1, 1, 0;"                       \
                 : __VA_ARGS__                                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(tokens))

#define WGMMA_RUN_16(type)                                                                         \
    WGMMA_RUN("16", type, WGMMA_NAMES_8, "8", "9", "10", "11", "12", WGMMA_SUMS_8)
#define WGMMA_RUN_32(type)                                                                         \
    WGMMA_RUN("32", type, WGMMA_NAMES_16, "16", "17", "18", "19", "20", WGMMA_SUMS_16)
#define WGMMA_RUN_48(type)                                                                         \
    WGMMA_RUN("48", type, WGMMA_NAMES_24, "24", "25", "26", "27", "28", WGMMA_SUMS_24)
#define WGMMA_RUN_64(type)                                                                         \
    WGMMA_RUN("64", type, WGMMA_NAMES_32, "32", "33", "34", "35", "36", WGMMA_SUMS_32)
#define WGMMA_RUN_80(type)                                                                         \
    WGMMA_RUN("80", type, WGMMA_NAMES_40, "40", "41", "42", "43", "44", WGMMA_SUMS_40)
#define WGMMA_RUN_96(type)                                                                         \
    WGMMA_RUN("96", type, WGMMA_NAMES_48, "48", "49", "50", "51", "52", WGMMA_SUMS_48)
#define WGMMA_RUN_112(type)                                                                        \
    WGMMA_RUN("112", type, WGMMA_NAMES_56, "56", "57", "58", "59", "60", WGMMA_SUMS_56)
#define WGMMA_RUN_128(type)                                                                        \
    WGMMA_RUN("128", type, WGMMA_NAMES_64, "64", "65", "66", "67", "68", WGMMA_SUMS_64)

/* sum += A B over 16 columns, of the first N tokens. */
template <bool F16, int N, int COUNT>
static __device__ __forceinline__ void wgmma_multiply(float (&sum)[COUNT], const uint32_t *a,
                                                      uint32_t described)
{
    const uint64_t tokens = described | 64ULL << 32 | 1ULL << 62;

    if constexpr (N == 16 && F16)
        WGMMA_RUN_16("f16");
    else if constexpr (N == 16)
        WGMMA_RUN_16("bf16");
    else if constexpr (N == 32 && F16)
        WGMMA_RUN_32("f16");
    else if constexpr (N == 32)
        WGMMA_RUN_32("bf16");
    else if constexpr (N == 48 && F16)
        WGMMA_RUN_48("f16");
    else if constexpr (N == 48)
        WGMMA_RUN_48("bf16");
    else if constexpr (N == 64 && F16)
        WGMMA_RUN_64("f16");
    else if constexpr (N == 64)
        WGMMA_RUN_64("bf16");
    else if constexpr (N == 80 && F16)
        WGMMA_RUN_80("f16");
    else if constexpr (N == 80)
        WGMMA_RUN_80("bf16");
    else if constexpr (N == 96 && F16)
        WGMMA_RUN_96("f16");
    else if constexpr (N == 96)
        WGMMA_RUN_96("bf16");
    else if constexpr (N == 112 && F16)
        WGMMA_RUN_112("f16");
    else if constexpr (N == 112)
        WGMMA_RUN_112("bf16");
    else if constexpr (N == 128 && F16)
        WGMMA_RUN_128("f16");
    else if constexpr (N == 128)
        WGMMA_RUN_128("bf16");
}

/* Threads of a warpgroup that need more registers, or fewer, than they were launched with. */
template <int COUNT> static __device__ __forceinline__ void wgmma_more_registers(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> static __device__ __forceinline__ void wgmma_fewer_registers(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

#else

static __device__ __forceinline__ void wgmma_begin(void)
{
}

static __device__ __forceinline__ void wgmma_commit(void)
{
}

template <int LEFT> static __device__ __forceinline__ void wgmma_wait(void)
{
}

template <int COUNT> static __device__ __forceinline__ void wgmma_more_registers(void)
{
}

template <int COUNT> static __device__ __forceinline__ void wgmma_fewer_registers(void)
{
}

template <bool F16>
static __device__ __forceinline__ void wgmma_step(float *sum, const uint32_t *a, uint32_t b0,
                                                  uint32_t b1)
{
    if (F16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* They are where they are. */
static __device__ __forceinline__ uint32_t wgmma_tokens(uint32_t at)
{
    return at;
}

static __device__ __forceinline__ uint32_t wgmma_word(uint32_t at)
{
    uint32_t v;

    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at));
    return v;
}

template <bool F16, int N, int COUNT>
static __device__ __forceinline__ void wgmma_multiply(float (&sum)[COUNT], const uint32_t *a,
                                                      uint32_t tokens_at)
{
    const uint32_t token = threadIdx.x % 32 / 4;
    const uint32_t within = tokens_at % 128 + threadIdx.x % 4 * 4; /* bytes of its row */
    const uint32_t row_at = tokens_at - tokens_at % 128 + token * 128;
    const uint32_t first_at = row_at + (within ^ token * 16);
    const uint32_t second_at = row_at + ((within + 16) ^ token * 16);

#pragma unroll
    for (int j = 0; j < N / 8; j++)
        wgmma_step<F16>(sum + 4 * j, a, wgmma_word(first_at + 1024 * j),
                        wgmma_word(second_at + 1024 * j));
}

#endif

#endif
