/*
 * The threads that share a row of logits: a cluster of CTAs, and how they add up and compare.
 *
 *   thread -> warp -> CTA -> cluster        each exchange in the order of ids, so that sums keep theirs
 */
#ifndef TSR_KERNELS_CUDA_SAMPLE_SAMPLE_TEAM_CUDA_CUH
#define TSR_KERNELS_CUDA_SAMPLE_SAMPLE_TEAM_CUDA_CUH

#include "kernels/cuda/device/block_cuda.cuh"

#include <cooperative_groups.h>

enum {
    SAMPLE_CTAS = 8, /* of a cluster */
    SAMPLE_THREADS = 512,
    SAMPLE_WARPS = SAMPLE_THREADS / TSR_CUDA_LANES
};

/* What threads and CTAs tell each other: numbers of the warps of this CTA, and of all CTAs, which
 * write them here; those of one exchange stay until the next but one. */
typedef struct sample_memory {
    uint64_t warp[SAMPLE_WARPS];
    uint64_t part[2][SAMPLE_CTAS];
} sample_memory;

/* A thread's way to the others. */
typedef struct sample_team {
    sample_memory *memory;
    int32_t turn;
} sample_team;

/* `mine` of every CTA, by rank, given by its first threads. */
static __device__ const uint64_t *parts_of_all(sample_team *t, uint64_t mine)
{
    const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();

    t->turn ^= 1;
    uint64_t *part = t->memory->part[t->turn];
    if (threadIdx.x < SAMPLE_CTAS)
        cluster.map_shared_rank(part, threadIdx.x)[cluster.block_rank()] = mine;
    cluster.sync();
    return part;
}

/* What the lanes of the first warp find in front of them: a number of each warp. */
static __device__ __forceinline__ uint64_t tell_warp(sample_team *t, uint64_t mine, uint64_t none)
{
    if (threadIdx.x % TSR_CUDA_LANES == 0)
        t->memory->warp[threadIdx.x / TSR_CUDA_LANES] = mine;
    __syncthreads();
    return threadIdx.x < SAMPLE_WARPS ? t->memory->warp[threadIdx.x] : none;
}

static __device__ __forceinline__ double warp_sum_of(double x)
{
    for (int apart = TSR_CUDA_LANES / 2; apart > 0; apart /= 2)
        x += __shfl_xor_sync(TSR_ALL_LANES, x, apart);
    return x;
}

static __device__ __forceinline__ double as_double(uint64_t bits)
{
    return __longlong_as_double((long long)bits);
}

static __device__ __forceinline__ uint64_t as_bits(double x)
{
    return (uint64_t)__double_as_longlong(x);
}

/* The sum of all threads' numbers; all get it. */
static __device__ double sum_of_all(sample_team *t, double x)
{
    double sum = as_double(tell_warp(t, as_bits(warp_sum_of(x)), 0));

    if (threadIdx.x < TSR_CUDA_LANES)
        sum = warp_sum_of(sum);
    const uint64_t *part = parts_of_all(t, as_bits(sum));
    sum = 0.0;
    for (int c = 0; c < SAMPLE_CTAS; c++)
        sum += as_double(part[c]);
    return sum;
}

static __device__ __forceinline__ uint64_t warp_most_of(uint64_t x)
{
    for (int apart = TSR_CUDA_LANES / 2; apart > 0; apart /= 2)
        x = max(x, __shfl_xor_sync(TSR_ALL_LANES, x, apart));
    return x;
}

/* The largest of all threads' numbers; all get it. */
static __device__ uint64_t most_of_all(sample_team *t, uint64_t x)
{
    uint64_t most = tell_warp(t, warp_most_of(x), 0);

    if (threadIdx.x < TSR_CUDA_LANES)
        most = warp_most_of(most);
    const uint64_t *part = parts_of_all(t, most);
    most = 0;
    for (int c = 0; c < SAMPLE_CTAS; c++)
        most = max(most, part[c]);
    return most;
}

/* The sum over the threads in front of this one, all CTAs in the order of their ids. */
static __device__ double sum_before(sample_team *t, double x)
{
    const uint32_t lane = threadIdx.x % TSR_CUDA_LANES;
    const uint32_t warp = threadIdx.x / TSR_CUDA_LANES;
    const unsigned rank = cooperative_groups::this_cluster().block_rank();
    double within = x;
    double before = 0.0;

    for (unsigned apart = 1; apart < TSR_CUDA_LANES; apart *= 2) {
        const double other = __shfl_up_sync(TSR_ALL_LANES, within, apart);
        within += lane >= apart ? other : 0.0;
    }
    const double all = __shfl_sync(TSR_ALL_LANES, within, TSR_CUDA_LANES - 1);
    within = __shfl_up_sync(TSR_ALL_LANES, within, 1);
    const double of_warp = as_double(tell_warp(t, as_bits(all), 0));
    double of_cta = threadIdx.x < TSR_CUDA_LANES ? warp_sum_of(of_warp) : 0.0;
    for (uint32_t w = 0; w < warp; w++)
        before += as_double(t->memory->warp[w]);
    const uint64_t *part = parts_of_all(t, as_bits(of_cta));
    of_cta = 0.0;
    for (unsigned c = 0; c < rank; c++)
        of_cta += as_double(part[c]);
    return of_cta + before + (lane > 0 ? within : 0.0);
}

/* Exact in double. */
static __device__ int32_t count_of_all(sample_team *t, int32_t x)
{
    return (int32_t)sum_of_all(t, (double)x);
}

#endif
