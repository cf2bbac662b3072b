/*
 * What a rank holds: views into one piece of device memory, layer by layer.
 *
 *   weights
 *     embed, head, final_norm
 *     layer[0]   attention  q k v o, norms
 *                mlp        one dense MLP
 *     layer[1]   attention
 *                router, router_bias
 *                experts    [local_experts] those of this rank, by ascending id
 *                mlp        the shared experts together, where the model has them
 */
#ifndef TSR_RUNTIME_MODEL_WEIGHTS_H
#define TSR_RUNTIME_MODEL_WEIGHTS_H

#include "kernels/experts.h"
#include "proto/plan.h"
#include "runtime/base/arena.h"
#include "runtime/base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tsr_layer_weights {
    tsr_linear q, k, v, o;
    const float *input_norm;  /* [H] */
    const float *post_norm;   /* [H] */
    const float *q_norm;      /* [D] or NULL */
    const float *k_norm;      /* [D] or NULL */
    tsr_mlp mlp;              /* of a dense layer; the shared experts of a sparse one */
    tsr_linear router;        /* [E, H] */
    const float *router_bias; /* [E] or NULL */
    tsr_mlp *experts;         /* [local_experts] */
    const int32_t *local_of;  /* [E] place in `experts`, -1: on another rank */
    int32_t local_experts;
    bool sparse;
    float key_scale; /* of an FP8 cache */
    float value_scale;
} tsr_layer_weights;

typedef struct tsr_weights {
    tsr_layer_weights *layer; /* [layers] */
    tsr_linear embed;         /* [V, H] */
    tsr_linear head;          /* [V, H]; the embedding where the head is tied */
    const float *final_norm;  /* [H] */
    tsr_device *device;
    void *memory; /* what the views point into */
    uint64_t bytes;
} tsr_weights;

/*
 * Numbers this rank's experts and takes the device memory for everything it holds. The views are
 * empty until tsr_loader has filled them. Host structures come from `arena`.
 *
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_weights_open(const tsr_plan *plan, tsr_device *device, int32_t rank,
                                         tsr_arena *arena, tsr_weights *ret_weights);

/* The view a linear of the plan fills; NULL when the model has no such place. */
tsr_linear *tsr_weights_linear(tsr_weights *weights, const tsr_plan *plan,
                               const tsr_linear_plan *linear);

/* The pointer a vector of the plan fills; NULL when the model has no such place, and for KV
 * scales. */
const float **tsr_weights_vector(tsr_weights *weights, const tsr_plan *plan,
                                 const tsr_vector_plan *vector);

/*
 * Ties the head where it is tied, and makes sure that nothing the forward pass reads is missing.
 *
 * TSR_ERR_CHECKPOINT, logged  the plan left a tensor out
 */
TSR_MUST_USE tsr_status tsr_weights_complete(tsr_weights *weights, const tsr_plan *plan);

/* NULL and a zeroed struct are allowed. */
void tsr_weights_close(tsr_weights *weights);

#endif
