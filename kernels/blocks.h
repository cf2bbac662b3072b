/*
 * The public operations of a forward pass on one device: a handful of blocks a layer, so that a
 * backend may make each of them one kernel. Rows of activations are of the device's activation type
 * (f32 on a CPU); logits and weights of experts and norms are f32 everywhere.
 *
 *   embed       x = table[text[slot, position]]
 *   attention   x += o(attend(rotate(qkv(norm(x)))))            writes the KV cache
 *   mlp         x += mlp(norm(x))                                a dense layer
 *   choose      norm(x) -> rows that travel, their tags, and the weights of the chosen experts
 *   shared      the shared experts of those rows                 while they travel
 *   experts     arrived rows -> answers
 *   combine     x += (sum of weight * answer in slot order) + shared
 *   predict     logits = head(norm(x)) -> sampled tokens -> text
 *
 * What one block hands to another is an argument; what a block needs inside is the device's
 * workspace.
 *
 * Rules that hold for every block below:
 *
 *   Own bits   What is computed for a row depends on that row (and its sequence's cache) alone:
 *              not on the other rows, on the thread count or on the instruction set.
 *   Ordered    Work is ordered after what is already on the stream; buffers stay untouched until
 *              the stream has passed. Structs of arguments are read during the call only; what
 *              they point to outside device memory (linears, caches, experts) outlives the work.
 *   Empty      Zero rows are legal and do nothing.
 *   Errors     TSR_ERR_ARG, logged: an argument contradicts the shapes or the reserved workspace.
 *              What stands wrong in device memory becomes a fault (device.h).
 */
#ifndef TSR_KERNELS_BLOCKS_H
#define TSR_KERNELS_BLOCKS_H

#include "kernels/device.h"
#include "kernels/experts.h"
#include "runtime/base/model_facts.h"
#include "runtime/base/token_logprob.h"
#include "runtime/base/token_rules.h"

#include <stdbool.h>

/* What sequences say: text[slot, position], in device memory. Prompts are put there when a request
 * is admitted, sampled tokens by predict, so that a step needs nothing from the last one's host. */
typedef struct tsr_text_table {
    int32_t *ids; /* [slots, positions] */
    int32_t slots;
    int32_t positions; /* of a slot */
} tsr_text_table;

/* x[t] = table[text[slot[t], position[t]]]. Fault: an id beyond the table. */
typedef struct tsr_embed_block {
    void *x;                 /* [T, H] */
    const int32_t *slot;     /* [T] */
    const int32_t *position; /* [T] */
    const tsr_linear *table; /* [V, H]: format F32, F16 or BF16; `out` is V, `in` is H */
    tsr_text_table text;
    int32_t tokens; /* T */
} tsr_embed_block;
TSR_MUST_USE tsr_status tsr_block_embed(tsr_device *device, const tsr_embed_block *b, tsr_stream s);

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

/* One sequence's share of a step: rows first_row .. first_row + rows are its positions
 * first_position .... */
typedef struct tsr_attention_sequence {
    int32_t first_row;
    int32_t rows;
    int32_t first_position; /* positions before it are in the cache already */
    int32_t first_block;    /* its block table starts at blocks[first_block], entry p / block_tokens
                               for position p */
} tsr_attention_sequence;

/* How a block begins: with linear(norm(x)). */
typedef struct tsr_block_entry {
    const float *norm; /* [H] */
    const tsr_linear *linear;
    float eps;
} tsr_block_entry;

/*
 * x[t] += o(attention(rotate(qkv(norm(x))))). Each head of q and k is normed where a weight is
 * given, then its first rotary_dim dims rotate by halves:
 *   x[i]          = x[i] cos - x[i + r/2] sin
 *   x[i + r/2]    = x[i + r/2] cos + x[i] sin      for i < r/2, r = rotary_dim
 * Then the rows' keys and values go into the cache, and each position sees itself and all before
 * it, keys and values as the cache holds them (quantized where it is), queries unquantized:
 *   softmax(q k^T / sqrt(D)) v, kv head = q head / (q_heads / kv_heads)
 */
