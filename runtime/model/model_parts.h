/*
 * What a model is made of. Private to this folder.
 *
 *   plan (borrowed) --> weights   views of this rank's tensors
 *                   --> cache     keys and values
 *                   --> step      arrays of steps, tables
 *                   --> ep        exchange and the experts of every layer
 *                   --> flight    of each step that may be under way: batch, results, mark
 *                   --> recordings    steps that are played again
 *                   --> count     what is counted of a step, when somebody asks
 *                   --> clock     when its stages ended, likewise
 */
#ifndef TSR_RUNTIME_MODEL_MODEL_PARTS_H
#define TSR_RUNTIME_MODEL_MODEL_PARTS_H

#include "runtime/base/arena.h"
#include "runtime/model/ep_layer.h"
#include "runtime/model/flight.h"
#include "runtime/model/kv_cache.h"
#include "runtime/model/model.h"
#include "runtime/model/recordings.h"
#include "runtime/model/routing_count.h"
#include "runtime/model/stage_clock.h"
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
    tsr_flight flight[TSR_MAX_FLIGHTS];
    int32_t flights;
    tsr_recordings recordings;
    tsr_routing_count count;
    tsr_stage_clock clock;
    tsr_stream stream;      /* steps, one after the other */
    tsr_stream putting;     /* batches, while another step computes */
    tsr_stream reading;     /* logits of a landed flight, while the next one computes */
    tsr_mark *read;         /* on `reading` */
    tsr_model_memory taken; /* of the device, as far as it was told apart while opening */
    float *staged;          /* [tsr_staged_rows, V] host memory of the device */
};

/* Puts everything that a flight computes on the model's stream: text in, samples out. */
TSR_MUST_USE tsr_status tsr_forward(const tsr_model *model, const tsr_flight *flight,
                                    const tsr_step_facts *facts);

/* The same while this rank's routing is counted: what was asked for is then done. */
TSR_MUST_USE tsr_status tsr_forward_counted(tsr_model *model, const tsr_flight *flight,
                                            const tsr_step_facts *facts);

/* The same while stages are waited for, timed by the host and counted. */
TSR_MUST_USE tsr_status tsr_forward_watched(tsr_model *model, const tsr_flight *flight,
                                            const tsr_step_facts *facts);

/* Whether this step is one that is looked at. */
bool tsr_is_watched(tsr_model *model, const tsr_step_facts *facts);

/* Whether the rows of this step are counted, and the forward pass while they are. */
bool tsr_is_counted(tsr_model *model, const tsr_step_facts *facts);
TSR_MUST_USE tsr_status tsr_forward_counting(tsr_model *model, const tsr_flight *flight,
                                             const tsr_step_facts *facts);

/* The same while the device's clock is read behind every stage. */
TSR_MUST_USE tsr_status tsr_forward_timed(tsr_model *model, const tsr_flight *flight,
                                          const tsr_step_facts *facts);

/* Waits until a stream has passed a mark, as tsr_model_land does. */
TSR_MUST_USE tsr_status tsr_wait_for_mark(const tsr_model *model, tsr_mark *mark, uint64_t epoch);

#endif
