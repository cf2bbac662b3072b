/*
 * The CUDA device: opening it, its memory, and loading weights into their layout (work_cuda.h).
 */
#include "kernels/cuda/device/device_cuda.cuh"

#include "kernels/cuda/blocks_cuda.cuh"
#include "kernels/cuda/device/loaded_cuda.h"
#include "kernels/cuda/experts/tiles_cuda.cuh"
#include "kernels/cuda/linear/few_cuda.cuh"
#include "kernels/cuda/linear/gemm_cuda.cuh"
#include "kernels/cuda/linear/linear_cuda.cuh"
#include "kernels/cuda/linear/split_cuda.cuh"
#include "kernels/cuda/linear/tall_cuda.cuh"
#include "kernels/cuda/operands/packed_cuda.cuh"
#include "kernels/cuda/router/router_cuda.cuh"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PERCENT = 10, CUDA_MAJOR = 1000 };

tsr_status tsr_cuda_status(cudaError_t error, const char *call, const char *file, int line)
{
    if (error == cudaSuccess)
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR, "%s:%d: %s: %s", file, line, call, cudaGetErrorString(error));
    return error == cudaErrorMemoryAllocation ? TSR_ERR_MEMORY : TSR_ERR_DEVICE;
}

static tsr_status alloc_cuda(tsr_device *device, size_t bytes, void **ret_memory)
{
    void *memory = NULL;
    const size_t size = bytes > 0 ? bytes : 1;

    (void)device;
    tsr_status st = TSR_CUDA(cudaMalloc(&memory, size));
    if (st != TSR_OK)
        return st;
    st = TSR_CUDA(cudaMemset(memory, 0, size));
    /* Our streams do not wait for the one that memset is on. */
    if (st == TSR_OK)
        st = TSR_CUDA(cudaStreamSynchronize(cudaStreamLegacy));
    if (st != TSR_OK) {
        (void)cudaFree(memory);
        return st;
    }
    *ret_memory = memory;
    return TSR_OK;
}

static void release_cuda(tsr_device *device, void *memory)
{
    (void)device;
    (void)TSR_CUDA(cudaFree(memory));
}

static uint64_t memory_in_use_cuda(tsr_device *device)
{
    size_t free_bytes = 0;
    size_t total_bytes = 0;

    (void)device;
    const tsr_status st = TSR_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
    return st == TSR_OK ? (uint64_t)(total_bytes - free_bytes) : 0;
}

static tsr_status host_alloc_cuda(tsr_device *device, size_t bytes, void **ret_memory)
{
    void *memory = NULL;
    const size_t size = bytes > 0 ? bytes : 1;

    (void)device;
    const tsr_status st = TSR_CUDA(cudaHostAlloc(&memory, size, cudaHostAllocPortable));
    if (st != TSR_OK)
        return st;
    memset(memory, 0, size);
    *ret_memory = memory;
    return TSR_OK;
}

static void host_release_cuda(tsr_device *device, void *memory)
{
    (void)device;
    (void)TSR_CUDA(cudaFreeHost(memory));
}

static const tsr_fault *fault_cuda(tsr_device *device)
{
    return tsr_cuda(device)->fault;
}

/* What the kernels hold of a shape. */
static tsr_status check_shape(const tsr_work_shape *shape)
{
    if (shape->head_dim > TSR_CUDA_HEAD_DIM) {
        tsr_log(TSR_LOG_ERROR, "cuda: heads of %" PRId32 ", at most %d are built for",
                shape->head_dim, (int)TSR_CUDA_HEAD_DIM);
        return TSR_ERR_DEVICE;
    }
    if (shape->max_in > TSR_CUDA_SLICE * TSR_CUDA_SLICES) {
        tsr_log(TSR_LOG_ERROR, "cuda: rows of %" PRId32 ", at most %d are built for", shape->max_in,
                (int)(TSR_CUDA_SLICE * TSR_CUDA_SLICES));
        return TSR_ERR_DEVICE;
    }
    if (shape->max_tokens > TSR_CUDA_GRID || shape->max_logit_rows > TSR_CUDA_GRID) {
        tsr_log(TSR_LOG_ERROR,
                "cuda: steps of %" PRId32 " tokens with logits of %" PRId32 ", at most %d of each",
                shape->max_tokens, shape->max_logit_rows, (int)TSR_CUDA_GRID);
        return TSR_ERR_DEVICE;
    }
    return TSR_OK;
}

