/*
 * Rows of the embedding, out of a packed weight or one in F32, of the ids that the text has at the tokens' places:
 *
 *   slot, position --> text[slot, position] --> table[id] --> x
 *
 * One CTA looks at all places first; then a CTA copies each row.
 */
#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"
#include "kernels/cuda/packed_cuda.cuh"

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

static __global__ void check_kernel(embed_args a, tsr_cuda_faults faults)
{
    int32_t wrong = INT32_MAX;

    tsr_admit_kernel();
    tsr_await_kernel();
    for (int32_t t = (int32_t)threadIdx.x; t < a.tokens && wrong == INT32_MAX;
         t += TSR_CUDA_THREADS) {
        if (fault_of(a, t).kind != TSR_FAULT_NONE)
            wrong = t;
    }
    wrong = tsr_cta_least(wrong);
    if (wrong != INT32_MAX && threadIdx.x == 0)
        tsr_leave_fault(faults, fault_of(a, wrong));
}

/* Column `i` of row `id`: in a packed weight, of the lane that holds it. */
static __device__ float stored(const embed_args &a, int32_t id, int32_t i)
{
    if (a.format == TSR_WEIGHT_F32)
        return ((const float *)a.table)[(int64_t)id * a.hidden + i];
    const int64_t steps = tsr_cuda_padded(a.hidden) / TSR_CUDA_STEP;
    const int64_t unit = id / TSR_CUDA_TILE * steps + i / TSR_CUDA_STEP;
    const int32_t lane = id % 8 * 4 + i % 8 / 2;
    const int32_t word = id % TSR_CUDA_TILE / 8 + i % TSR_CUDA_STEP / 8 * 2;
    const uint16_t *lanes = (const uint16_t *)a.table + unit * (PACKED_UNIT / 2);
    const uint16_t code = lanes[8 * lane + 2 * word + i % 2];

    return a.format == TSR_WEIGHT_BF16 ? tsr_from_bf16(code) : tsr_from_f16(code);
}

static __global__ void embed_kernel(embed_args a, tsr_cuda_faults faults)
{
    const int32_t t = (int32_t)blockIdx.x;

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    const int32_t id = id_of(a, t);
    const int64_t to = (int64_t)t * a.hidden;
    for (int32_t i = (int32_t)threadIdx.x; i < a.hidden; i += TSR_CUDA_THREADS)
        a.x[to + i] = stored(a, id, i);
}

tsr_status tsr_embed_cuda(tsr_device *device, const tsr_embed_block *b, tsr_stream s)
{
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    const tsr_cuda_faults faults = tsr_cuda(device)->faults;
    tsr_cuda_launch_shape at = {dim3(1), TSR_CUDA_THREADS, 0, stream, 0};
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
    const tsr_status st = tsr_cuda_launch(at, check_kernel, a, faults);
    at.grid.x = (unsigned)b->tokens;
    return st == TSR_OK ? tsr_cuda_launch(at, embed_kernel, a, faults) : st;
}
