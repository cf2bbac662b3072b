/*
 * How large things are, derived from a model and its limits: what the budget counts and what the
 * model then takes. One definition for both, so that a plan that fits is a model that opens.
 *
 *   workspace   what the device needs inside an operation
 *   exchange    rows between ranks
 *   step        the arrays a forward pass goes through, and the tables it reads
 *   kv          keys and values of one layer
 */
#ifndef TSR_RUNTIME_PLAN_SHAPES_H
#define TSR_RUNTIME_PLAN_SHAPES_H

#include "comm/exchange.h"
#include "kernels/device.h"
#include "proto/plan.h"
#include "runtime/base/format.h"
#include "runtime/base/model_facts.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The largest of everything that one operation will see. */
tsr_work_shape tsr_work_shape_of(const tsr_model_facts *model, const tsr_engine_limits *limits,
                                 int32_t ranks);

/* `activation_bytes` as tsr_device_activation_bytes. */
tsr_exchange_shape tsr_exchange_shape_of(const tsr_model_facts *model,
                                         const tsr_engine_limits *limits, int32_t ranks,
                                         size_t activation_bytes);

/*
 * The arrays of a step, all in device memory. T is max_batched_tokens, S max_num_seqs, P
 * max_model_len, R logit_rows, r rotary_dim.
 */
typedef enum tsr_step_array {
    TSR_STEP_RESIDUAL,  /* [T, H] */
    TSR_STEP_NORMED,    /* [T, H] */
    TSR_STEP_DELTA,     /* [T, H] what a block adds to the residual; the shared experts' output */
    TSR_STEP_Q,         /* [T, q_heads * D] */
    TSR_STEP_K,         /* [T, kv_heads * D] */
    TSR_STEP_V,         /* [T, kv_heads * D] */
    TSR_STEP_ATTENDED,  /* [T, q_heads * D] */
    TSR_STEP_EXPERT,    /* [T, K] i32 */
    TSR_STEP_WEIGHT,    /* [T, K] f32 */
    TSR_STEP_LOGITS,    /* [R, V] f32 */
    TSR_STEP_TOKEN,     /* [T] i32 */
    TSR_STEP_POSITION,  /* [T] i32 */
    TSR_STEP_SEQUENCE,  /* [S] tsr_attention_sequence */
    TSR_STEP_BLOCK,     /* [S * ceil(P / block_tokens)] i32 */
    TSR_STEP_LOGIT_ROW, /* [R] i32 */
    TSR_STEP_COS,       /* [P, r / 2] f32 */
    TSR_STEP_SIN,       /* [P, r / 2] f32 */
    TSR_STEP_OWNER,     /* [layers, E] i32: the rank of each expert */
    TSR_STEP_LOCAL,     /* [layers, E] i32: the place of each expert on this rank */
    TSR_STEP_MLPS,      /* [layers, E] tsr_mlp: views of this rank's experts, room for all */
    TSR_STEP_ARRAYS
} tsr_step_array;

/* A multiple of 64. */
uint64_t tsr_step_array_bytes(tsr_step_array array, const tsr_model_facts *model,
                              const tsr_engine_limits *limits, size_t activation_bytes);

/* Of all arrays together. */
uint64_t tsr_step_bytes(const tsr_model_facts *model, const tsr_engine_limits *limits,
                        size_t activation_bytes);

/* Bytes of one layer's keys, the same as of its values; a multiple of 64. */
uint64_t tsr_kv_half_bytes(const tsr_model_facts *model, const tsr_engine_limits *limits,
                           tsr_kv_format format);

/* Bytes of the whole cache: keys and values of every layer. */
uint64_t tsr_kv_bytes(const tsr_model_facts *model, const tsr_engine_limits *limits,
                      tsr_kv_format format);

/* Device bytes of a vector, kept as f32; KV scales are kept beside the cache and take none. A
 * multiple of 64. */
uint64_t tsr_vector_bytes(const tsr_vector_plan *vector);

/* Everything but the routed experts is on every rank; a routed expert is on one. */
bool tsr_rank_holds(const tsr_plan *plan, const tsr_linear_plan *linear, int32_t rank);

#endif