static tsr_status reserve_cuda(tsr_device *device, const tsr_work_shape *shape)
{
    tsr_cuda_device *cuda = tsr_cuda(device);
    const uint64_t bytes = tsr_cuda_workspace_bytes(shape, 1);
    void *memory = NULL;

    tsr_status st = check_shape(shape);
    if (st == TSR_OK)
        st = alloc_cuda(device, (size_t)bytes, &memory);
    if (st == TSR_ERR_MEMORY)
        tsr_log(TSR_LOG_ERROR, "no memory for a workspace of %" PRIu64 " bytes", bytes);
    if (st != TSR_OK)
        return st;
    cuda->memory = (unsigned char *)memory;
    (void)tsr_cuda_work_layout(shape, cuda->memory, &cuda->work);
    return tsr_cuda_fill_ones(cuda, shape->max_tokens);
}

/* What the kernels read (packed_cuda.cuh); a format that is added elsewhere is not here by itself. */
static bool is_built(tsr_weight_format format)
{
    static const tsr_weight_format built[] = {
        TSR_WEIGHT_F32,         TSR_WEIGHT_F16,       TSR_WEIGHT_BF16,  TSR_WEIGHT_FP8,
        TSR_WEIGHT_FP8_CHANNEL, TSR_WEIGHT_FP8_BLOCK, TSR_WEIGHT_NVFP4,
    };

    for (size_t i = 0; i < sizeof(built) / sizeof(built[0]); i++) {
        if (built[i] == format)
            return true;
    }
    tsr_log(TSR_LOG_ERROR, "cuda: no kernels for weights in %s", tsr_weight_format_name(format));
    return false;
}

static tsr_status place_linear_cuda(tsr_device *device, const tsr_linear_spec *spec, void *memory,
                                    tsr_linear *ret_linear)
{
    const tsr_cuda_linear_layout at = tsr_cuda_linear_layout_of(spec->format, spec->out, spec->in,
                                                                spec->bias, spec->pre_quant_scale);
    const bool scales = tsr_scale_bytes(spec->format, spec->out, spec->in) > 0;
    unsigned char *front = (unsigned char *)memory;
    tsr_linear linear = {};

    (void)device;
    if (!is_built(spec->format))
        return TSR_ERR_DEVICE;
    if (!isfinite(spec->weight_scale) || !isfinite(spec->input_scale))
        return TSR_ERR_CHECKPOINT;
    linear.format = spec->format;
    linear.activation = spec->activation;
    linear.out = spec->out;
    linear.in = spec->in;
    linear.weight = front;
    linear.scales = scales ? front + at.scales : NULL;
    linear.bias = spec->bias ? (float *)(void *)(front + at.bias) : NULL;
    linear.pre_quant_scale =
        spec->pre_quant_scale ? (float *)(void *)(front + at.pre_quant_scale) : NULL;
    linear.weight_scale = spec->weight_scale;
    linear.input_scale = spec->input_scale;
    *ret_linear = linear;
    return TSR_OK;
}

static int32_t row_step_cuda(tsr_weight_format format)
{
    return tsr_cuda_is_packed(format) ? TSR_CUDA_TILE : 1;
}

/* A part of a linear as a matrix of stored elements. */
typedef struct stored_part {
    uint64_t at; /* bytes from the front */
    tsr_dtype dtype;
    int32_t columns;
} stored_part;

