/*
 * Attention over the paged cache. First all sequences are looked at, then all rows write their keys
 * and values, then a CTA of four warps attends for each (row, query head):
 *
 *   positions   | 0 .. 31 | 32 .. 63 | 64 .. 95 | 96 .. 127 | 128 .. |
 *   warp             0          1          2           3         0        online softmax of its own
 *
 *   a warp      scores: a position a lane; values: dims over the lanes, positions in order
 *   at the end  the four warps' sums, in order
 *
 * Positions are absolute: nothing depends on the block size, the chunk a position came in, or the
 * rows beside it.
 */
#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"

enum {
    ATTEND_WARPS = 4,
    ATTEND_THREADS = ATTEND_WARPS * TSR_CUDA_LANES,
    LANE_DIMS = TSR_CUDA_HEAD_DIM / TSR_CUDA_LANES,
    SPAN = 8, /* elements of a key that are read at once */
};

typedef struct attend_args {
    float *out;
    const float *q;
    const float *k;
    const float *v;
    tsr_kv_layer cache;
    const tsr_attention_sequence *sequence;
    const int32_t *blocks;
    int32_t sequences;
    int32_t tokens;
    int32_t q_heads;
    int32_t max_context;
    float score_scale; /* of q k^T */
    float value_scale;
} attend_args;

static __device__ int32_t clamped(int64_t count)
{
    if (count < INT32_MIN)
        return INT32_MIN;
    return count > INT32_MAX ? INT32_MAX : (int32_t)count;
}

/* What is wrong with a sequence, or a fault of no kind. */
static __device__ tsr_fault fault_of(const attend_args &a, int32_t s)
{
    const tsr_attention_sequence seq = a.sequence[s];
    const int64_t end = (int64_t)seq.first_position + seq.rows;
    tsr_fault fault = {TSR_FAULT_NONE, s, 0, 0, 0};

    if (seq.rows < 0 || seq.first_row < 0 || seq.first_row > a.tokens - seq.rows ||
        seq.first_position < 0 || end > a.max_context || seq.first_block < 0) {
        fault.kind = TSR_FAULT_SEQUENCE;
        fault.slot = clamped((int64_t)seq.first_row + seq.rows);
        fault.value = clamped(end);
        fault.limit = a.max_context;
        return fault;
    }
    for (int64_t b = 0; seq.rows > 0 && b * a.cache.block_tokens < end; b++) {
        const int32_t block = a.blocks[seq.first_block + b];
        if (block < 0 || block >= a.cache.blocks) {
            fault.kind = TSR_FAULT_BLOCK;
            fault.value = block;
            fault.limit = a.cache.blocks;
            return fault;
        }
    }
    return fault;
}

static __global__ void check_kernel(attend_args a, tsr_cuda_faults faults)
{
    int32_t wrong = INT32_MAX;

    for (int32_t s = (int32_t)threadIdx.x; s < a.sequences && wrong == INT32_MAX;
         s += TSR_CUDA_THREADS) {
        if (fault_of(a, s).kind != TSR_FAULT_NONE)
            wrong = s;
    }
    wrong = tsr_cta_least(wrong);
    if (wrong != INT32_MAX && threadIdx.x == 0)
        tsr_leave_fault(faults, fault_of(a, wrong));
}

/* The sequence that a row belongs to, for the whole CTA; -1: none. */
static __device__ int32_t sequence_of(const attend_args &a, int32_t row)
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

/* The element of the cache where a position of a kv head begins. */
static __device__ __forceinline__ int64_t place_of(const attend_args &a,
                                                   const tsr_attention_sequence &seq,
                                                   int32_t position, int32_t head)
{
    const int32_t tokens = a.cache.block_tokens;
    const int64_t block = a.blocks[seq.first_block + position / tokens];

    return ((block * a.cache.kv_heads + head) * tokens + position % tokens) * a.cache.head_dim;
}

