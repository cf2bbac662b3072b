/*
 * Attention over a cache of F32: nothing is rounded but by the sums themselves. All rows write their
 * keys and values, then a CTA of four warps attends for each (row, query head):
 *
 *   positions   | 0 .. 31 | 32 .. 63 | 64 .. 95 | 96 .. 127 | 128 .. |
 *   warp             0          1          2           3         0        online softmax of its own
 *
 *   a warp      scores: a position a lane; values: dims over the lanes, positions in order
 *   at the end  the four warps' sums, in order
 */
#include "kernels/cuda/attention/attend_cuda.cuh"

enum {
    WARPS = 4,
    THREADS = WARPS * TSR_CUDA_LANES,
    LANE_DIMS = TSR_CUDA_HEAD_DIM / TSR_CUDA_LANES,
    SPAN = 4, /* dims of a key that are read at once */
};

/* The sequence that a row belongs to, for the whole CTA; -1: none. */
static __device__ int32_t sequence_of(const tsr_attend_job &a, int32_t row)
{
    __shared__ int32_t found;

    if (threadIdx.x == 0)
        found = -1;
    __syncthreads();
    for (int32_t s = (int32_t)threadIdx.x; s < a.sequences; s += (int32_t)blockDim.x) {
        const int32_t first = a.sequence[s].first_row;
        if (row >= first && row < first + a.sequence[s].rows)
            found = s;
    }
    __syncthreads();
    return found;
}

static __global__ void write_kernel(const __grid_constant__ tsr_attend_job a,
                                    tsr_cuda_faults faults)
{
    const int32_t row = (int32_t)blockIdx.x;
    const int32_t dim = a.cache.head_dim;
    const int32_t width = a.cache.kv_heads * dim;

    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    const int32_t s = sequence_of(a, row);
    if (s < 0)
        return;
    const tsr_attention_sequence seq = a.sequence[s];
    const int32_t position = seq.first_position + row - seq.first_row;
    for (int32_t i = (int32_t)threadIdx.x; i < width; i += THREADS) {
        const int64_t at = tsr_cache_at(a, a.blocks + seq.first_block, position, i / dim) + i % dim;
        ((float *)a.cache.keys)[at] = a.k[(int64_t)row * width + i];
        ((float *)a.cache.values)[at] = a.v[(int64_t)row * width + i];
    }
}

/* q k^T of one position, dims in order. */
static __device__ float score_of(const tsr_attend_job &a, const float *query, int64_t at)
{
    const float *key = (const float *)a.cache.keys + at;
    float sum = 0.0F;

    for (int32_t d = 0; d < a.cache.head_dim; d += SPAN) {
        const float4 k = *(const float4 *)(key + d);
        sum = fmaf(query[d], k.x, sum);
        sum = fmaf(query[d + 1], k.y, sum);
        sum = fmaf(query[d + 2], k.z, sum);
        sum = fmaf(query[d + 3], k.w, sum);
    }
    return sum * a.score_scale;
}

/* What a warp has seen so far: the largest score, the sum of weights relative to it, and the
 * weighted values, dims lane + 32 i. */
typedef struct seen_so_far {
    float most;
    float total;
    float value[LANE_DIMS];
} seen_so_far;

/* Adds the positions first .. first + 31 that are below `end`; there is one. */
static __device__ void attend_span(const tsr_attend_job &a, const int32_t *table, int32_t kv_head,
                                   const float *query, int32_t first, int32_t end,
                                   seen_so_far *seen)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t count = min(end - first, (int32_t)TSR_CUDA_LANES);
    const bool mine = lane < count;
    const int64_t at = tsr_cache_at(a, table, min(first + lane, end - 1), kv_head);
    const float score = mine ? score_of(a, query, at) : -INFINITY;
    const float most = fmaxf(seen->most, tsr_warp_max(score));
    const float weight = mine ? exp2f(score - most) : 0.0F;
    const float before = exp2f(seen->most - most);

    seen->total = fmaf(seen->total, before, tsr_warp_sum(weight));
    seen->most = most;
    for (int i = 0; i < LANE_DIMS; i++)
        seen->value[i] *= before;
    for (int32_t j = 0; j < count; j++) {
        const float w = __shfl_sync(TSR_ALL_LANES, weight, j);
        const int64_t from = __shfl_sync(TSR_ALL_LANES, (long long)at, j);
#pragma unroll
        for (int i = 0; i < LANE_DIMS; i++) {
            const int32_t d = lane + TSR_CUDA_LANES * i;
            if (d < a.cache.head_dim)
                seen->value[i] = fmaf(w, ((const float *)a.cache.values)[from + d], seen->value[i]);
        }
    }
}

