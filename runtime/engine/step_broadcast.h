/*
 * A step on its way from rank 0 to all: a first message of fixed size, and a second with what did
 * not fit into it.
 */
#ifndef TSR_RUNTIME_ENGINE_STEP_BROADCAST_H
#define TSR_RUNTIME_ENGINE_STEP_BROADCAST_H

#include "comm/comm.h"
#include "proto/step_plan.h"
#include "runtime/engine/step_shape.h"

/* Rank 0. `buffer` holds at least TSR_STEP_FIRST_BYTES. TSR_ERR_PEER, TSR_ERR_TIMEOUT */
TSR_MUST_USE tsr_status tsr_step_send(tsr_comm *comm, void *buffer, size_t bytes);

/*
 * Other ranks. Nothing of the step is believed yet but its size.
 *
 *   capacity  of `buffer`, at least TSR_STEP_FIRST_BYTES
 *
 * TSR_ERR_MISMATCH, logged; TSR_ERR_PEER, TSR_ERR_TIMEOUT
 */
TSR_MUST_USE tsr_status tsr_step_receive(tsr_comm *comm, const tsr_step_bounds *bounds,
                                         void *buffer, size_t capacity, size_t *ret_bytes);

#endif