static stored_part part_of(const tsr_linear *linear, tsr_linear_part part)
{
    const tsr_format_row *row = tsr_format_row_of(linear->format);
    const tsr_cuda_linear_layout at = tsr_cuda_linear_layout_of(
        linear->format, linear->out, linear->in, linear->bias != NULL, true);
    stored_part p = {0, TSR_DTYPE_F32, 1};

    if (part == TSR_LINEAR_WEIGHT) {
        p.dtype = row->weight_dtype;
        p.columns = tsr_weight_columns(linear->format, linear->in);
    } else if (part == TSR_LINEAR_SCALES) {
        p.at = at.scales;
        p.dtype = row->scale_dtype;
        p.columns = tsr_scale_shape_of(linear->format, linear->out, linear->in).columns;
    } else {
        p.at = part == TSR_LINEAR_BIAS ? at.bias : at.pre_quant_scale;
    }
    return p;
}

static tsr_status load_rows_cuda(tsr_device *device, const tsr_linear *linear, void *memory,
                                 const tsr_linear_rows *rows, tsr_stream s)
{
    const stored_part p = part_of(linear, rows->part);
    const uint64_t row_bytes = (uint64_t)p.columns * tsr_dtype_bytes(p.dtype);
    unsigned char *to = (unsigned char *)memory + p.at + (uint64_t)rows->first * row_bytes;

    if (tsr_cuda_has_nonfinite(p.dtype, rows->bytes, (uint64_t)rows->count * (uint64_t)p.columns))
        return TSR_ERR_CHECKPOINT;
    if (rows->part == TSR_LINEAR_WEIGHT && tsr_cuda_is_packed(linear->format))
        return tsr_cuda_pack_rows(device, linear, memory, rows, s);
    if (rows->part == TSR_LINEAR_SCALES && linear->format == TSR_WEIGHT_NVFP4)
        return tsr_cuda_pack_scales(device, linear, (unsigned char *)memory + p.at, rows, s);
    return tsr_put_cuda(device, to, rows->bytes, (size_t)((uint64_t)rows->count * row_bytes), s);
}

/* Also closes one that was opened half. */
static void close_cuda(tsr_device *device)
{
    tsr_cuda_device *cuda = tsr_cuda(device);

    (void)cudaDeviceSynchronize();
    (void)cudaFree(cuda->memory);
    (void)cudaFree(cuda->faults.claimed);
    (void)cudaFreeHost(cuda->fault);
    if (cuda->stream != NULL)
        (void)cudaStreamDestroy(cuda->stream);
    free(cuda);
}

static tsr_device_table make_table(void)
{
    tsr_device_table t = {};

    t.activation_bytes = TSR_CUDA_ACTIVATION_BYTES;
    t.flights = 2;
    t.close = close_cuda;
    t.alloc = alloc_cuda;
    t.release = release_cuda;
    t.memory_in_use = memory_in_use_cuda;
    t.host_alloc = host_alloc_cuda;
    t.host_release = host_release_cuda;
    t.stream_open = tsr_stream_open_cuda;
    t.stream_close = tsr_stream_close_cuda;
    t.put = tsr_put_cuda;
    t.get = tsr_get_cuda;
    t.mark_open = tsr_mark_open_cuda;
    t.mark_close = tsr_mark_close_cuda;
    t.mark = tsr_mark_cuda;
    t.await = tsr_await_cuda;
    t.passed = tsr_passed_cuda;
    t.clock = tsr_clock_cuda;
    t.record = tsr_record_cuda;
    t.recorded = tsr_recorded_cuda;
    t.replay = tsr_replay_cuda;
    t.recording_close = tsr_recording_close_cuda;
    t.fault = fault_cuda;
    t.reserve = reserve_cuda;
    t.read_bandwidth = tsr_read_bandwidth_cuda;
    t.linear_bytes = tsr_cuda_linear_bytes;
    t.place_linear = place_linear_cuda;
    t.row_step = row_step_cuda;
    t.load_rows = load_rows_cuda;
    return t;
}

