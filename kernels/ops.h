/*
 * The operations of a forward pass on one device. Rows of activations are of the device's
 * activation type (f32 on a CPU); logits, weights of experts and norms are f32 everywhere.
 *
 * Rules that hold for every operation below:
 *
 *   Own bits   What is computed for a row depends on that row (and its sequence's cache) alone:
 *              not on the other rows, on the thread count or on the instruction set.
 *   Ordered    Work is ordered after what is already on the stream; buffers stay untouched until
 *              the stream has passed. On a CPU an operation is complete when it returns.
 *   Empty      Zero rows are legal and do nothing.
 *   Errors     TSR_ERR_ARG, logged: an argument contradicts the shapes or the reserved workspace.
 */
#ifndef TSR_KERNELS_OPS_H
#define TSR_KERNELS_OPS_H

#include "kernels/device.h"
#include "runtime/base/model_facts.h"

#include <stdbool.h>

/* out[t] = table[ids[t]] */
typedef struct tsr_embed_args {
    void *out;               /* [T, H] */
    const int32_t *ids;      /* [T], each in 0..V-1 */
    const tsr_linear *table; /* [V, H]: format F32, F16 or BF16; `out` is V, `in` is H */
    int32_t tokens;          /* T */
} tsr_embed_args;
TSR_MUST_USE tsr_status tsr_op_embed(tsr_device *device, const tsr_embed_args *a, tsr_stream s);

/* RMSNorm: out = x / sqrt(mean(x^2) + eps) * weight. out may be x. */
typedef struct tsr_norm_args {
    void *out;           /* [T, H] */
    const void *x;       /* [T, H] */
    const float *weight; /* [H] */
    int32_t tokens;      /* T */
    int32_t hidden;      /* H */
    float eps;
} tsr_norm_args;
TSR_MUST_USE tsr_status tsr_op_norm(tsr_device *device, const tsr_norm_args *a, tsr_stream s);

/*
 * Several linears over the same rows: q, k and v; gate and up; or one alone. The input is quantized
 * once for neighbours whose activation, input_scale and pre_quant_scale agree.
 */
enum { TSR_MAX_LINEARS = 4 };
typedef struct tsr_linears_args {
    void *out[TSR_MAX_LINEARS];                /* each [T, linear->out] */
    const tsr_linear *linear[TSR_MAX_LINEARS]; /* all of the same `in` */
    const void *x;                             /* [T, in], row stride in * activation bytes */
    int32_t count;                             /* linears, 1..TSR_MAX_LINEARS */
    int32_t tokens;                            /* T */
} tsr_linears_args;
TSR_MUST_USE tsr_status tsr_op_linears(tsr_device *device, const tsr_linears_args *a, tsr_stream s);

/* logits[r] = x[row[r]] W^T, in f32. */
typedef struct tsr_head_args {
    float *logits;      /* [R, V] */
    const void *x;      /* [T, H] */
    const int32_t *row; /* [R] rows of x */
    const tsr_linear *head;
    int32_t rows; /* R */
} tsr_head_args;
TSR_MUST_USE tsr_status tsr_op_head(tsr_device *device, const tsr_head_args *a, tsr_stream s);

/* out = a + b; out may be either. */
typedef struct tsr_add_args {
    void *out;     /* [T, H] */
    const void *a; /* [T, H] */
    const void *b; /* [T, H] */
    int32_t tokens;
    int32_t hidden;
} tsr_add_args;
TSR_MUST_USE tsr_status tsr_op_add(tsr_device *device, const tsr_add_args *a, tsr_stream s);

/*
 * Per head: RMSNorm where a weight is given, then rotation of the first rotary_dim dims by halves:
 *   x[i]          = x[i] cos - x[i + r/2] sin
 *   x[i + r/2]    = x[i + r/2] cos + x[i] sin      for i < r/2, r = rotary_dim
 * In place.
 */
