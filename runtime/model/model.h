/*
 * A rank's weights and its forward pass: one step in, sampled tokens out.
 *
 * Built from a plan alone; the config files are not read again. Every rank of the group makes the
 * same calls in the same order.
 *
 * A step is launched, and landed later; landing is the only wait. What sequences say stays on the
 * device, so that a step needs nothing from the host of the one before it:
 *
 *   host     launch 1   launch 2   land 1   launch 3   land 2
 *   device   |--------- 1 --------||--------- 2 --------||--------- 3 ---
 *
 * How many may be under way is the device's word: 2 where it computes by itself, 1 where it
 * computes inside launch.
 */
#ifndef TSR_RUNTIME_MODEL_MODEL_H
#define TSR_RUNTIME_MODEL_MODEL_H

#include "comm/comm.h"
#include "comm/exchange.h"
#include "kernels/device.h"
#include "proto/plan.h"
#include "runtime/base/status.h"
#include "runtime/plan/batch.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tsr_model tsr_model;

/* Called now and then while weights load, on the loading rank's thread. */
typedef struct tsr_load_progress {
    void (*report)(void *context, uint64_t bytes, uint64_t total);
    void *context;
} tsr_load_progress;

/* How the rows of tokens will travel: opens an exchange over the control group, as
 * tsr_exchange_open does. */
typedef tsr_status (*tsr_exchange_opener)(tsr_comm *comm, const tsr_exchange_shape *shape,
                                          tsr_exchange **ret_exchange);

/* What a model is opened with. All of it is borrowed and outlives the model. */
typedef struct tsr_model_args {
    const tsr_plan *plan;
    tsr_device *device;
    tsr_comm *comm;
    tsr_exchange_opener open_exchange; /* one whose buffers the device can read */
    const tsr_load_progress *progress; /* may be NULL */
} tsr_model_args;

/*
 * Collective. Allocates everything a step will need, opens the exchange, reads this rank's byte
 * ranges with large sequential reads, checks and lays out every tensor.
 *
 * TSR_ERR_CHECKPOINT, logged with file and tensor: a short file, a NaN scale, an impossible value
 * TSR_ERR_ARG, logged  the plan is for another number of ranks
 * TSR_ERR_MEMORY, TSR_ERR_PEER, TSR_ERR_TIMEOUT
 *
 * On error the comm is aborted before it returns: the others get TSR_ERR_PEER.
 */
TSR_MUST_USE tsr_status tsr_model_open(const tsr_model_args *args, tsr_model **ret_model);

/* What is still under way is lost. NULL is allowed. */
void tsr_model_close(tsr_model *model);

/* Steps that may be under way at once. */
int32_t tsr_model_flights(const tsr_model *model);

/*
 * Room for the batch of a flight that is not under way, to be filled and launched. It stays
 * untouched until the flight has landed.
 *
 * TSR_ERR_ARG, logged: more of something than the plan's limits allow
 */
TSR_MUST_USE tsr_status tsr_model_batch(tsr_model *model, int32_t flight,
                                        const tsr_batch_sizes *count, tsr_batch *ret_batch);

/* What a launch has to know of the step beside the batch. */
typedef struct tsr_step_facts {
    uint64_t epoch;          /* 1, 2, 3 ... */
    int32_t max_rank_tokens; /* most tokens of any rank in this step */
} tsr_step_facts;

/*
 * Collective. Sends the flight's batch on its way through the model: prompts into the text, then
 * embedding, every layer, logits, samples into the text. Never waits where the device computes by
 * itself.
 *
 * TSR_ERR_ARG, logged: the batch contradicts the plan. On error the comm is aborted before it
 * returns.
 */
TSR_MUST_USE tsr_status tsr_model_launch(tsr_model *model, int32_t flight,
                                         const tsr_step_facts *facts);

/*
 * Waits for a flight, the one launched first, polling device and exchange until the group's
 * deadline.
 *
 *   ret_sampled  [samples] in host memory, until the flight is launched again
 *
 * TSR_ERR_TIMEOUT, logged with what it waited for; TSR_ERR_PEER; TSR_ERR_DEVICE
 * TSR_ERR_ARG, logged: a block found something wrong in device memory
 *
 * On error the comm is aborted before it returns.
 */
TSR_MUST_USE tsr_status tsr_model_land(tsr_model *model, int32_t flight,
                                       const tsr_sampled **ret_sampled);