static tsr_block_table make_blocks(void)
{
    tsr_block_table t = {};

    t.embed = tsr_compose_embed;
    t.attention = tsr_block_attention_cuda;
    t.mlp = tsr_block_mlp_cuda;
    t.choose = tsr_choose_cuda;
    t.shared = tsr_block_shared_cuda;
    t.experts = tsr_compose_experts;
    t.combine = tsr_compose_combine;
    t.predict = tsr_block_predict_cuda;
    return t;
}

static tsr_op_table make_ops(void)
{
    tsr_op_table t = {};

    t.embed = tsr_embed_cuda;
    t.norm = tsr_norm_cuda;
    t.linears = tsr_linears_cuda;
    t.head = tsr_head_cuda;
    t.add = tsr_add_cuda;
    t.rotary = tsr_rotary_cuda;
    t.attention = tsr_attention_cuda;
    t.router = tsr_router_cuda;
    t.mlp = tsr_mlp_cuda;
    t.pack = tsr_pack_cuda;
    t.experts = tsr_experts_cuda;
    t.combine = tsr_combine_cuda;
    t.sample = tsr_sample_cuda;
    return t;
}

static const tsr_device_table table_cuda = make_table();
static const tsr_block_table blocks_cuda = make_blocks();
static const tsr_op_table ops_cuda = make_ops();

/* A version as CUDA writes it: 12080 is 12.8. */
static int minor_of(int version)
{
    return version % CUDA_MAJOR / PERCENT;
}

static tsr_status refuse_driver(void)
{
    int driver = 0;

    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
        tsr_log(TSR_LOG_ERROR, "no GPU: this machine has no NVIDIA driver");
        return TSR_ERR_DEVICE;
    }
    tsr_log(TSR_LOG_ERROR,
            "the driver here is made for CUDA %d.%d, older than the %d.%d of this build: update "
            "the driver or build with an older toolkit",
            driver / CUDA_MAJOR, minor_of(driver), CUDART_VERSION / CUDA_MAJOR,
            minor_of(CUDART_VERSION));
    return TSR_ERR_DEVICE;
}

/* The GPU's facts, or a refusal by name. */
static tsr_status find_card(int32_t ordinal, cudaDeviceProp *ret_card)
{
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);

    if (error == cudaErrorInsufficientDriver)
        return refuse_driver();
    if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
        tsr_log(TSR_LOG_ERROR, "no GPU is visible on this machine");
        return TSR_ERR_DEVICE;
    }
    if (error != cudaSuccess)
        return TSR_CUDA(error);
    if (ordinal < 0 || ordinal >= count) {
        tsr_log(TSR_LOG_ERROR, "GPU %d of %d that are visible", (int)ordinal, count);
        return TSR_ERR_DEVICE;
    }
    return TSR_CUDA(cudaGetDeviceProperties(ret_card, ordinal));
}

/* There to be asked for: whether this build has kernels for a GPU. */
static __global__ void any_kernel(void)
{
}

static tsr_status check_kernels(const cudaDeviceProp *card)
{
    cudaFuncAttributes attributes;

    if (cudaFuncGetAttributes(&attributes, any_kernel) == cudaSuccess)
        return TSR_OK;
    (void)cudaGetLastError();
    tsr_log(
        TSR_LOG_ERROR,
        "%s: this build has no kernels for compute capability %d.%d; see TSR_CUDA_ARCHITECTURES",
        card->name, card->major, card->minor);
    return TSR_ERR_DEVICE;
}

/* Lets kernels have the shared memory that they ask for. */
static tsr_status prepare_kernels(tsr_cuda_device *cuda)
{
    tsr_status st = tsr_cuda_prepare_rows();

    if (st == TSR_OK)
        st = tsr_gemm_prepare(cuda->ordinal, &cuda->gemm);
    if (st == TSR_OK)
        st = tsr_gemm_prepare_experts(&cuda->gemm);
    if (st == TSR_OK)
        st = tsr_few_prepare(&cuda->gemm);
    if (st == TSR_OK)
        st = tsr_split_prepare(&cuda->gemm);
    if (st == TSR_OK)
        st = tsr_tall_prepare(&cuda->gemm);
    if (st == TSR_OK)
        st = tsr_cuda_prepare_tiles();
    if (st == TSR_OK)
        st = tsr_cuda_prepare_streams(&cuda->gemm);
    if (st == TSR_OK)
        st = tsr_cuda_prepare_few();
    if (st == TSR_OK)
        st = tsr_cuda_prepare_one(&cuda->gemm);
    if (st == TSR_OK)
        st = tsr_cuda_prepare_flow(&cuda->gemm);
    if (st == TSR_OK)
        st = tsr_cuda_prepare_sample();
    return st == TSR_OK ? tsr_cuda_prepare_router() : st;
}

