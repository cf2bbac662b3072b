/*
 * When the stages of a step ended, by the device's clock. Private to this folder.
 *
 *   stream   start | embed | attention of layer 0 | ... | predict
 *                |       |                      |            |
 *   at_ns  | 0   | 1     | 2                    ...          |  --> differences --> times
 */
#ifndef TSR_RUNTIME_MODEL_STAGE_CLOCK_H
#define TSR_RUNTIME_MODEL_STAGE_CLOCK_H

#include "kernels/device.h"
#include "runtime/model/model.h"

typedef struct tsr_stage_clock {
    tsr_stage_times *times; /* what the next step is timed for; NULL: nobody asks */
    void *at_ns;            /* [capacity + 1] uint64_t in device memory */
    void *brought;          /* the same in host memory of the device */
    tsr_stage *stage;       /* [capacity] which one ended */
    int32_t capacity;
    int32_t count;
} tsr_stage_clock;

/* Zeroed is allowed. */
void tsr_stage_clock_close(tsr_stage_clock *clock, tsr_device *device);

#endif