typedef struct tsr_rotary_args {
    void *q;                 /* [T, q_heads, D] */
    void *k;                 /* [T, kv_heads, D] */
    const float *q_norm;     /* [D] or NULL */
    const float *k_norm;     /* [D] or NULL */
    const float *cos;        /* [positions, rotary_dim / 2] */
    const float *sin;        /* [positions, rotary_dim / 2] */
    const int32_t *position; /* [T] */
    int32_t tokens;          /* T */
    int32_t q_heads;
    int32_t kv_heads;
    int32_t head_dim; /* D, a multiple of 16 */
    int32_t rotary_dim;
    float eps;
} tsr_rotary_args;
TSR_MUST_USE tsr_status tsr_op_rotary(tsr_device *device, const tsr_rotary_args *a, tsr_stream s);

/*
 * Paged keys and values of one layer. A block holds block_tokens consecutive positions of one
 * sequence, and begins at a position that is a multiple of block_tokens:
 *
 *   keys    [blocks, kv_heads, block_tokens, D]
 *   values  [blocks, kv_heads, block_tokens, D]
 */
typedef struct tsr_kv_layer {
    void *keys;
    void *values;
    tsr_kv_format format;
    float key_scale; /* FP8: stored = e4m3(x / scale) */
    float value_scale;
    int32_t blocks;
    int32_t block_tokens;
    int32_t kv_heads;
    int32_t head_dim; /* D */
} tsr_kv_layer;

/* One sequence's share of a step: rows first_row .. first_row + rows of q, k, v are its positions
 * first_position .... */
typedef struct tsr_attention_sequence {
    int32_t first_row;
    int32_t rows;
    int32_t first_position; /* positions before it are in the cache already */
    int32_t first_block;    /* its block table starts at blocks[first_block], entry p / block_tokens
                               for position p */
} tsr_attention_sequence;

/*
 * Writes the rows' keys and values into the cache, then attends: a position sees itself and all
 * before it, keys and values as the cache holds them (quantized where it is), queries unquantized.
 *   softmax(q k^T / sqrt(D)) v, kv head = q head / (q_heads / kv_heads)
 */
typedef struct tsr_attention_args {
    void *out;     /* [T, q_heads, D] */
    const void *q; /* [T, q_heads, D] */
    const void *k; /* [T, kv_heads, D] */
    const void *v; /* [T, kv_heads, D] */
    const tsr_kv_layer *cache;
    const tsr_attention_sequence *sequence; /* [sequences], in device memory */
    const int32_t *blocks;                  /* block tables, in device memory */
    int32_t sequences;
    int32_t tokens; /* T, the sum of their rows */
    int32_t q_heads;
} tsr_attention_args;
TSR_MUST_USE tsr_status tsr_op_attention(tsr_device *device, const tsr_attention_args *a,
                                         tsr_stream s);

/*
 * Chooses K of E experts for each row. Ties go to the lower id. Slot order is by descending choice.
 *
 *   SOFTMAX  p = softmax(logits) over all E; the K largest p;
 *            weight p, / sum of the K where normalised
 *   SIGMOID  s = sigmoid(logits); choice = s + bias;
 *            groups scored by the sum of their two best choices, top_groups kept;
 *            the K largest choices; weight s, / (sum of the K + 1e-20) where normalised,
 *            * routed_scale
 */
typedef struct tsr_router_args {
    int32_t *expert;        /* [T, K] */
    float *weight;          /* [T, K] */
    const void *x;          /* [T, H] */
    const tsr_linear *gate; /* [E, H], unquantized */
    const float *bias;      /* [E] added to the choice, or NULL */
    tsr_router_kind kind;
    int32_t tokens; /* T */
    int32_t top_k;  /* K */
    int32_t groups;
    int32_t top_groups;
    bool normalise;
    float routed_scale;
} tsr_router_args;
TSR_MUST_USE tsr_status tsr_op_router(tsr_device *device, const tsr_router_args *a, tsr_stream s);

/* down(silu(gate(x)) * up(x)) */
typedef struct tsr_mlp {
    tsr_linear gate; /* [I, H] */
    tsr_linear up;   /* [I, H] */
    tsr_linear down; /* [H, I] */
} tsr_mlp;

