/*
 * The small operations of a forward pass: what compose.c makes the blocks of. They belong to the
 * kernels; everyone else calls the blocks (blocks.h), whose rules hold here too. Embedding, the
 * experts and the combination are operations and blocks in one and take the block's arguments.
 *
 * Nothing is checked here: the front doors of the blocks have looked at shapes and workspace, and
 * what stands wrong in device memory becomes a fault.
 */
#ifndef TSR_KERNELS_OPS_H
#define TSR_KERNELS_OPS_H

#include "kernels/blocks.h"

/* RMSNorm: out[t] = x / sqrt(mean(x^2) + eps) * weight over x = x[row[t]]. out may be x where row
 * is NULL. Fault: a row beyond the tokens reserved. */
typedef struct tsr_norm_args {
    void *out;           /* [T, H] */
    const void *x;       /* [.., H] */
    const int32_t *row;  /* [T], in device memory, or NULL: row t */
    const float *weight; /* [H] */
    int32_t tokens;      /* T */
    int32_t hidden;      /* H */
    float eps;
} tsr_norm_args;

/*
 * Several linears over the same rows: q, k and v; gate and up; or one alone. The input is quantized
 * once for neighbours whose activation, input_scale and pre_quant_scale agree.
 */
enum { TSR_MAX_LINEARS = 4 };
typedef struct tsr_linears_args {
    void *out[TSR_MAX_LINEARS];                /* each [T, linear->out] */
    const tsr_linear *linear[TSR_MAX_LINEARS]; /* all of the same `in` */
    const void *x;                             /* [T, in] */
    int32_t count;                             /* linears, 1..TSR_MAX_LINEARS */
    int32_t tokens;                            /* T */
} tsr_linears_args;

/* logits[r] = x[r] W^T, in f32. */
typedef struct tsr_head_args {
    float *logits; /* [R, V] */
    const void *x; /* [R, H] */
    const tsr_linear *head;
    int32_t rows; /* R */
} tsr_head_args;

/* out = a + b; out may be either. */
typedef struct tsr_add_args {
    void *out;     /* [T, H] */
    const void *a; /* [T, H] */
    const void *b; /* [T, H] */
    int32_t tokens;
    int32_t hidden;
} tsr_add_args;

/* Norm of each head of q and k, then rotation, in place: as tsr_attention_block has it. */
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

/* Writes the rows' keys and values into the cache, then attends: as tsr_attention_block has it.
 * Faults: a sequence that does not fit the step or the context, a block that is none. */
typedef struct tsr_attention_args {
    void *out;      /* [T, q_heads, D]; or NULL, where rows are wanted alone */
    uint16_t *rows; /* the same in BF16, [T, q_heads D up to a multiple of 64], zeros behind; or
                       NULL: not wanted. CUDA only */
    const void *q;  /* [T, q_heads, D] */
    const void *k;  /* [T, kv_heads, D] */
    const void *v;  /* [T, kv_heads, D] */
    const tsr_kv_layer *cache;
    const tsr_attention_sequence *sequence; /* [sequences], in device memory */
    const int32_t *blocks;                  /* block tables, in device memory */
    int32_t sequences;
    int32_t tokens; /* T, the sum of their rows */
    int32_t q_heads;
} tsr_attention_args;

/* Chooses K of E experts for each row: as tsr_choose_block has it. */
typedef struct tsr_router_args {
    int32_t *expert; /* [T, K] */
    float *weight;   /* [T, K] */
    const void *x;   /* [T, H] */
    const tsr_router *router;
    int32_t tokens; /* T */
} tsr_router_args;

typedef struct tsr_mlp_args {
    void *out;     /* [T, H] */
    const void *x; /* [T, H], rows x_row_bytes apart */
    const tsr_mlp *mlp;
    size_t x_row_bytes;
    int32_t tokens;
} tsr_mlp_args;

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

/* Rows of logits to tokens, and these into the text; a row that is not finite fails alone. Faults: a
 * row of logits, a slot of the text, a mask or places of `top` that are none. */
typedef struct tsr_sample_args {
    tsr_sampled *sampled;         /* [samples] */
    tsr_token_logprob *top;       /* [tops] */
    const float *logits;          /* [rows, V] */
    const tsr_sample_row *row;    /* [samples], in device memory */
    const tsr_token_rules *rules; /* [text.slots], in device memory */
    const uint32_t *masks;        /* [mask_rows, tsr_mask_words(V)], in device memory */
    tsr_text_table text;
    int32_t rows;
    int32_t samples;
    int32_t tops;
    int32_t mask_rows;
    int32_t vocab; /* V */
    int32_t allowed;
    bool is_bent;
} tsr_sample_args;

#endif
