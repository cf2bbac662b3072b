/*
 * The arrays one step goes through, and the tables every step reads: one piece of device memory,
 * taken once. What each array holds stands in runtime/plan/shapes.h.
 */
#ifndef TSR_RUNTIME_MODEL_STEP_H
#define TSR_RUNTIME_MODEL_STEP_H

#include "kernels/device.h"
#include "proto/plan.h"
#include "runtime/base/status.h"
#include "runtime/plan/shapes.h"

typedef struct tsr_step {
    void *array[TSR_STEP_ARRAYS]; /* in device memory */
    tsr_device *device;
    void *memory;
} tsr_step;

/* Takes the memory and fills the rotary tables. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_step_open(const tsr_plan *plan, tsr_device *device, tsr_step *ret_step);

/* NULL and a zeroed struct are allowed. */
void tsr_step_close(tsr_step *step);

#endif
