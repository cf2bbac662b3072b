/*
 * What the kernels of attention share: the job, how they are launched, the checks of what stands in
 * device memory, where a position lies in the cache and where results go.
 */
#ifndef TSR_KERNELS_CUDA_ATTENTION_ATTEND_CUDA_CUH
#define TSR_KERNELS_CUDA_ATTENTION_ATTEND_CUDA_CUH

#include "kernels/cuda/attention/head_cuda.cuh"
#include "kernels/cuda/device/number_cuda.cuh"

enum {
    TSR_TILE = 64,                                 /* positions */
    TSR_SPLIT_TILES = TSR_ATTEND_SPLIT / TSR_TILE, /* tiles of a split */
    TSR_QUERY_ROWS = TSR_ATTEND_ROWS,              /* of one warp's fragments */
    TSR_PIECE = 16,                                /* bytes that are copied at once */
    TSR_LINE = 128,                                /* bytes of a row that lie together */
    TSR_STEP = 16,                                 /* dims or positions of one mma */
    TSR_BLOCK_SHIFT = 40,
};

/* One launch. Rows are f32. */
typedef struct tsr_attend_job {
    float *out;     /* or NULL */
    uint16_t *rows; /* or NULL */
    const float *q;
    const float *k;
    const float *v;
    tsr_kv_layer cache;
    const tsr_attention_sequence *sequence;
    const int32_t *blocks;
    tsr_turn q_turn; /* cos and sin of position 0 */
    tsr_turn k_turn;
    float *partial;   /* [slots, a split's floats] */
    int32_t *arrived; /* [sequence, kv head, tile of heads] zero between launches */
    int32_t sequences;
    int32_t tokens;
    int32_t q_heads;
    int32_t max_context;
    uint64_t blocks_per_position; /* 2^40 / block_tokens, rounded up */
    uint32_t block_pieces;        /* of one block of keys or values */
    uint32_t row_pieces;          /* of one position of a kv head */
    int32_t shared;               /* query heads of a kv head */
    int32_t chunks;               /* most of one row, in decode */
    int32_t slots;                /* of one row and kv head, in decode */
    bool leaves;                  /* nobody adds splits up, in decode */
    int32_t ring;                 /* slots of it, in decode */
    float score_scale;            /* of q k^T, in units of log2 */
    float value_scale;
} tsr_attend_job;

/* The kernels of one job; decode where every sequence has one row: how rows are cut it leaves in job. */
tsr_status tsr_attend_rows_decode(tsr_device *device, tsr_attend_job *job, tsr_stream s);
tsr_status tsr_attend_rows_prefill(tsr_device *device, const tsr_attend_job *job, tsr_stream s);

/* The same as in decode, where there are rows enough that none has to be cut (attend_splits_cuda.cu). */
bool tsr_attend_takes_splits(tsr_device *device, const tsr_attend_job *job);
tsr_status tsr_attend_rows_splits(tsr_device *device, const tsr_attend_job *job, tsr_stream s);

/* The same from a cache of F32, exactly: keys are turned already. */
tsr_status tsr_attend_rows_exact(tsr_device *device, const tsr_attend_job *job, tsr_stream s);

/* ---- launches ---- */

/* tsr_cuda_launch, with the shared memory that the shape asks for allowed. */
template <typename... parameters>
static tsr_status tsr_launch_behind(const tsr_cuda_launch_shape &at, void (*kernel)(parameters...),
                                    parameters... arguments)
{
    const tsr_status st = TSR_CUDA(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)at.shared));

    return st == TSR_OK ? tsr_cuda_launch(at, kernel, arguments...) : st;
}

static inline tsr_status tsr_card_fact(tsr_device *device, cudaDeviceAttr fact, int32_t *ret_count)
{
    int count = 0;
    const tsr_status st = TSR_CUDA(cudaDeviceGetAttribute(&count, fact, tsr_cuda(device)->ordinal));

    if (st == TSR_OK)
        *ret_count = count;
    return st;
}

