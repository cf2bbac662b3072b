/* One piece of device memory, cut into the arrays of a step. */
#include "runtime/model/step.h"

tsr_status tsr_step_open(const tsr_plan *plan, tsr_device *device, int32_t flights,
                         tsr_step *ret_step)
{
    const size_t element = tsr_device_activation_bytes(device);
    tsr_step step = {.device = device};
    const uint64_t bytes = tsr_step_bytes(&plan->model, &plan->limits, element, flights);
    const tsr_status st = tsr_device_alloc(device, bytes, &step.memory);
    if (st != TSR_OK)
        return st;

    unsigned char *at = step.memory;
    for (int32_t i = 0; i < TSR_STEP_ARRAYS; i++) {
        const tsr_step_array a = (tsr_step_array)i;
        const int32_t copies = tsr_step_array_of_flight(a) ? flights : 1;
        for (int32_t f = 0; f < copies; f++) {
            step.array[i][f] = at;
            at += tsr_step_array_bytes(a, &plan->model, &plan->limits, element);
        }
    }
    *ret_step = step;
    return TSR_OK;
}

void tsr_step_close(tsr_step *step)
{
    if (step == NULL || step->memory == NULL)
        return;
    tsr_device_free(step->device, step->memory);
    step->memory = NULL;
}
