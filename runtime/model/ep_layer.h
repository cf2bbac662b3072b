/*
 * The expert-parallel layer: the one place where experts and ranks are both known.
 *
 *   choose     router: each token's K experts and their weights
 *   go         each token once to each rank that owns one of its experts
 *   compute    the owners' expert MLPs; meanwhile, at home, the shared experts
 *   come back  one row per (token, slot)
 *   combine    residual + (weighted sum in slot order + shared)
 *
 * A step with more tokens than one exchange carries takes several rounds. Every rank takes the same
 * number of them, the last ones with nothing to send where it has fewer tokens.
 */
#ifndef TSR_RUNTIME_MODEL_EP_LAYER_H
#define TSR_RUNTIME_MODEL_EP_LAYER_H

#include "comm/exchange.h"
#include "kernels/ops.h"
#include "proto/plan.h"
#include "runtime/base/status.h"
#include "runtime/base/stream.h"
#include "runtime/model/step.h"
#include "runtime/model/weights.h"

#include <stdint.h>

typedef struct tsr_ep_layer {
    const tsr_plan *plan;
    const tsr_weights *weights;
    const tsr_step *step;
    tsr_device *device;
    tsr_exchange *exchange;
    tsr_exchange_buffers buffers;
    size_t row_bytes; /* of a packed row */
} tsr_ep_layer;

/*
 * Collective. Opens the exchange; the other parts are borrowed.
 *
 * TSR_ERR_MEMORY, TSR_ERR_MISMATCH, TSR_ERR_TIMEOUT, TSR_ERR_PEER
 */
TSR_MUST_USE tsr_status tsr_ep_layer_open(const tsr_plan *plan, const tsr_weights *weights,
                                          const tsr_step *step, tsr_comm *comm,
                                          tsr_ep_layer *ret_ep);

/* Puts the tables of experts into device memory, once the weights are there. */
TSR_MUST_USE tsr_status tsr_ep_layer_tables(const tsr_ep_layer *ep, tsr_stream stream);

/* What one call works on. */
typedef struct tsr_ep_step {
    int32_t layer;
    int32_t tokens;          /* of this rank */
    int32_t max_rank_tokens; /* of any rank: how many rounds it takes */
} tsr_ep_step;

/*
 * Collective, in a step that the exchange has begun. Reads TSR_STEP_NORMED, adds to
 * TSR_STEP_RESIDUAL.
 *
 * TSR_ERR_TIMEOUT, TSR_ERR_PEER, TSR_ERR_MISMATCH, TSR_ERR_ARG
 */
TSR_MUST_USE tsr_status tsr_ep_layer_forward(const tsr_ep_layer *ep, const tsr_ep_step *step,
                                             tsr_stream stream);

/* NULL and a zeroed struct are allowed. */
void tsr_ep_layer_close(tsr_ep_layer *ep);

#endif
