/*
 * What a model is made of. Private to this folder.
 *
 *   plan (borrowed) --> weights   views of this rank's tensors
 *                   --> cache     keys and values
 *                   --> step      arrays of one step, tables
 *                   --> ep        exchange and tables of experts
 */
#ifndef TSR_RUNTIME_MODEL_MODEL_PARTS_H
#define TSR_RUNTIME_MODEL_MODEL_PARTS_H

#include "runtime/base/arena.h"
#include "runtime/model/ep_layer.h"
#include "runtime/model/kv_cache.h"
#include "runtime/model/model.h"
#include "runtime/model/step.h"
#include "runtime/model/weights.h"

struct tsr_model {
    const tsr_plan *plan; /* borrowed, as are device and comm */
    tsr_device *device;
    tsr_comm *comm;
    tsr_arena *arena; /* host structures that live as long as the model */
    tsr_weights weights;
    tsr_kv_cache cache;
    tsr_step step;
    tsr_ep_layer ep;
    tsr_stream stream;
};

#endif