static tsr_status open_fault(tsr_cuda_device *cuda)
{
    tsr_status st =
        TSR_CUDA(cudaHostAlloc((void **)&cuda->fault, sizeof(*cuda->fault), cudaHostAllocMapped));

    if (st == TSR_OK) {
        memset(cuda->fault, 0, sizeof(*cuda->fault));
        st = TSR_CUDA(cudaHostGetDevicePointer((void **)&cuda->faults.seen, cuda->fault, 0));
    }
    if (st == TSR_OK)
        st = alloc_cuda(&cuda->base, sizeof(*cuda->faults.claimed), (void **)&cuda->faults.claimed);
    return st;
}

extern "C" int32_t tsr_cuda_cards(void)
{
    int count = 0;

    if (cudaGetDeviceCount(&count) == cudaSuccess)
        return count;
    (void)cudaGetLastError();
    return 0;
}

extern "C" tsr_status tsr_cuda_card_name(int32_t ordinal, size_t capacity, char *ret_name)
{
    cudaDeviceProp card;
    const tsr_status st = find_card(ordinal, &card);

    if (st == TSR_OK)
        (void)snprintf(ret_name, capacity, "%s", card.name);
    return st;
}

extern "C" tsr_status tsr_cuda_card_id(int32_t ordinal, unsigned char ret_id[TSR_CARD_ID_BYTES])
{
    cudaDeviceProp card;
    const tsr_status st = find_card(ordinal, &card);

    if (st == TSR_OK)
        memcpy(ret_id, card.uuid.bytes, TSR_CARD_ID_BYTES);
    return st;
}

extern "C" tsr_status tsr_cuda_card_bus(int32_t ordinal, char ret_bus[TSR_CARD_BUS_BYTES])
{
    cudaDeviceProp card;
    const tsr_status st = find_card(ordinal, &card);

    if (st == TSR_OK)
        (void)snprintf(ret_bus, TSR_CARD_BUS_BYTES, "%04x:%02x:%02x.0", (unsigned)card.pciDomainID,
                       (unsigned)card.pciBusID, (unsigned)card.pciDeviceID);
    return st;
}

extern "C" tsr_status tsr_device_open_cuda(int32_t ordinal, bool alone, tsr_device **ret_device)
{
    cudaDeviceProp card;
    tsr_status st = find_card(ordinal, &card);

    if (st == TSR_OK)
        st = TSR_CUDA(cudaSetDevice(ordinal));
    if (st == TSR_OK)
        st = check_kernels(&card);
    if (st != TSR_OK)
        return st;
    tsr_cuda_device *cuda = (tsr_cuda_device *)calloc(1, sizeof(*cuda));
    if (cuda == NULL)
        return TSR_ERR_MEMORY;
    cuda->ordinal = ordinal;
    cuda->alone = alone;
    cuda->base.table = &table_cuda;
    cuda->base.blocks = &blocks_cuda;
    cuda->base.ops = &ops_cuda;
    (void)snprintf(cuda->base.name, sizeof(cuda->base.name), "cuda %.40s, GPU %d", card.name,
                   (int)ordinal);
    st = prepare_kernels(cuda);
    if (st == TSR_OK)
        st = open_fault(cuda);
    if (st == TSR_OK)
        st = TSR_CUDA(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    if (st != TSR_OK) {
        close_cuda(&cuda->base);
        return st;
    }
    *ret_device = &cuda->base;
    return TSR_OK;
}