static inline bool tsr_is_hopper(tsr_device *device)
{
    int major = 0;

    return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor,
                                  tsr_cuda(device)->ordinal) == cudaSuccess &&
           major == 9;
}

/* ---- faults ---- */

static __device__ __forceinline__ int32_t tsr_clamped(int64_t count)
{
    if (count < INT32_MIN)
        return INT32_MIN;
    return count > INT32_MAX ? INT32_MAX : (int32_t)count;
}

static __device__ __forceinline__ bool tsr_sequence_fits(const tsr_attend_job &a,
                                                         const tsr_attention_sequence &seq)
{
    return seq.rows >= 0 && seq.first_row >= 0 && seq.first_row <= a.tokens - seq.rows &&
           seq.first_position >= 0 && (int64_t)seq.first_position + seq.rows <= a.max_context &&
           seq.first_block >= 0;
}

/* The block of the table that holds a position: a division that is a product, exact for positions
 * below 2^23, as the product is. */
static __device__ __forceinline__ int32_t tsr_block_at(const tsr_attend_job &a, int32_t position)
{
    return (int32_t)((uint64_t)position * a.blocks_per_position >> TSR_BLOCK_SHIFT);
}

/* The first block between those of two positions (the last one's included) that is none, for a
 * whole warp; INT32_MAX: all are blocks. */
static __device__ __forceinline__ int32_t tsr_bad_block(const tsr_attend_job &a,
                                                        const tsr_attention_sequence &seq,
                                                        int32_t first, int32_t last)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t end = tsr_block_at(a, last);
    int32_t bad = INT32_MAX;

#pragma unroll 4
    for (int32_t b = tsr_block_at(a, first) + lane; b <= end; b += TSR_CUDA_LANES) {
        const int32_t block = a.blocks[seq.first_block + b];
        if (block < 0 || block >= a.cache.blocks)
            bad = min(bad, b);
    }
    return __reduce_min_sync(TSR_ALL_LANES, bad);
}

/* What is wrong with a sequence, or a fault of no kind, for a whole warp. */
static __device__ __noinline__ tsr_fault tsr_sequence_fault(const tsr_attend_job &a, int32_t s)
{
    const tsr_attention_sequence seq = a.sequence[s];
    const int64_t end = (int64_t)seq.first_position + seq.rows;
    tsr_fault fault = {TSR_FAULT_NONE, s, 0, 0, 0};

    if (!tsr_sequence_fits(a, seq)) {
        fault.kind = TSR_FAULT_SEQUENCE;
        fault.slot = tsr_clamped((int64_t)seq.first_row + seq.rows);
        fault.value = tsr_clamped(end);
        fault.limit = a.max_context;
        return fault;
    }
    if (seq.rows == 0)
        return fault;
    const int32_t bad = tsr_bad_block(a, seq, 0, (int32_t)end - 1);
    if (bad != INT32_MAX) {
        fault.kind = TSR_FAULT_BLOCK;
        fault.value = a.blocks[seq.first_block + bad];
        fault.limit = a.cache.blocks;
    }
    return fault;
}

/*
 * Leaves the fault of sequence s unless an earlier one has any, for a whole warp. So the lowest is
 * told, whichever CTA comes first. Kernels that call it may see it come while they run: they look
 * at `claimed` once for a whole CTA.
 */
static __device__ __noinline__ void tsr_leave_lowest(const tsr_attend_job &a, int32_t s,
                                                     tsr_cuda_faults faults)
{
    for (int32_t before = 0; before < s; before++) {
        if (tsr_sequence_fault(a, before).kind != TSR_FAULT_NONE)
            return;
    }
    const tsr_fault fault = tsr_sequence_fault(a, s);
    if (threadIdx.x % TSR_CUDA_LANES == 0 && fault.kind != TSR_FAULT_NONE)
        tsr_leave_fault(faults, fault);
}

