/*
 * Bytes of the CUDA device, cut up once:
 *
 *   | rows | scales | rows of up | wide | pairs by expert | tiles | splits of attention |
 *
 * Each begins on 256 bytes.
 *
 * One buffer of operand rows serves all linears in turn: the stream keeps their order.
 */
#include "kernels/cuda/device/work_cuda.h"

#include "runtime/base/sizes.h"

enum { ALIGNMENT = 256 };

typedef struct cutter {
    unsigned char *memory;
    uint64_t used;
} cutter;

static uint64_t aligned(uint64_t bytes)
{
    return tsr_aligned(bytes, ALIGNMENT);
}

static void *cut(cutter *c, uint64_t count, uint64_t size)
{
    void *piece = c->memory != NULL ? c->memory + c->used : NULL;

    c->used += aligned(count * size);
    return piece;
}

/* Sums of splits of attention: a row of values, their weight and the largest score for each query
 * head; heads are widened to a power of two, of which 64 is the least. */
static uint64_t attend_floats(const tsr_work_shape *shape)
{
    const uint64_t splits =
        ((uint64_t)shape->max_context + TSR_ATTEND_SPLIT - 1) / TSR_ATTEND_SPLIT + 1;
    const uint64_t slots = tsr_smaller_size(
        TSR_ATTEND_SLOTS, (uint64_t)shape->max_tokens * (uint64_t)shape->q_heads * splits);
    uint64_t width = 64;

    while (width < (uint64_t)shape->head_dim)
        width *= 2;
    return slots * TSR_ATTEND_ROWS * (width + 2);
}

uint64_t tsr_cuda_work_layout(const tsr_work_shape *shape, unsigned char *memory,
                              tsr_cuda_work *ret_work)
{
    const uint64_t tokens = (uint64_t)shape->max_tokens;
    const uint64_t answers = (uint64_t)shape->max_answers;
    const uint64_t experts = (uint64_t)shape->max_experts;
    const uint64_t in = tsr_aligned((uint64_t)shape->max_in, TSR_CUDA_PADDING);
    const uint64_t intermediate = (uint64_t)shape->max_intermediate;
    const uint64_t rows =
        tsr_larger_size(tokens, tsr_larger_size(answers, (uint64_t)shape->max_logit_rows));
    const uint64_t groups = (in + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP;
    const uint64_t tiles = answers / TSR_CUDA_LEAST_TILE + tsr_smaller_size(experts, answers);
    cutter c = {0};
    tsr_cuda_work w = {.max_tiles = (int32_t)tiles};

    c.memory = memory;
    w.rows = cut(&c, rows * in, sizeof(*w.rows));
    w.scale = cut(&c, rows, sizeof(*w.scale));
    w.group_scale = cut(&c, rows * groups, sizeof(*w.group_scale));
    w.up_rows = cut(&c, rows * in, sizeof(*w.up_rows));
    w.up_scale = cut(&c, rows, sizeof(*w.up_scale));
    w.up_group_scale = cut(&c, rows * groups, sizeof(*w.up_group_scale));
    w.ones = cut(&c, tokens, sizeof(*w.ones));
    w.wide = cut(&c, rows * intermediate, sizeof(*w.wide));
    w.wide_up = cut(&c, tokens * intermediate, sizeof(*w.wide_up));
    w.source = cut(&c, answers, sizeof(*w.source));
    w.target = cut(&c, answers, sizeof(*w.target));
    w.pair_of = cut(&c, (uint64_t)shape->max_rows * (uint64_t)shape->top_k, sizeof(*w.pair_of));
    w.tile = cut(&c, answers, sizeof(*w.tile)); /* wide rows are cut for a pair or two */
    w.tiles = cut(&c, 1, sizeof(*w.tiles));
    w.attend_floats = (int64_t)attend_floats(shape);
    w.attend_partial = cut(&c, attend_floats(shape), sizeof(*w.attend_partial));
    w.attend_arrived = cut(&c, TSR_ATTEND_PAIRS, sizeof(*w.attend_arrived));
    w.packets =
        cut(&c, tsr_smaller_size(TSR_PACKET_SLOTS, answers) * intermediate, sizeof(*w.packets));
    w.launch = cut(&c, 2, sizeof(*w.launch));
    w.sent = cut(&c, tsr_smaller_size(TSR_CUDA_SENT, answers) * (uint64_t)shape->hidden,
                 sizeof(*w.sent));
    w.told = cut(&c, TSR_CUDA_TOLD + in, sizeof(*w.told));
    *ret_work = w;
    return c.used;
}

uint64_t tsr_cuda_workspace_bytes(const tsr_work_shape *shape, int32_t threads)
{
    tsr_cuda_work unused;

    (void)threads;
    return tsr_cuda_work_layout(shape, NULL, &unused);
}

bool tsr_cuda_is_packed(tsr_weight_format format)
{
    return format != TSR_WEIGHT_F32;
}

/* Rows in whole tiles, columns padded. */
static uint64_t weight_bytes(tsr_weight_format format, int32_t out, int32_t in)
{
    if (!tsr_cuda_is_packed(format))
        return tsr_weight_bytes(format, out, in);
    return tsr_weight_bytes(format, (int32_t)tsr_aligned((uint64_t)out, TSR_CUDA_TILE),
                            tsr_cuda_padded(in));
}

static uint64_t scale_bytes(tsr_weight_format format, int32_t out, int32_t in)
{
    if (format != TSR_WEIGHT_NVFP4)
        return tsr_scale_bytes(format, out, in);
    return tsr_scale_bytes(format, (int32_t)tsr_aligned((uint64_t)out, TSR_CUDA_TILE),
                           tsr_cuda_padded(in));
}

tsr_cuda_linear_layout tsr_cuda_linear_layout_of(tsr_weight_format format, int32_t out, int32_t in,
                                                 bool bias, bool pre_quant_scale)
{
    tsr_cuda_linear_layout at;

    at.scales = aligned(weight_bytes(format, out, in));
    at.bias = at.scales + aligned(scale_bytes(format, out, in));
    at.pre_quant_scale = at.bias + aligned(bias ? (uint64_t)out * sizeof(float) : 0);
    at.end = at.pre_quant_scale + aligned(pre_quant_scale ? (uint64_t)in * sizeof(float) : 0);
    return at;
}

uint64_t tsr_cuda_linear_bytes(tsr_weight_format format, int32_t out, int32_t in, bool bias,
                               bool pre_quant_scale)
{
    return tsr_cuda_linear_layout_of(format, out, in, bias, pre_quant_scale).end;
}
