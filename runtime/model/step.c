#include "runtime/model/step.h"

#include "runtime/model/rotary_table.h"

#include <stdlib.h>

/* Computed on the host a row at a time. */
static tsr_status fill_rotary(const tsr_plan *plan, tsr_step *step)
{
    size_t width = (size_t)plan->model.rotary_dim / 2;
    size_t row_bytes = width * sizeof(float);
    float *rows = calloc(2 * width + 1, sizeof(*rows));
    if (rows == NULL)
        return TSR_ERR_MEMORY;

    unsigned char *cos_table = step->array[TSR_STEP_COS];
    unsigned char *sin_table = step->array[TSR_STEP_SIN];
    tsr_status st = TSR_OK;
    for (int32_t p = 0; st == TSR_OK && p < plan->limits.max_model_len; p++) {
        size_t at = (size_t)p * row_bytes;
        tsr_rotary_row(plan->model.rope_theta, plan->model.rotary_dim, p, rows, rows + width);
        st = tsr_device_put(step->device, cos_table + at, rows, row_bytes, (tsr_stream){0});
        if (st == TSR_OK)
            st = tsr_device_put(step->device, sin_table + at, rows + width, row_bytes,
                                (tsr_stream){0});
    }
    free(rows);
    return st;
}

tsr_status tsr_step_open(const tsr_plan *plan, tsr_device *device, tsr_step *ret_step)
{
    size_t element = tsr_device_activation_bytes(device);
    tsr_step step = {.device = device};
    tsr_status st = tsr_device_alloc(device, tsr_step_bytes(&plan->model, &plan->limits, element),
                                     &step.memory);
    if (st != TSR_OK)
        return st;

    unsigned char *at = step.memory;
    for (int32_t a = 0; a < TSR_STEP_ARRAYS; a++) {
        step.array[a] = at;
        at += tsr_step_array_bytes((tsr_step_array)a, &plan->model, &plan->limits, element);
    }
    st = fill_rotary(plan, &step);
    if (st == TSR_OK)
        *ret_step = step;
    else
        tsr_step_close(&step);
    return st;
}

void tsr_step_close(tsr_step *step)
{
    if (step == NULL || step->memory == NULL)
        return;
    tsr_device_free(step->device, step->memory);
    step->memory = NULL;
}