typedef struct tsr_attention_block {
    void *x;             /* [T, H] in and out */
    const float *norm;   /* [H] */
    const tsr_linear *q; /* [q_heads * D, H] */
    const tsr_linear *k; /* [kv_heads * D, H] */
    const tsr_linear *v; /* [kv_heads * D, H] */
    const tsr_linear *o; /* [H, q_heads * D] */
    const float *q_norm; /* [D] or NULL */
    const float *k_norm; /* [D] or NULL */
    const float *cos;    /* [positions, rotary_dim / 2] */
    const float *sin;    /* [positions, rotary_dim / 2] */
    const tsr_kv_layer *cache;
    const int32_t *position;                /* [T] */
    const tsr_attention_sequence *sequence; /* [sequences], in device memory */
    const int32_t *blocks;                  /* block tables, in device memory */
    int32_t tokens;                         /* T, the sum of the sequences' rows */
    int32_t sequences;
    int32_t q_heads;
    int32_t rotary_dim;
    float eps;
    bool is_entered; /* a combine of the same rows went before it on the stream, and nothing else
                        since, and was given this block's norm and q as `next` */
} tsr_attention_block;
TSR_MUST_USE tsr_status tsr_block_attention(tsr_device *device, const tsr_attention_block *b,
                                            tsr_stream s);

/* x[t] += mlp(norm(x[t])) */
typedef struct tsr_mlp_block {
    void *x;           /* [T, H] in and out */
    const float *norm; /* [H] */
    const tsr_mlp *mlp;
    int32_t tokens; /* T */
    float eps;
} tsr_mlp_block;
TSR_MUST_USE tsr_status tsr_block_mlp(tsr_device *device, const tsr_mlp_block *b, tsr_stream s);

/*
 * Chooses K of E experts for norm(x[t]) and writes what travels: packed rows (experts.h), and
 * beside them tag[t, k], the tag of the k-th chosen expert. Ties go to the lower id. Slot order is
 * by descending choice.
 *
 *   SOFTMAX  p = softmax(logits) over all E; the K largest p;
 *            weight p, / sum of the K where normalised
 *   SIGMOID  s = sigmoid(logits); choice = s + bias;
 *            groups scored by the sum of their two best choices, top_groups kept;
 *            the K largest choices; weight s, / (sum of the K + 1e-20) where normalised,
 *            * routed_scale
 */
typedef struct tsr_choose_block {
    void *rows;        /* [T, experts->row_bytes] */
    int32_t *tag;      /* [T, K] */
    float *weight;     /* [T, K] */
    const void *x;     /* [T, H] */
    const float *norm; /* [H] */
    const tsr_experts *experts;
    int32_t tokens; /* T */
    float eps;
    bool stays; /* the next experts on this stream are for these rows, here, and for no more: who
                   computes them may be told before they are there */
} tsr_choose_block;
TSR_MUST_USE tsr_status tsr_block_choose(tsr_device *device, const tsr_choose_block *b,
                                         tsr_stream s);

/* out[t] = mlp(the activations of packed row t) */
typedef struct tsr_shared_block {
    void *out;        /* [T, H] */
    const void *rows; /* [T, row_bytes] packed rows, not changed: they may be travelling */
    const tsr_mlp *mlp;
    size_t row_bytes;
    int32_t tokens; /* T */
} tsr_shared_block;
TSR_MUST_USE tsr_status tsr_block_shared(tsr_device *device, const tsr_shared_block *b,
                                         tsr_stream s);

/*
 * The experts' MLPs over packed rows: for each row i and slot k with answer_of[i, k] >= 0,
 *   answers[answer_of[i, k]] = mlp of the row's k-th id (row i)
 * On a GPU answers may lie in parts instead: number n is row n % 2^part_bits of part n >> part_bits,
 * and a part may be memory of another GPU.
 * The input is quantized per expert and linear, after the rows have travelled.
 * Faults: more rows or answers than reserved, an expert that is not here.
 */
typedef struct tsr_experts_block {
    void *answers;            /* [answer_capacity, H] */
    const void *rows;         /* [rows_capacity, experts->row_bytes] packed rows */
    const int32_t *row_count; /* [1], in device memory */
    const int32_t *answer_of; /* [rows_capacity, K], each answer number at most once */
    void *const *parts;       /* NULL, or in device memory: [any] instead of answers */
    int32_t part_bits;
    const tsr_experts *experts;
    int32_t most_rows; /* row_count is no more, or that is a fault: kernels are chosen by it */
    bool chosen;       /* the last choice on this stream was for these rows, and left them here: a
                          device may begin with a row's experts before the row is there */
} tsr_experts_block;
TSR_MUST_USE tsr_status tsr_block_experts(tsr_device *device, const tsr_experts_block *b,
                                          tsr_stream s);

