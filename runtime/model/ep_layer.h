/*
 * The expert-parallel layer: the one place where experts and ranks are both known.
 *
 *   choose     router: each token's K experts and their weights, packed to travel
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
#include "kernels/blocks.h"
#include "proto/plan.h"
#include "runtime/base/arena.h"
#include "runtime/base/status.h"
#include "runtime/base/stream.h"
#include "runtime/model/model.h"
#include "runtime/model/step.h"
#include "runtime/model/weights.h"

#include <stdint.h>

/* Whoever wants to know when a stage of a layer has been put on the stream. */
typedef struct tsr_stage_watch {
    tsr_status (*put)(void *context, int32_t layer, tsr_stage stage, tsr_stream stream);
    void *context;
} tsr_stage_watch;

typedef struct tsr_ep_layer {
    const tsr_plan *plan;
    const tsr_weights *weights;
    const tsr_step *step;
    tsr_device *device;
    tsr_experts *experts; /* [layers]; of dense layers nothing */
    tsr_exchange *exchange;
    tsr_exchange_buffers buffers;
    const tsr_stage_watch *watch; /* NULL: nobody */
} tsr_ep_layer;

/*
 * Collective. Opens the exchange; the other parts are borrowed, `experts` comes from the arena.
 *
 * TSR_ERR_MEMORY, TSR_ERR_MISMATCH, TSR_ERR_TIMEOUT, TSR_ERR_PEER
 */
TSR_MUST_USE tsr_status tsr_ep_layer_open(const tsr_model_args *args, const tsr_weights *weights,
                                          const tsr_step *step, tsr_arena *arena,
                                          tsr_ep_layer *ret_ep);

/*
 * Makes the layers' experts, once the weights are there.
 *
 *   image  tsr_step_array_bytes of TSR_STEP_EXPERTS in host memory of the device, untouched until
 *          the stream has passed
 */
TSR_MUST_USE tsr_status tsr_ep_layer_make_experts(const tsr_ep_layer *ep, void *image,
                                                  tsr_stream stream);

/* Exchanges of each layer in a step: at least one, so that a step without tokens still notices a
 * rank that is gone. */
int32_t tsr_ep_layer_rounds(const tsr_ep_layer *ep, const tsr_step_facts *facts);

/* Whether a layer's last word is how the attention of the next one begins (tsr_block_entry). */
bool tsr_ep_layer_leads_on(const tsr_ep_layer *ep, int32_t layer, const tsr_step_facts *facts);

/*
 * Collective. x += experts(norm(x)) over the first `tokens` rows of TSR_STEP_RESIDUAL.
 *
 * TSR_ERR_TIMEOUT, TSR_ERR_PEER, TSR_ERR_MISMATCH, TSR_ERR_ARG
 */
TSR_MUST_USE tsr_status tsr_ep_layer_forward(const tsr_ep_layer *ep, int32_t layer, int32_t tokens,
                                             const tsr_step_facts *facts, tsr_stream stream);

/* NULL and a zeroed struct are allowed. */
void tsr_ep_layer_close(tsr_ep_layer *ep);

#endif
