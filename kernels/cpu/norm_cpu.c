/*
 * RMSNorm. The sum of squares is canonical (lanes.h); then x * (1 / sqrt(mean + eps)) * weight, in
 * that order.
 */
#include "kernels/cpu/ops_cpu.h"

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/stream_cpu.h"

#include <math.h>

void ISA(tsr_norm_row)(float *out, const float *x, const float *weight, int32_t count, float eps)
{
    lanes sum = lanes_set(0.0F);

    for (int32_t i = 0; i < count; i += LANES) {
        const lanes v = lanes_load(x + i);
        sum = lanes_fma(v, v, sum);
    }
    const float mean = lanes_sum(sum) / (float)count;
    const float factor = 1.0F / sqrtf(mean + eps);
    for (int32_t i = 0; i < count; i++)
        out[i] = x[i] * factor * weight[i];
}

static void norm_share(const void *context, int32_t thread, int32_t threads)
{
    const tsr_norm_args *a = context;
    const size_t hidden = (size_t)a->hidden;
    const tsr_thread_range mine = tsr_thread_share(a->tokens, thread, threads);

    for (int64_t t = mine.first; t < mine.last; t++) {
        const float *x = (const float *)a->x + (size_t)(a->row != NULL ? a->row[t] : t) * hidden;
        ISA(tsr_norm_row)((float *)a->out + (size_t)t * hidden, x, a->weight, a->hidden, a->eps);
    }
}

static bool rows_are_there(tsr_cpu_device *cpu, const tsr_norm_args *a)
{
    const int32_t limit = cpu->base.shape.max_tokens;

    for (int32_t t = 0; a->row != NULL && t < a->tokens; t++) {
        const tsr_fault fault = {
            .kind = TSR_FAULT_X_ROW, .row = t, .value = a->row[t], .limit = limit};
        if (fault.value >= 0 && fault.value < limit)
            continue;
        tsr_set_fault_cpu(cpu, fault);
        return false;
    }
    return true;
}

tsr_status ISA(tsr_norm_cpu)(tsr_device *device, const tsr_norm_args *a, tsr_stream s)
{
    (void)s;
    if (rows_are_there(tsr_cpu(device), a))
        tsr_threads_run(tsr_cpu(device)->threads, a->tokens, norm_share, a);
    return TSR_OK;
}