static __device__ __forceinline__ void store(const attend_args &a, void *memory, int64_t at,
                                             float x, float scale)
{
    if (a.cache.format == TSR_KV_F32)
        ((float *)memory)[at] = x;
    else if (a.cache.format == TSR_KV_BF16)
        ((uint16_t *)memory)[at] = tsr_to_bf16(x);
    else
        ((uint8_t *)memory)[at] = tsr_to_e4m3(x / scale);
}

static __global__ void write_kernel(attend_args a, tsr_cuda_faults faults)
{
    const int32_t row = (int32_t)blockIdx.x;
    const int32_t dim = a.cache.head_dim;
    const int32_t width = a.cache.kv_heads * dim;

    if (tsr_is_faulty(faults))
        return;
    const int32_t s = sequence_of(a, row);
    if (s < 0)
        return;
    const tsr_attention_sequence seq = a.sequence[s];
    const int32_t position = seq.first_position + row - seq.first_row;
    for (int32_t i = (int32_t)threadIdx.x; i < width; i += TSR_CUDA_THREADS) {
        const int64_t at = place_of(a, seq, position, i / dim) + i % dim;
        store(a, a.cache.keys, at, a.k[(int64_t)row * width + i], a.cache.key_scale);
        store(a, a.cache.values, at, a.v[(int64_t)row * width + i], a.cache.value_scale);
    }
}

/* Eight elements of the cache, scales left out. */
static __device__ __forceinline__ void load_span(tsr_kv_format format, const void *memory,
                                                 int64_t at, float to[SPAN])
{
    if (format == TSR_KV_F32) {
        for (int i = 0; i < SPAN; i++)
            to[i] = ((const float *)memory)[at + i];
        return;
    }
    if (format == TSR_KV_BF16) {
        const uint4 stored = *(const uint4 *)((const uint16_t *)memory + at);
        const uint32_t pair[SPAN / 2] = {stored.x, stored.y, stored.z, stored.w};
        for (int i = 0; i < SPAN; i++)
            to[i] = tsr_from_bf16((uint16_t)(pair[i / 2] >> 16 * (i % 2)));
        return;
    }
    const uint2 stored = *(const uint2 *)((const uint8_t *)memory + at);
    for (int i = 0; i < SPAN; i += 2) {
        const uint32_t word = i < SPAN / 2 ? stored.x : stored.y;
        const float2 v = tsr_from_e4m3_pair(word >> 8 * (i % (SPAN / 2)));
        to[i] = v.x;
        to[i + 1] = v.y;
    }
}

static __device__ __forceinline__ float load_one(tsr_kv_format format, const void *memory,
                                                 int64_t at)
{
    if (format == TSR_KV_F32)
        return ((const float *)memory)[at];
    return format == TSR_KV_BF16 ? tsr_from_bf16(((const uint16_t *)memory)[at])
                                 : tsr_from_e4m3(((const uint8_t *)memory)[at]);
}

/* q k^T of one position, dims in order. */
static __device__ float score_of(const attend_args &a, const float *query, int64_t at)
{
    float sum = 0.0F;

    for (int32_t d = 0; d < a.cache.head_dim; d += SPAN) {
        float key[SPAN];
        load_span(a.cache.format, a.cache.keys, at + d, key);
        for (int i = 0; i < SPAN; i++)
            sum = fmaf(query[d + i], key[i], sum);
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
static __device__ void attend_span(const attend_args &a, const tsr_attention_sequence &seq,
                                   int32_t kv_head, const float *query, int32_t first, int32_t end,
                                   seen_so_far *seen)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t count = min(end - first, (int32_t)TSR_CUDA_LANES);
    const bool mine = lane < count;
    const int64_t at = place_of(a, seq, min(first + lane, end - 1), kv_head);
    const float score = mine ? score_of(a, query, at) : -INFINITY;
    const float most = fmaxf(seen->most, tsr_warp_max(score));
    const float weight = mine ? expf(score - most) : 0.0F;
    const float before = expf(seen->most - most);

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
                seen->value[i] =
                    fmaf(w, load_one(a.cache.format, a.cache.values, from + d), seen->value[i]);
        }
    }
}

