/*
 * The sum of two rows.
 */
#include "kernels/cpu/ops_cpu.h"

#include "kernels/cpu/device_cpu.h"

static void add_share(const void *context, int32_t thread, int32_t threads)
{
    const tsr_add_args *args = context;
    const float *a = args->a;
    const float *b = args->b;
    float *out = args->out;
    const tsr_thread_range mine =
        tsr_thread_share((int64_t)args->tokens * args->hidden, thread, threads);

    for (int64_t i = mine.first; i < mine.last; i++)
        out[i] = a[i] + b[i];
}

tsr_status ISA(tsr_add_cpu)(tsr_device *device, const tsr_add_args *a, tsr_stream s)
{
    (void)s;
    tsr_threads_run(tsr_cpu(device)->threads, a->tokens, add_share, a);
    return TSR_OK;
}