/* Of a flight that has landed and was not launched again: the most probable ids of its samples, in
 * host memory until it is launched. */
const tsr_token_logprob *tsr_model_top(const tsr_model *model, int32_t flight);

/* Rows of logits that tsr_model_logits brings at once; the same on every rank. */
int32_t tsr_model_staged_rows(const tsr_model *model);

/* The device's memory: before the model, of its weights, of keys and values, and what everything
 * else has taken since, the driver for it included; all 0 where it is the host's. */
typedef struct tsr_model_memory {
    uint64_t before;
    uint64_t weights;
    uint64_t kv;
    uint64_t rest;
} tsr_model_memory;

/* As it is now. */
tsr_model_memory tsr_model_memory_in_use(const tsr_model *model);

/* What the router chose in one step, as far as it concerns this rank. */
typedef struct tsr_routing_tally {
    int64_t *experts; /* [layers] added to: this rank's experts that a row arrived for, which it has
                         to read; in each round of a step anew */
    int32_t tokens;   /* of this rank in the step; written when the step has been launched */
    bool done;
} tsr_routing_tally;

/*
 * Counts the next step that is launched. That step waits for every layer and is no measure of time.
 * Not collective. `tally` is borrowed until it is done.
 *
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_model_tally_next(tsr_model *model, tsr_routing_tally *tally);

/* What a step goes through, as far as each layer has it. */
typedef enum tsr_stage {
    TSR_STAGE_EMBED,
    TSR_STAGE_ATTENTION,
    TSR_STAGE_DENSE,
    TSR_STAGE_CHOOSE,
    TSR_STAGE_DISPATCH,
    TSR_STAGE_SHARED, /* experts, while rows travel */
    TSR_STAGE_ARRIVE,
    TSR_STAGE_EXPERTS,
    TSR_STAGE_RETURN,
    TSR_STAGE_COMBINE,
    TSR_STAGE_PREDICT,
    TSR_STAGES
} tsr_stage;

/* "experts" */
const char *tsr_stage_name(tsr_stage stage);

/* Where the time of one step on this rank's device went: from the end of one stage to the end of the
 * next. */
typedef struct tsr_stage_times {
    int64_t ns[TSR_STAGES]; /* of all layers and rounds */
    bool done;
} tsr_stage_times;

/*
 * Times the next step that is launched and not counted. The launch waits for it. Not collective.
 * `times` is borrowed until it is done.
 *
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_model_time_next(tsr_model *model, tsr_stage_times *times);

/* What a rank has seen of its steps since it began to watch them. */
typedef struct tsr_watched {
    int64_t *tokens;        /* [layers, E] rows that arrived for this rank's experts */
    int64_t *reads;         /* [layers, E] rounds in which any did: it was read so often */
    int64_t ns[TSR_STAGES]; /* of the steps that were looked at */
    int64_t steps;          /* with tokens, on any rank */
    int64_t looked_at;      /* of them: all where the device computes while it is called, else every
                               64th, the same on every rank */
} tsr_watched;

/*
 * Watches every step from the next one on, added to `watched`. A step that is looked at waits for
 * every stage. Not collective, but all ranks watch or none. `watched` is borrowed.
 *
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_model_watch(tsr_model *model, tsr_watched *watched);

/* What a rank counts all along, with next to nothing of a step's time. */
typedef struct tsr_counted_rows {
    uint64_t *rows; /* [layers, E] that arrived for this rank's experts */
    uint64_t steps; /* with tokens, on any rank */
    uint64_t
        counted; /* of them: all where the device computes while it is called, else the first of
                         every 512, the same on every rank */
} tsr_counted_rows;

/*
 * Counts from the next step on, but for those that are watched, timed or tallied. Not collective, but
 * all ranks count or none. `counted` is borrowed; NULL
 * ends it.
 *
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_model_count_rows(tsr_model *model, tsr_counted_rows *counted);

/* For whom this rank has waited in its exchanges, as tsr_exchange_waited_ns. */
const int64_t *tsr_model_waited_ns(const tsr_model *model);

/*
 * Rows first_row ... of the logits of a flight that has landed and was not launched again. Waits as
 * tsr_model_land does.
 *
 *   rows      1..tsr_model_staged_rows
 *   ret_rows  [rows, V] in host memory, until the next call
 */
TSR_MUST_USE tsr_status tsr_model_logits(tsr_model *model, int32_t flight, int32_t first_row,
                                         int32_t rows, const float **ret_rows);

#endif
