/*
 * What moves while threads go on: barriers in shared memory, copies that arrive at them, clusters and
 * dependent launches. Addresses are those of the shared window.
 */
#ifndef TSR_KERNELS_CUDA_DEVICE_ASYNC_CUDA_CUH
#define TSR_KERNELS_CUDA_DEVICE_ASYNC_CUDA_CUH

#include <stdint.h>

static __device__ __forceinline__ uint32_t async_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

static __device__ __forceinline__ void barrier_open(uint32_t barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

/* What this thread opened is seen by copies. */
static __device__ __forceinline__ void barriers_opened(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

static __device__ __forceinline__ void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* For so many. */
static __device__ __forceinline__ void barrier_arrive_for(uint32_t barrier, uint32_t count)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(count)
                 : "memory");
}

/* Arrives, and has the barrier wait for so many bytes more. */
static __device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

static __device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n"
                 "}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* The same, of what other CTAs of the cluster do. */
static __device__ __forceinline__ void barrier_wait_cluster(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n"
                 "}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* How the second-level cache keeps what a step reads once, which is weights: it goes first, so that what
 * every layer reads (rows, tables, kernels' code) has more of it. */
static __device__ __forceinline__ uint64_t read_once(void)
{
    uint64_t policy;

    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

/* A multiple of 16 bytes that are read once; they count at the barrier. */
static __device__ __forceinline__ void copy_bulk_once(uint32_t to, const void *from, uint32_t bytes,
                                                      uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1], %2, [%3], %4;" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier), "l"(read_once())
                 : "memory");
}

/* Has the barrier wait for so many bytes more; whoever says so arrives later. */
static __device__ __forceinline__ void barrier_expect_more(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier),
                 "r"(bytes)
                 : "memory");
}

/* A multiple of 16 bytes; the bytes count at the barrier. */
static __device__ __forceinline__ void copy_bulk(uint32_t to, const void *from, uint32_t bytes,
                                                 uint32_t barrier)
{
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
        "[%3];" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier)
        : "memory");
}

/* A box of the tensor that `map` describes, from that column and row on; its bytes count at the barrier. */
static __device__ __forceinline__ void copy_box(uint32_t to, const void *map, int32_t column,
                                                int32_t row, uint32_t barrier)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(barrier)
                 : "memory");
}

/* The same to that place in each CTA of the cluster that `ctas` has a bit for, and to its barrier. */
static __device__ __forceinline__ void copy_box_to_all(uint32_t to, const void *map, int32_t column,
                                                       int32_t row, uint32_t barrier, uint16_t ctas)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(ctas)
                 : "memory");
}

static __device__ __forceinline__ void copy_16(uint32_t to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

/* What is read once. Not in the kernels that have gate, up and down at once: there ptxas 13.0 puts the
 * hint into a register that the copy cannot name (an illegal instruction), of NVFP4 and one row. */
static __device__ __forceinline__ void copy_16_once(uint32_t to, const void *from)
{
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(to),
                 "l"(from), "l"(read_once())
                 : "memory");
}

/* From so many bytes behind `from`. */
template <int BEHIND>
static __device__ __forceinline__ void copy_16_behind(uint32_t to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1 + %2], 16;" ::"r"(to), "l"(from), "n"(BEHIND)
                 : "memory");
}

static __device__ __forceinline__ void copy_4(uint32_t to, const void *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}

/* What this thread copied by copy_16 since it said so last goes together. */
static __device__ __forceinline__ void copies_end(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until all is there but what went together the last so many times. What was copied since copies_end was
 * said last is not waited for. */
template <int BUT> static __device__ __forceinline__ void copies_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(BUT) : "memory");
}

/* This thread arrives when all it copied by copy_16 and copy_4 is there. */
static __device__ __forceinline__ void copies_arrive(uint32_t barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/* What copy_16 brought is seen by what reads shared memory by itself. */
static __device__ __forceinline__ void copies_seen(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

static __device__ __forceinline__ uint4 shared_load_16(uint32_t at)
{
    uint4 v;

    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at));
    return v;
}