/* Leaves the fault of a sequence that has one, for a whole warp. */
static __device__ __forceinline__ void tsr_check_sequence(const tsr_attend_job &a, int32_t s,
                                                          tsr_cuda_faults faults)
{
    if (s < a.sequences && tsr_sequence_fault(a, s).kind != TSR_FAULT_NONE)
        tsr_leave_lowest(a, s, faults);
}

/* ---- the cache ---- */

/* The element where a position of a kv head begins, in the block that holds it. */
static __device__ __forceinline__ int64_t tsr_block_row(const tsr_attend_job &a, int32_t block,
                                                        int32_t position, int32_t head)
{
    const int32_t slot = position - tsr_block_at(a, position) * a.cache.block_tokens;

    return (((int64_t)block * a.cache.kv_heads + head) * a.cache.block_tokens + slot) *
           a.cache.head_dim;
}

static __device__ __forceinline__ int64_t tsr_cache_at(const tsr_attend_job &a,
                                                       const int32_t *table, int32_t position,
                                                       int32_t head)
{
    return tsr_block_row(a, table[tsr_block_at(a, position)], position, head);
}

/* Four dims of a key or value as the cache stores them. */
static __device__ __forceinline__ uint2 tsr_bf16_span(float4 x)
{
    return make_uint2(tsr_to_bf16_pair(x.x, x.y), tsr_to_bf16_pair(x.z, x.w));
}

static __device__ __forceinline__ uint32_t tsr_e4m3_span(float4 x, float scale)
{
    return (uint32_t)tsr_to_e4m3(x.x / scale) | (uint32_t)tsr_to_e4m3(x.y / scale) << 8 |
           (uint32_t)tsr_to_e4m3(x.z / scale) << 16 | (uint32_t)tsr_to_e4m3(x.w / scale) << 24;
}

/* ---- results ---- */

/* Columns of a row of BF16 operands. */
static __device__ __forceinline__ int32_t tsr_operand_width(const tsr_attend_job &a)
{
    return (a.q_heads * a.cache.head_dim + 63) / 64 * 64;
}

/* Where the results of a head go, from one of its dims on. */
typedef struct tsr_result {
    float *out;     /* or NULL */
    uint16_t *rows; /* or NULL */
    int32_t dims;   /* that are left */
} tsr_result;

static __device__ __forceinline__ tsr_result tsr_result_at(const tsr_attend_job &a, int32_t row,
                                                           int32_t head, int32_t dim)
{
    const int32_t width = a.q_heads * a.cache.head_dim;
    const int32_t at = head * a.cache.head_dim + dim;
    tsr_result r;

    r.out = a.out != NULL ? a.out + (int64_t)row * width + at : NULL;
    r.rows = a.rows != NULL ? a.rows + (int64_t)row * tsr_operand_width(a) + at : NULL;
    r.dims = a.cache.head_dim - dim;
    return r;
}

/* Two neighbouring dims. */
static __device__ __forceinline__ void tsr_put_pair(const tsr_result &r, int32_t dim, float low,
                                                    float high)
{
    if (dim >= r.dims)
        return;
    if (r.out != NULL)
        *(float2 *)(r.out + dim) = make_float2(low, high);
    if (r.rows != NULL)
        *(uint32_t *)(r.rows + dim) = tsr_to_bf16_pair(low, high);
}

/* The zeros behind the last head of a row of operands, by a warp. */
static __device__ __forceinline__ void tsr_put_zeros(const tsr_attend_job &a, int32_t row)
{
    const int32_t used = a.q_heads * a.cache.head_dim;
    const int32_t at = used + 2 * (int32_t)(threadIdx.x % TSR_CUDA_LANES);

    if (a.rows != NULL && at < tsr_operand_width(a))
        *(uint32_t *)(a.rows + (int64_t)row * tsr_operand_width(a) + at) = 0;
}

#endif
