/*
 * The arrays that blocks hand to each other, and the tables every step reads: one piece of device
 * memory, taken once. What each array holds stands in runtime/plan/shapes.h.
 *
 *   | residual | weight | shared | cos | sin | experts | text | rules | batch 0 | batch 1 | sampled 0 | ...
 *                                                                     '-- of flights, where there are two
 */
#ifndef TSR_RUNTIME_MODEL_STEP_H
#define TSR_RUNTIME_MODEL_STEP_H

#include "kernels/device.h"
#include "proto/plan.h"
#include "runtime/base/status.h"
#include "runtime/plan/shapes.h"

typedef struct tsr_step {
    /* In device memory; of an array that is no flight's, the first. */
    void *array[TSR_STEP_ARRAYS][TSR_MAX_FLIGHTS];
    tsr_device *device;
    void *memory;
} tsr_step;

/* Takes the memory for that many flights. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_step_open(const tsr_plan *plan, tsr_device *device, int32_t flights,
                                      tsr_step *ret_step);

/* The one copy of an array that every flight shares. */
static inline void *tsr_step_shared_array(const tsr_step *step, tsr_step_array array)
{
    return step->array[array][0];
}

/* NULL and a zeroed struct are allowed. */
void tsr_step_close(tsr_step *step);

#endif
