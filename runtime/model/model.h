/*
 * A rank's weights and its forward pass: one step in, logits out.
 *
 * Built from a plan alone; the config files are not read again. Every rank of the group makes the
 * same calls in the same order.
 */
#ifndef TSR_RUNTIME_MODEL_MODEL_H
#define TSR_RUNTIME_MODEL_MODEL_H

#include "comm/comm.h"
#include "kernels/ops.h"
#include "proto/plan.h"
#include "runtime/base/status.h"
#include "runtime/base/stream.h"

#include <stdint.h>

typedef struct tsr_model tsr_model;

/* Called now and then while weights load, on the loading rank's thread. */
typedef struct tsr_load_progress {
    void (*report)(void *context, uint64_t bytes, uint64_t total);
    void *context;
} tsr_load_progress;

/*
 * Collective. Allocates everything a step will need, opens the exchange, reads this rank's byte
 * ranges with large sequential reads, checks and lays out every tensor.
 *
 *   plan, device, comm  borrowed; they outlive the model
 *
 * TSR_ERR_CHECKPOINT, logged with file and tensor: a short file, a NaN scale, an impossible value
 * TSR_ERR_ARG, logged  the plan is for another number of ranks
 * TSR_ERR_MEMORY, TSR_ERR_PEER, TSR_ERR_TIMEOUT
 *
 * On error the comm is aborted before it returns: the others get TSR_ERR_PEER.
 */
TSR_MUST_USE tsr_status tsr_model_open(const tsr_plan *plan, tsr_device *device, tsr_comm *comm,
                                       const tsr_load_progress *progress, tsr_model **ret_model);

/* NULL is allowed. */
void tsr_model_close(tsr_model *model);

/* What a forward pass is ordered on; work on its logits goes there too. */
tsr_stream tsr_model_stream(const tsr_model *model);

/* This rank's share of one step. Arrays are in host memory. */
typedef struct tsr_batch {
    const int32_t *token;                   /* [T] ids */
    const int32_t *position;                /* [T] */
    const tsr_attention_sequence *sequence; /* [sequences] */
    const int32_t *blocks;                  /* block tables of the sequences, one after the other */
    const int32_t
        *logit_row; /* [logit_rows] rows of the batch whose logits are wanted, ascending */
    int32_t tokens; /* T, may be 0 */
    int32_t sequences;
    int32_t block_count;     /* entries of blocks */
    int32_t logit_rows;      /* <= limits.logit_rows */
    int32_t max_rank_tokens; /* most tokens of any rank in this step */
    uint64_t epoch;          /* of the step */
} tsr_batch;

/*
 * Collective. One step: embeds, runs every layer, writes the KV cache, and leaves the logits of
 * logit_row in *ret_logits: f32 [logit_rows, V] in device memory, valid until the next call.
 *
 * On error the comm is aborted before it returns.
 */
TSR_MUST_USE tsr_status tsr_model_forward(tsr_model *model, const tsr_batch *batch,
                                          float **ret_logits);

#endif
