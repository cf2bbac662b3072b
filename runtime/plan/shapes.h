/*
 * How large things are, derived from a model and its limits: what the budget counts and what the
 * model then takes. One definition for both, so that a plan that fits is a model that opens.
 *
 *   workspace   what the device needs inside an operation
 *   exchange    rows between ranks
 *   step        the arrays that blocks hand to each other, the tables they read, host memory
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
 * The arrays that blocks hand to each other and the tables they read, all in device memory. T is
 * max_batched_tokens, S max_num_seqs, P max_model_len, R logit_rows, r rotary_dim. Those of a
 * flight are there once for each step that may be under way.
 */
typedef enum tsr_step_array {
    TSR_STEP_RESIDUAL, /* [T, H] */
    TSR_STEP_WEIGHT,   /* [T, K] f32 of the chosen experts */
    TSR_STEP_SHARED,   /* [T, H] what the shared experts answer; empty without them */
    TSR_STEP_COS,      /* [P, r / 2] f32 */
    TSR_STEP_SIN,      /* [P, r / 2] f32 */
    TSR_STEP_EXPERTS,  /* [layers] tables of tsr_experts, room for all E on one rank */
    TSR_STEP_TEXT,     /* [S, P] i32 what sequences say */
    TSR_STEP_RULES,    /* [S] tsr_token_rules */
    TSR_STEP_BATCH,    /* the device's copy of a batch; of a flight, as are the next two */
    TSR_STEP_LOGITS,   /* [R, V] f32 */
    TSR_STEP_MASKS,    /* of samples, a bit for each id: tsr_batch_sizes.masks, mask_words */
    TSR_STEP_ARRAYS
} tsr_step_array;

/* Steps that may be under way at once, on any device. */
enum { TSR_MAX_FLIGHTS = 2 };

static inline bool tsr_step_array_of_flight(tsr_step_array array)
{
    return array >= TSR_STEP_BATCH;
}

/* Of one copy; a multiple of 64. */
uint64_t tsr_step_array_bytes(tsr_step_array array, const tsr_model_facts *model,
                              const tsr_engine_limits *limits, size_t activation_bytes);

/* Of all arrays together, with as many flights. */
uint64_t tsr_step_bytes(const tsr_model_facts *model, const tsr_engine_limits *limits,
                        size_t activation_bytes, int32_t flights);

/* Rows of logits that are brought to the host at once: about 4 MiB, at most R. */
int32_t tsr_staged_rows(const tsr_model_facts *model, const tsr_engine_limits *limits);

/* Bytes of host memory that steps go through: images of batches and what comes back of each flight,
 * and rows of logits, staged here and arrived from another rank. */
uint64_t tsr_step_host_bytes(const tsr_model_facts *model, const tsr_engine_limits *limits,
                             int32_t flights);

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