/*
 * x[t] += (sum over k in slot order of weight[t, k] * answers[t, k] + shared[t])
 * On a GPU answers may still be coming, from other GPUs: a float of which all bits are ones has not,
 * is waited for, and all ones again when it has been read. Experts make no such float.
 */
typedef struct tsr_combine_block {
    void *x;              /* [T, H] in and out */
    const void *answers;  /* [T, K, H] */
    void *coming;         /* NULL, or answers, which may still be coming */
    const int32_t *ended; /* with coming: [2] in device memory; nothing comes when one is not 0 */
    const float *weight;  /* [T, K] */
    const void *shared;   /* [T, H] or NULL */
    int32_t tokens;       /* T */
    int32_t hidden;       /* H */
    int32_t top_k;        /* K */
    bool computed;        /* the answers are those of the last experts on this stream */
    tsr_block_entry next; /* how the attention block that follows at once begins, which is then told
                             (is_entered): a device may do that here. No linear: none follows */
} tsr_combine_block;
TSR_MUST_USE tsr_status tsr_block_combine(tsr_device *device, const tsr_combine_block *b,
                                          tsr_stream s);

typedef enum tsr_sample_flags {
    TSR_SAMPLE_FORCED = 1, /* the token is the one that stands in the text: only how probable it is
                              is asked. None where the text does not go so far */
    TSR_SAMPLE_RULED = 2,  /* by the rules of its slot */
    TSR_SAMPLE_MASKED =
        4, /* of the ids of a mask alone; all others are ruled out before the rules */
} tsr_sample_flags;

/* How one row of logits becomes a token, and where that goes. */
typedef struct tsr_sample_row {
    uint64_t seed;         /* of the request */
    uint64_t output_index; /* 0 for its first token: the random number depends on (seed,
                              output_index) only */
    float temperature;     /* 0: the largest logit, ties to the lower id */
    float top_p;           /* (0, 1] */
    float min_p;           /* [0, 1]: of the largest probability; what has less is left out first */
    int32_t top_k;         /* 0: all */
    int32_t logit_row;     /* rows may be sampled in any order, and more than once */
    int32_t slot;          /* text[slot, position] becomes the token, where the text goes so far */
    int32_t position;
    int32_t top_count; /* 0..TSR_MOST_TOP of the most probable ids that are told ... */
    int32_t first_top; /* ... at top[first_top ...] */
    uint32_t flags;    /* tsr_sample_flags */
    int32_t mask;      /* with TSR_SAMPLE_MASKED: of masks[] */
} tsr_sample_row;

/* Words of a mask. */
static inline int32_t tsr_mask_words(int32_t vocab)
{
    return (vocab + 31) / 32;
}

/* There is no next token: a logit of the allowed ids is NaN or infinite; or the rules leave no id. */
enum { TSR_NO_TOKEN = -1, TSR_NO_TOKEN_LEFT = -2 };

/* What came of it: the token or why there is none, and its log softmax over the allowed ids at
 * temperature 1; 0 if there is none, -INFINITY of a forced id that is not allowed. */
typedef tsr_token_logprob tsr_sampled;

typedef struct tsr_predict_block {
    tsr_sampled *sampled;      /* [samples] */
    tsr_token_logprob *top;    /* [tops] the allowed ids of the largest logits, in order, the lower
                                  of equals first; TSR_NO_TOKEN where there are no more */
    float *logits;             /* [rows, V] */
    const void *x;             /* [T, H] */
    const int32_t *x_row;      /* [rows] rows of x whose logits are computed */
    const tsr_sample_row *row; /* [samples], in device memory */
    const tsr_token_rules *rules; /* [slots] of the text, in device memory */
    const uint32_t *masks;        /* [mask_rows, tsr_mask_words(V)] in device memory: a bit for each
                                     id, the lowest first */
    const float *norm;            /* [H] */
    const tsr_linear *head;       /* [V, H] */
    tsr_text_table text;
    int32_t rows;
    int32_t samples;
    int32_t tops; /* that `top` has room for */
    int32_t mask_rows;
    int32_t allowed; /* ids >= allowed are never chosen (padding of the vocabulary) */
    float eps;
    bool is_bent; /* some row has rules, a mask or a min_p: else none has */
} tsr_predict_block;
TSR_MUST_USE tsr_status tsr_block_predict(tsr_device *device, const tsr_predict_block *b,
                                          tsr_stream s);

#endif
