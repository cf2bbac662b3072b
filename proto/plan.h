/*
 * The plan: what every rank will hold, decided by the coordinator from headers alone and broadcast
 * once. A plain struct here; protobuf-c carries it (plan_wire.c is the only file that knows).
 *
 *   files      which files hold the bytes
 *   linears    every weight matrix: its precision and where each of its tensors lies
 *   vectors    norms, router biases, KV scales: small, unquantized
 *   placement  expert -> rank, for every layer
 *   budget     bytes of each rank, by kind
 *
 * One record per expert, so that formats may one day differ inside a layer.
 */
#ifndef TSR_PROTO_PLAN_H
#define TSR_PROTO_PLAN_H

#include "runtime/base/dtype.h"
#include "runtime/base/file_mark.h"
#include "runtime/base/format.h"
#include "runtime/base/model_facts.h"
#include "runtime/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a tensor does in the model. Linears first, then vectors. */
typedef enum tsr_role {
    TSR_ROLE_EMBED,  /* [V, H] */
    TSR_ROLE_HEAD,   /* [V, H]; absent when tied */
    TSR_ROLE_Q,      /* [q_heads * D, H] */
    TSR_ROLE_K,      /* [kv_heads * D, H] */
    TSR_ROLE_V,      /* [kv_heads * D, H] */
    TSR_ROLE_O,      /* [H, q_heads * D] */
    TSR_ROLE_ROUTER, /* [E, H] */
    TSR_ROLE_GATE,   /* dense [I, H] */
    TSR_ROLE_UP,
    TSR_ROLE_DOWN,        /* [H, I] */
    TSR_ROLE_SHARED_GATE, /* shared experts */
    TSR_ROLE_SHARED_UP,
    TSR_ROLE_SHARED_DOWN,
    TSR_ROLE_EXPERT_GATE, /* one routed expert */
    TSR_ROLE_EXPERT_UP,
    TSR_ROLE_EXPERT_DOWN,
    TSR_ROLE_FINAL_NORM,  /* [H]; from here on vectors */
    TSR_ROLE_INPUT_NORM,  /* [H] */
    TSR_ROLE_POST_NORM,   /* [H] */
    TSR_ROLE_Q_NORM,      /* [D] */
    TSR_ROLE_K_NORM,      /* [D] */
    TSR_ROLE_ROUTER_BIAS, /* [E], f32 */
    TSR_ROLE_K_SCALE,     /* [1] */
    TSR_ROLE_V_SCALE,     /* [1] */
    TSR_ROLE_COUNT
} tsr_role;

/* What a checkpoint may declare for a linear and Tessera serves. runtime/plan/algos.c has a row for
 * each. */
typedef enum tsr_algo {
    TSR_ALGO_NONE, /* F32, F16 or BF16 as stored */
    TSR_ALGO_FP8,
    TSR_ALGO_FP8_PER_CHANNEL_PER_TOKEN,
    TSR_ALGO_FP8_BLOCK_SCALES,
    TSR_ALGO_FP8_PB_WO,
    TSR_ALGO_NVFP4,
    TSR_ALGO_W4A16_NVFP4,
    TSR_ALGO_NVFP4_AWQ,
    TSR_ALGO_COUNT
} tsr_algo;

enum { TSR_NO_FILE = -1 };

/* Where one tensor's bytes lie. file < 0: the tensor does not exist. */
typedef struct tsr_tensor_place {
    int32_t file; /* index into files, or TSR_NO_FILE */
    tsr_dtype dtype;
    uint64_t offset; /* from the start of the file */
    uint64_t bytes;
} tsr_tensor_place;

typedef struct tsr_linear_plan {
    int32_t layer; /* -1: not of a layer */
    tsr_role role;
    int32_t expert; /* -1: not a routed expert */
    tsr_algo algo;
    tsr_weight_format format;
    tsr_activation activation;
    int32_t out;
    int32_t in;
    tsr_tensor_place weight;
    tsr_tensor_place scale;        /* weight_scale or weight_scale_inv */
    tsr_tensor_place global_scale; /* weight_scale_2 */
    tsr_tensor_place
        input_scale; /* present in the file; used only where the activation is static */
    tsr_tensor_place pre_quant_scale; /* [in] */
    tsr_tensor_place bias;            /* [out] */
} tsr_linear_plan;

typedef struct tsr_vector_plan {
    int32_t layer; /* -1: not of a layer */
    tsr_role role;
    int32_t elements;
    tsr_tensor_place place;
} tsr_vector_plan;

typedef struct tsr_rank_budget {
    uint64_t weights_bytes;
    uint64_t kv_bytes;
    uint64_t workspace_bytes;
    uint64_t buffers_bytes;
    uint64_t loading_bytes; /* beside the weights while they are read, before kv, workspace and
                               buffers are used; 0 where that is another memory */
} tsr_rank_budget;

/* How large the engine is built, the same on every rank. */
typedef struct tsr_engine_limits {
    int32_t max_model_len;      /* positions of one sequence */
    int32_t max_num_seqs;       /* sequences of one rank at a time */
    int32_t max_batched_tokens; /* tokens of one rank in one step */
    int32_t exchange_tokens;    /* tokens a rank sends in one exchange; a step may take several */
    int32_t kv_block_tokens;    /* positions of a KV block */
    int32_t kv_blocks;          /* blocks of one rank */
    int32_t logit_rows;         /* rows of logits of one rank in one step */
    int32_t threads;            /* of the CPU device of one rank */
} tsr_engine_limits;

typedef struct tsr_plan {
    tsr_model_facts model;
    tsr_engine_limits limits;
    tsr_kv_format kv_format;
    int32_t token_ids; /* ids of the tokenizer; those beyond are never sampled. 0: no tokenizer, all
                          of V */
    int32_t ranks;
    char *folder;             /* of the checkpoint, as every rank can open it */
    char **files;             /* [file_count] names inside the folder */
    tsr_file_mark *marks;     /* [file_count] of the files that were planned with */
    tsr_linear_plan *linears; /* [linear_count] by layer, role, expert */
    tsr_vector_plan *vectors; /* [vector_count] by layer, role */
    int32_t *expert_rank;     /* [layers, E]; rows of dense layers are -1 */
    tsr_rank_budget *budget;  /* [ranks] */
    uint64_t digest; /* of everything above; tsr_plan_pack sets it, tsr_plan_unpack checks it */
    int32_t file_count;
    int32_t linear_count;
    int32_t vector_count;
} tsr_plan;

/* Bytes to send; the caller frees *ret_bytes. Sets plan->digest. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_plan_pack(tsr_plan *plan, unsigned char **ret_bytes, size_t *ret_count);

/*
 * From received bytes; every count, index and length is checked. Close *ret_plan.
 *
 * TSR_ERR_MISMATCH, logged  malformed, or the digest does not hold
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_plan_unpack(const unsigned char *bytes, size_t count,
                                        tsr_plan **ret_plan);

/* "q_proj", "experts.gate_proj"; never NULL. */
const char *tsr_role_name(tsr_role role);

bool tsr_role_is_linear(tsr_role role);

/* Frees a plan and all it holds. NULL is allowed. */
void tsr_plan_close(tsr_plan *plan);

#endif
