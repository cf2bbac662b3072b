/*
 * Rows of the embedding, out of a packed weight or one in F32, of the ids that the text has at the tokens' places:
 *
 *   slot, position --> text[slot, position] --> table[id] --> x
 *
 * Every CTA looks at all places first, then copies rows if it finds nothing wrong.
 */
#include "kernels/cuda/device/block_cuda.cuh"
#include "kernels/cuda/device/number_cuda.cuh"
#include "kernels/cuda/operands/packed_cuda.cuh"

enum { EMBED_CTAS = 8 }; /* most of a processor */

/* What a row needs of a block. */
typedef struct embed_args {
    float *x;
    const int32_t *slot;
    const int32_t *position;
    const void *table;
    tsr_text_table text;
    tsr_weight_format format;
    int32_t tokens;
    int32_t ids;
    int32_t hidden;
} embed_args;

static __device__ int32_t id_of(const embed_args &a, int32_t t)
{
    return a.text.ids[(int64_t)a.slot[t] * a.text.positions + a.position[t]];
}

/* What is wrong with a token, or a fault of no kind. */
static __device__ tsr_fault fault_of(const embed_args &a, int32_t t)
{
    const int32_t slot = a.slot[t];
    const int32_t position = a.position[t];
    tsr_fault fault = {TSR_FAULT_NONE, t, 0, 0, 0};

    if (slot < 0 || slot >= a.text.slots || position < 0 || position >= a.text.positions) {
        fault.kind = TSR_FAULT_PLACE;
        fault.slot = slot;
        fault.value = position;
        return fault;
    }
    fault.value = id_of(a, t);
    fault.limit = a.ids;
    if (fault.value < 0 || fault.value >= a.ids)
        fault.kind = TSR_FAULT_TOKEN;
    return fault;
}

/* Columns 2 i and 2 i + 1 of row `id`: in a packed weight, a word of the lane that holds them. */
static __device__ __forceinline__ float2 stored(const embed_args &a, int32_t id, int32_t i)
{
    if (a.format == TSR_WEIGHT_F32)
        return ((const float2 *)a.table)[(int64_t)id * (a.hidden / 2) + i];
    const int32_t pairs = TSR_CUDA_STEP / 2;
    const int64_t steps = tsr_cuda_padded(a.hidden) / TSR_CUDA_STEP;
    const int64_t unit = id / TSR_CUDA_TILE * steps + i / pairs;
    const int32_t lane = id % 8 * 4 + i % 4;
    const int32_t word = id % TSR_CUDA_TILE / 8 + i % pairs / 4 * 2;
    const uint32_t codes = ((const uint32_t *)a.table)[unit * (PACKED_UNIT / 4) + 4 * lane + word];
    const uint16_t low = (uint16_t)codes;
    const uint16_t high = (uint16_t)(codes >> 16);

    return a.format == TSR_WEIGHT_BF16 ? make_float2(tsr_from_bf16(low), tsr_from_bf16(high))
                                       : make_float2(tsr_from_f16(low), tsr_from_f16(high));
}

static __global__ void embed_kernel(embed_args a, tsr_cuda_faults faults)
{
    int32_t wrong = INT32_MAX;

    tsr_admit_kernel();
    tsr_await_kernel();
    for (int32_t t = (int32_t)threadIdx.x; t < a.tokens && wrong == INT32_MAX;
         t += TSR_CUDA_THREADS) {
        if (fault_of(a, t).kind != TSR_FAULT_NONE)
            wrong = t;
    }
    const bool is_faulty = tsr_is_faulty(faults);
    if (__syncthreads_or((int)(wrong != INT32_MAX)) != 0) {
        wrong = tsr_cta_least(wrong);
        if (threadIdx.x == 0)
            tsr_leave_fault(faults, fault_of(a, wrong));
        return;
    }
    for (int32_t t = (int32_t)blockIdx.x; t < a.tokens && !is_faulty; t += (int32_t)gridDim.x) {
        const int32_t id = id_of(a, t);
        float2 *to = (float2 *)(void *)(a.x + (int64_t)t * a.hidden);
#pragma unroll 4
        for (int32_t i = (int32_t)threadIdx.x; i < a.hidden / 2; i += TSR_CUDA_THREADS)
            to[i] = stored(a, id, i);
    }
}

tsr_status tsr_embed_cuda(tsr_device *device, const tsr_embed_block *b, tsr_stream s)
{
    const int32_t most = tsr_cuda(device)->gemm.processors * EMBED_CTAS;
    const tsr_cuda_launch_shape at = {dim3((unsigned)tsr_smaller(b->tokens, most)),
                                      TSR_CUDA_THREADS, 0, tsr_cuda_stream(device, s), 0};
    embed_args a = {};

    if (b->tokens == 0)
        return TSR_OK;
    a.x = (float *)b->x;
    a.slot = b->slot;
    a.position = b->position;
    a.table = b->table->weight;
    a.text = b->text;
    a.format = b->table->format;
    a.tokens = b->tokens;
    a.ids = b->table->out;
    a.hidden = b->table->in;
    return tsr_cuda_launch(at, embed_kernel, a, tsr_cuda(device)->faults);
}