typedef struct tsr_mlp_args {
    void *out;     /* [T, H] */
    const void *x; /* [T, H] */
    const tsr_mlp *mlp;
    int32_t tokens;
} tsr_mlp_args;
TSR_MUST_USE tsr_status tsr_op_mlp(tsr_device *device, const tsr_mlp_args *a, tsr_stream s);

/*
 * Rows as they travel: the activations of a token, then the ids it chose, then padding to a
 * multiple of 16 bytes.
 *
 *   | x[t] : H * activation bytes | expert[t] : K * 4 bytes | padding |
 */
size_t tsr_packed_row_bytes(size_t activation_bytes, int32_t hidden, int32_t top_k);

/* Fills packed rows, and beside them one tag for each chosen id:
 *   tag[t, k] = tag_of[expert[t, k]] */
typedef struct tsr_pack_args {
    void *rows;            /* [T, row_bytes] */
    int32_t *tag;          /* [T, K] */
    const void *x;         /* [T, H] */
    const int32_t *expert; /* [T, K] */
    const int32_t *tag_of; /* [E], in device memory */
    size_t row_bytes;
    int32_t tokens; /* T */
    int32_t hidden; /* H */
    int32_t top_k;  /* K */
} tsr_pack_args;
TSR_MUST_USE tsr_status tsr_op_pack(tsr_device *device, const tsr_pack_args *a, tsr_stream s);

/*
 * The expert MLP over packed rows: for each row i and slot k with answer_of[i, k] >= 0,
 *   answers[answer_of[i, k]] = mlp of the row's k-th id (row i)
 * The input is quantized per expert and linear, after the rows have travelled.
 */
typedef struct tsr_expert_mlp_args {
    void *answers;            /* [answer_capacity, H] */
    const void *rows;         /* [rows_capacity, row_bytes] packed rows */
    const int32_t *row_count; /* [1], in device memory */
    const int32_t *answer_of; /* [rows_capacity, K], each answer index at most once */
    const tsr_mlp *mlps;      /* [local experts], in device memory */
    const int32_t *local_of;  /* [E] id -> index into mlps, -1: not here; in device memory */
    size_t row_bytes;
    int32_t hidden; /* H */
    int32_t top_k;  /* K */
    int32_t local_experts;
    int32_t experts; /* E */
} tsr_expert_mlp_args;
TSR_MUST_USE tsr_status tsr_op_expert_mlp(tsr_device *device, const tsr_expert_mlp_args *a,
                                          tsr_stream s);

/* out[t] = residual[t] + (sum over k in slot order of weight[t, k] * rows[t, k] + shared[t]) */
typedef struct tsr_combine_args {
    void *out;            /* [T, H], may be residual */
    const void *rows;     /* [T, K, H] */
    const float *weight;  /* [T, K] */
    const void *shared;   /* [T, H] or NULL */
    const void *residual; /* [T, H] */
    int32_t tokens;       /* T */
    int32_t hidden;       /* H */
    int32_t top_k;        /* K */
} tsr_combine_args;
TSR_MUST_USE tsr_status tsr_op_combine(tsr_device *device, const tsr_combine_args *a, tsr_stream s);

/* How one row of logits becomes a token. */
typedef struct tsr_sample_row {
    uint64_t seed;         /* of the request */
    uint64_t output_index; /* 0 for its first token: the random number depends on (seed,
                              output_index) only */
    float temperature;     /* 0: the largest logit, ties to the lower id */
    float top_p;           /* (0, 1] */
    int32_t top_k;         /* 0: all */
} tsr_sample_row;

typedef struct tsr_sample_args {
    int32_t *token; /* [R] */
    float *logprob; /* [R] log softmax of the chosen token over the allowed ids, at temperature 1 */
    const float *logits;       /* [R, V] */
    const tsr_sample_row *row; /* [R], in device memory */
    int32_t rows;              /* R */
    int32_t vocab;             /* V */
    int32_t allowed;           /* ids >= allowed are never chosen (padding of the vocabulary) */
} tsr_sample_args;
TSR_MUST_USE tsr_status tsr_op_sample(tsr_device *device, const tsr_sample_args *a, tsr_stream s);

#endif