static __global__ void __launch_bounds__(ATTEND_THREADS)
    attend_kernel(attend_args a, tsr_cuda_faults faults)
{
    __shared__ float query[TSR_CUDA_HEAD_DIM];
    __shared__ float value[ATTEND_WARPS][TSR_CUDA_HEAD_DIM];
    __shared__ float most[ATTEND_WARPS];
    __shared__ float total[ATTEND_WARPS];
    const int32_t row = (int32_t)blockIdx.x;
    const int32_t head = (int32_t)blockIdx.y;
    const int32_t dim = a.cache.head_dim;
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int64_t at = ((int64_t)row * a.q_heads + head) * dim;
    seen_so_far seen = {-INFINITY, 0.0F, {}};

    if (tsr_is_faulty(faults))
        return;
    const int32_t s = sequence_of(a, row);
    if (s < 0)
        return;
    for (int32_t d = (int32_t)threadIdx.x; d < dim; d += ATTEND_THREADS)
        query[d] = a.q[at + d];
    __syncthreads();
    const tsr_attention_sequence seq = a.sequence[s];
    const int32_t end = seq.first_position + row - seq.first_row + 1;
    for (int32_t p = warp * TSR_CUDA_LANES; p < end; p += ATTEND_THREADS)
        attend_span(a, seq, head / (a.q_heads / a.cache.kv_heads), query, p, end, &seen);
    for (int i = 0; i < LANE_DIMS; i++)
        value[warp][lane + TSR_CUDA_LANES * i] = seen.value[i];
    if (lane == 0) {
        most[warp] = seen.most;
        total[warp] = seen.total;
    }
    __syncthreads();
    float peak = most[0];
    float sum = 0.0F;
    float share[ATTEND_WARPS];
    for (int w = 1; w < ATTEND_WARPS; w++)
        peak = fmaxf(peak, most[w]);
    for (int w = 0; w < ATTEND_WARPS; w++) {
        share[w] = expf(most[w] - peak);
        sum = fmaf(total[w], share[w], sum);
    }
    for (int32_t d = (int32_t)threadIdx.x; d < dim; d += ATTEND_THREADS) {
        float out = 0.0F;
        for (int w = 0; w < ATTEND_WARPS; w++)
            out = fmaf(value[w][d], share[w], out);
        a.out[at + d] = out / sum * a.value_scale;
    }
}

static attend_args args_of(const tsr_device *device, const tsr_attention_args *a)
{
    const bool scaled = a->cache->format == TSR_KV_FP8;
    attend_args k = {};

    k.out = (float *)a->out;
    k.q = (const float *)a->q;
    k.k = (const float *)a->k;
    k.v = (const float *)a->v;
    k.cache = *a->cache;
    k.sequence = a->sequence;
    k.blocks = a->blocks;
    k.sequences = a->sequences;
    k.tokens = a->tokens;
    k.q_heads = a->q_heads;
    k.max_context = device->shape.max_context;
    k.score_scale =
        (scaled ? a->cache->key_scale : 1.0F) * (1.0F / sqrtf((float)a->cache->head_dim));
    k.value_scale = scaled ? a->cache->value_scale : 1.0F;
    return k;
}

tsr_status tsr_attention_cuda(tsr_device *device, const tsr_attention_args *a, tsr_stream s)
{
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    const tsr_cuda_faults faults = tsr_cuda(device)->faults;
    const attend_args k = args_of(device, a);
    const dim3 grid((unsigned)a->tokens, (unsigned)a->q_heads);

    if (a->sequences > 0)
        check_kernel<<<1, TSR_CUDA_THREADS, 0, stream>>>(k, faults);
    if (a->tokens > 0) {
        write_kernel<<<(unsigned)a->tokens, TSR_CUDA_THREADS, 0, stream>>>(k, faults);
        attend_kernel<<<grid, ATTEND_THREADS, 0, stream>>>(k, faults);
    }
    return TSR_CUDA_LAUNCHED();
}