/* What the four warps leave, added up in order. */
typedef struct met {
    float value[WARPS][TSR_CUDA_HEAD_DIM];
    float most[WARPS];
    float total[WARPS];
} met;

static __device__ void finish(const tsr_attend_job &a, int32_t row, int32_t head, const met *m)
{
    float peak = m->most[0];
    float sum = 0.0F;
    float share[WARPS];

    for (int w = 1; w < WARPS; w++)
        peak = fmaxf(peak, m->most[w]);
    for (int w = 0; w < WARPS; w++) {
        share[w] = exp2f(m->most[w] - peak);
        sum = fmaf(m->total[w], share[w], sum);
    }
    if (threadIdx.x < TSR_CUDA_LANES && head == a.q_heads - 1)
        tsr_put_zeros(a, row);
    for (int32_t d = 2 * (int32_t)threadIdx.x; d < a.cache.head_dim; d += 2 * THREADS) {
        float out[2] = {0.0F, 0.0F};
        for (int w = 0; w < WARPS; w++) {
            out[0] = fmaf(m->value[w][d], share[w], out[0]);
            out[1] = fmaf(m->value[w][d + 1], share[w], out[1]);
        }
        tsr_put_pair(tsr_result_at(a, row, head, 0), d, out[0] / sum, out[1] / sum);
    }
}

static __global__ void __launch_bounds__(THREADS)
    attend_kernel(const __grid_constant__ tsr_attend_job a, tsr_cuda_faults faults)
{
    __shared__ float query[TSR_CUDA_HEAD_DIM];
    __shared__ met m;
    const int32_t row = (int32_t)blockIdx.x;
    const int32_t head = (int32_t)blockIdx.y;
    const int32_t dim = a.cache.head_dim;
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    seen_so_far seen = {-INFINITY, 0.0F, {}};

    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    const int32_t s = sequence_of(a, row);
    if (s < 0)
        return;
    for (int32_t d = (int32_t)threadIdx.x; d < dim; d += THREADS)
        query[d] = a.q[((int64_t)row * a.q_heads + head) * dim + d];
    __syncthreads();
    const tsr_attention_sequence seq = a.sequence[s];
    const int32_t end = seq.first_position + row - seq.first_row + 1;
    for (int32_t p = warp * TSR_CUDA_LANES; p < end; p += THREADS)
        attend_span(a, a.blocks + seq.first_block, head / (a.q_heads / a.cache.kv_heads), query, p,
                    end, &seen);
    for (int i = 0; i < LANE_DIMS; i++)
        m.value[warp][lane + TSR_CUDA_LANES * i] = seen.value[i];
    if (lane == 0) {
        m.most[warp] = seen.most;
        m.total[warp] = seen.total;
    }
    __syncthreads();
    finish(a, row, head, &m);
}

tsr_status tsr_attend_rows_exact(tsr_device *device, const tsr_attend_job *job, tsr_stream s)
{
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    const tsr_cuda_launch_shape write = {dim3((unsigned)job->tokens), THREADS, 0, stream, 0};
    const tsr_cuda_launch_shape attend = {dim3((unsigned)job->tokens, (unsigned)job->q_heads),
                                          THREADS, 0, stream, 0};
    const tsr_cuda_faults faults = tsr_cuda(device)->faults;
    tsr_status st = tsr_launch_behind(write, write_kernel, *job, faults);

    if (st == TSR_OK)
        st = tsr_launch_behind(attend, attend_kernel, *job, faults);
    return st;
}
