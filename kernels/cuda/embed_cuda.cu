/*
 * Rows of the embedding in BF16, of the ids that the text has at the tokens' places:
 *
 *   slot, position --> text[slot, position] --> table[id] --> x
 *
 * One CTA looks at all places first; then a CTA copies each row.
 */
#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"

/* What a row needs of a block. */
typedef struct embed_args {
    uint16_t *x;
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

static __global__ void check_kernel(embed_args a, tsr_cuda_faults faults)
{
    int32_t wrong = INT32_MAX;

    for (int32_t t = (int32_t)threadIdx.x; t < a.tokens && wrong == INT32_MAX;
         t += TSR_CUDA_THREADS) {
        if (fault_of(a, t).kind != TSR_FAULT_NONE)
            wrong = t;
    }
    wrong = tsr_cta_least(wrong);
    if (wrong != INT32_MAX && threadIdx.x == 0)
        tsr_leave_fault(faults, fault_of(a, wrong));
}

static __device__ uint16_t stored(const embed_args &a, int64_t at)
{
    if (a.format == TSR_WEIGHT_BF16)
        return ((const uint16_t *)a.table)[at];
    if (a.format == TSR_WEIGHT_F16)
        return tsr_to_bf16(tsr_from_f16(((const uint16_t *)a.table)[at]));
    return tsr_to_bf16(((const float *)a.table)[at]);
}

static __global__ void embed_kernel(embed_args a, tsr_cuda_faults faults)
{
    const int32_t t = (int32_t)blockIdx.x;

    if (tsr_is_faulty(faults))
        return;
    const int64_t from = (int64_t)id_of(a, t) * a.hidden;
    const int64_t to = (int64_t)t * a.hidden;
    for (int32_t i = (int32_t)threadIdx.x; i < a.hidden; i += TSR_CUDA_THREADS)
        a.x[to + i] = stored(a, from + i);
}

tsr_status tsr_embed_cuda(tsr_device *device, const tsr_embed_block *b, tsr_stream s)
{
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    const tsr_cuda_faults faults = tsr_cuda(device)->faults;
    embed_args a = {};

    if (b->tokens == 0)
        return TSR_OK;
    a.x = (uint16_t *)b->x;
    a.slot = b->slot;
    a.position = b->position;
    a.table = b->table->weight;
    a.text = b->text;
    a.format = b->table->format;
    a.tokens = b->tokens;
    a.ids = b->table->out;
    a.hidden = b->table->in;
    check_kernel<<<1, TSR_CUDA_THREADS, 0, stream>>>(a, faults);
    embed_kernel<<<(unsigned)b->tokens, TSR_CUDA_THREADS, 0, stream>>>(a, faults);
    return TSR_CUDA_LAUNCHED();
}