static __device__ __forceinline__ uint2 shared_load_8(uint32_t at)
{
    uint2 v;

    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at));
    return v;
}

static __device__ __forceinline__ void shared_store(uint32_t at, float v)
{
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(v) : "memory");
}

static __device__ __forceinline__ void shared_store_pair(uint32_t at, float low, float high)
{
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(at), "f"(low), "f"(high) : "memory");
}

static __device__ __forceinline__ uint32_t shared_load_word(uint32_t at)
{
    uint32_t v;

    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at));
    return v;
}

static __device__ __forceinline__ float shared_load(uint32_t at)
{
    float v;

    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(at) : "memory");
    return v;
}

static __device__ __forceinline__ float4 shared_load_sums(uint32_t at)
{
    float4 v;

    asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(at)
                 : "memory");
    return v;
}

/* Which CTA of its cluster this is, and which cluster of the grid; along x. */
static __device__ __forceinline__ int32_t cluster_cta(void)
{
    int32_t cta;

    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(cta));
    return cta;
}

static __device__ __forceinline__ int32_t cluster_index(void)
{
    int32_t cluster;

    asm("mov.u32 %0, %%clusterid.x;" : "=r"(cluster));
    return cluster;
}

/* All threads of the cluster meet; what they wrote to shared memory before is seen after. */
static __device__ __forceinline__ void cluster_meet(void)
{
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

/* Which of the cluster's CTAs this one is. */
static __device__ __forceinline__ uint32_t cluster_rank(void)
{
    uint32_t rank;

    asm("mov.u32 %0, %cluster_ctarank;" : "=r"(rank));
    return rank;
}

/* The same in two halves, by threads that need not be together. */
static __device__ __forceinline__ void cluster_arrive(void)
{
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}

/* Without a word about what was written. */
static __device__ __forceinline__ void cluster_arrive_relaxed(void)
{
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}

static __device__ __forceinline__ void cluster_await(void)
{
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

/* To that place in a CTA of the cluster; the bytes count at a barrier of that CTA. */
static __device__ __forceinline__ void cluster_send_16(uint32_t at, uint32_t barrier, uint32_t cta,
                                                       const float4 &v)
{
    asm volatile("{\n"
                 ".reg .b32 there, counts;\n"
                 "mapa.shared::cluster.u32 there, %0, %2;\n"
                 "mapa.shared::cluster.u32 counts, %1, %2;\n"
                 "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [there], "
                 "{%3,%4,%5,%6}, [counts];\n"
                 "}" ::"r"(at),
                 "r"(barrier), "r"(cta), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
                 : "memory");
}

static __device__ __forceinline__ void cluster_send_4(uint32_t at, uint32_t barrier, uint32_t cta,
                                                      float v)
{
    asm volatile("{\n"
                 ".reg .b32 there, counts;\n"
                 "mapa.shared::cluster.u32 there, %0, %2;\n"
                 "mapa.shared::cluster.u32 counts, %1, %2;\n"
                 "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [there], %3, "
                 "[counts];\n"
                 "}" ::"r"(at),
                 "r"(barrier), "r"(cta), "f"(v)
                 : "memory");
}

static __device__ __forceinline__ void cluster_send_8(uint32_t at, uint32_t barrier, uint32_t cta,
                                                      float low, float high)
{
    asm volatile("{\n"
                 ".reg .b32 there, counts;\n"
                 "mapa.shared::cluster.u32 there, %0, %2;\n"
                 "mapa.shared::cluster.u32 counts, %1, %2;\n"
                 "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [there], "
                 "{%3,%4}, [counts];\n"
                 "}" ::"r"(at),
                 "r"(barrier), "r"(cta), "f"(low), "f"(high)
                 : "memory");
}

/* So many arrive at a barrier of a CTA of the cluster, of who has only read: it waits for nothing that it
 * wrote. */
static __device__ __forceinline__ void cluster_barrier_arrive_read(uint32_t barrier, uint32_t cta,
                                                                   uint32_t count)
{
    asm volatile("{\n"
                 ".reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there], %2;\n"
                 "}" ::"r"(barrier),
                 "r"(cta), "r"(count)
                 : "memory");
}

#endif
