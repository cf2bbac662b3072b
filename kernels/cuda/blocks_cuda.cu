/*
 * Blocks in as few kernels as they take: norms and quantization on the way into a linear, the residual
 * on the way out of it.
 *
 *   attention   x --norm--> operand rows --> q, k, v --> attended --> operand rows --> x + o
 *   mlp         x --norm--> operand rows --> wide --> operand rows --> x + down
 *   predict     x --norm--> operand rows --> logits --> samples
 */
#include "kernels/cuda/blocks_cuda.cuh"

#include "kernels/cuda/attention/attend_cuda.h"
#include "kernels/cuda/linear/linear_cuda.cuh"
#include "kernels/cuda/operands/attend_left_cuda.cuh"

static tsr_status enter_attention(tsr_device *device, const tsr_attention_block *b, tsr_stream s)
{
    tsr_cuda_linears a = {};

    a.y[0] = (float *)device->rows.q;
    a.y[1] = (float *)device->rows.k;
    a.y[2] = (float *)device->rows.v;
    a.linear[0] = b->q;
    a.linear[1] = b->k;
    a.linear[2] = b->v;
    a.from.x = (const float *)b->x;
    a.from.x_stride = b->q->in;
    a.from.norm = b->norm;
    a.from.eps = b->eps;
    a.count = 3;
    a.rows = b->tokens;
    a.entered = b->is_entered;
    return tsr_cuda_run_linears(tsr_cuda(device), &a, tsr_cuda_stream(device, s));
}

static tsr_rotary_args turn_of(const tsr_device *device, const tsr_attention_block *b)
{
    tsr_rotary_args a = {};

    a.q = device->rows.q;
    a.k = device->rows.k;
    a.q_norm = b->q_norm;
    a.k_norm = b->k_norm;
    a.cos = b->cos;
    a.sin = b->sin;
    a.position = b->position;
    a.tokens = b->tokens;
    a.q_heads = b->q_heads;
    a.kv_heads = b->cache->kv_heads;
    a.head_dim = b->cache->head_dim;
    a.rotary_dim = b->rotary_dim;
    a.eps = b->eps;
    return a;
}

/* Whether o takes what attention gives as it is, in BF16. */
static bool takes_bf16(const tsr_linear *o)
{
    return o->format == TSR_WEIGHT_BF16 && o->activation == TSR_ACTIVATION_NONE &&
           o->pre_quant_scale == NULL;
}

/* Whether o adds up what attention leaves of splits: of a single row. */
static bool leaves(const tsr_device *device, const tsr_attention_block *b)
{
    return b->tokens == b->sequences && b->cache->format != TSR_KV_F32 &&
           b->cache->head_dim % 8 == 0 &&
           tsr_cuda_takes_splits((const tsr_cuda_device *)(const void *)device, b->o, b->tokens);
}

static tsr_status attend(tsr_device *device, const tsr_attention_block *b, tsr_stream s,
                         tsr_cuda_splits *ret_left)
{
    const tsr_rotary_args turn = turn_of(device, b);
    tsr_attention_args a = {};

    if (takes_bf16(b->o))
        a.rows = tsr_cuda(device)->work.rows;
    else
        a.out = device->rows.attended;
    a.q = device->rows.q;
    a.k = device->rows.k;
    a.v = device->rows.v;
    a.cache = b->cache;
    a.sequence = b->sequence;
    a.blocks = b->blocks;
    a.sequences = b->sequences;
    a.tokens = b->tokens;
    a.q_heads = b->q_heads;
    if (leaves(device, b))
        return tsr_attend_leaving_cuda(device, &turn, &a, s, ret_left);
    return tsr_attend_cuda(device, &turn, &a, s);
}

static tsr_status leave_attention(tsr_device *device, const tsr_attention_block *b,
                                  const tsr_cuda_splits *left, tsr_stream s)
{
    tsr_cuda_linears a = {};

    a.y[0] = (float *)b->x;
    a.add = (const float *)b->x;
    a.linear[0] = b->o;
    a.from.left = *left;
    a.from.x = left->sums == NULL ? (const float *)device->rows.attended : NULL;
    a.from.x_stride = b->o->in;
    a.count = 1;
    a.rows = b->tokens;
    a.made = left->sums == NULL && takes_bf16(b->o);
    return tsr_cuda_run_linears(tsr_cuda(device), &a, tsr_cuda_stream(device, s));
}

tsr_status tsr_block_attention_cuda(tsr_device *device, const tsr_attention_block *b, tsr_stream s)
{
    tsr_cuda_splits left = {};
    tsr_status st = enter_attention(device, b, s);

    if (st == TSR_OK)
        st = attend(device, b, s, &left);
    return st == TSR_OK ? leave_attention(device, b, &left, s) : st;
}

tsr_status tsr_block_mlp_cuda(tsr_device *device, const tsr_mlp_block *b, tsr_stream s)
{
    tsr_cuda_mlp a = {};

    a.out = (float *)b->x;
    a.add = (const float *)b->x;
    a.mlp = b->mlp;
    a.from.x = (const float *)b->x;
    a.from.x_stride = b->mlp->gate.in;
    a.from.norm = b->norm;
    a.from.eps = b->eps;
    a.rows = b->tokens;
    return tsr_cuda_run_mlp(tsr_cuda(device), &a, tsr_cuda_stream(device, s));
}

tsr_status tsr_block_shared_cuda(tsr_device *device, const tsr_shared_block *b, tsr_stream s)
{
    tsr_cuda_mlp a = {};

    a.out = (float *)b->out;
    a.mlp = b->mlp;
    a.from.x = (const float *)b->rows; /* each begins with its activations */
    a.from.x_stride = (int64_t)(b->row_bytes / sizeof(float));
    a.rows = b->tokens;
    return tsr_cuda_run_mlp(tsr_cuda(device), &a, tsr_cuda_stream(device, s));
}

/* Only the rows that are wanted. */
static tsr_status logits(tsr_device *device, const tsr_predict_block *b, tsr_stream s)
{
    tsr_cuda_linears a = {};

    a.y[0] = b->logits;
    a.linear[0] = b->head;
    a.from.x = (const float *)b->x;
    a.from.row = b->x_row;
    a.from.x_stride = b->head->in;
    a.from.norm = b->norm;
    a.from.eps = b->eps;
    a.count = 1;
    a.rows = b->rows;
    return tsr_cuda_run_linears(tsr_cuda(device), &a, tsr_cuda_stream(device, s));
}

tsr_status tsr_block_predict_cuda(tsr_device *device, const tsr_predict_block *b, tsr_stream s)
{
    tsr_sample_args sample = {};
    tsr_status st = b->rows > 0 ? logits(device, b, s) : TSR_OK;

    sample.sampled = b->sampled;
    sample.top = b->top;
    sample.logits = b->logits;
    sample.row = b->row;
    sample.rules = b->rules;
    sample.masks = b->masks;
    sample.mask_rows = b->mask_rows;
    sample.is_bent = b->is_bent;
    sample.text = b->text;
    sample.rows = b->rows;
    sample.samples = b->samples;
    sample.tops = b->tops;
    sample.vocab = b->head->out;
    sample.allowed = b->allowed;
    if (b->samples > 0 && st == TSR_OK)
        st = tsr_sample_cuda(device, &sample, s);
    return st;
}
