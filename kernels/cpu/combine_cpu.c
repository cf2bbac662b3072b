/*
 * The weighted sum of a token's answers, slot by slot, then the shared expert, then the residual.
 * The order is fixed: where an answer was computed changes no bit.
 */
#include "kernels/cpu/ops_cpu.h"

#include "kernels/cpu/device_cpu.h"

/* Elements that are summed in registers before anything is written. */
enum { STRIP = 64 };

/* `count` elements of one token, from element `first`. */
static void combine_strip(const tsr_combine_block *a, size_t t, size_t first, size_t count)
{
    const size_t hidden = (size_t)a->hidden;
    const size_t slots = (size_t)a->top_k;
    float *x = (float *)a->x + t * hidden + first;
    float sum[STRIP] = {0};

    for (size_t k = 0; k < slots; k++) {
        const float weight = a->weight[t * slots + k];
        const float *row = (const float *)a->answers + (t * slots + k) * hidden + first;
        for (size_t i = 0; i < count; i++)
            sum[i] += weight * row[i];
    }
    if (a->shared != NULL) {
        const float *shared = (const float *)a->shared + t * hidden + first;
        for (size_t i = 0; i < count; i++)
            sum[i] += shared[i];
    }
    for (size_t i = 0; i < count; i++)
        x[i] = x[i] + sum[i];
}

static void combine_share(const void *context, int32_t thread, int32_t threads)
{
    const tsr_combine_block *a = context;
    const size_t hidden = (size_t)a->hidden;
    const tsr_thread_range mine = tsr_thread_share(a->tokens, thread, threads);

    for (int64_t t = mine.first; t < mine.last; t++) {
        for (size_t i = 0; i < hidden; i += STRIP)
            combine_strip(a, (size_t)t, i, hidden - i < STRIP ? hidden - i : STRIP);
    }
}

tsr_status ISA(tsr_combine_cpu)(tsr_device *device, const tsr_combine_block *a, tsr_stream s)
{
    (void)s;
    tsr_threads_run(tsr_cpu(device)->threads, a->tokens, combine_share, a);
    return TSR_OK;
}
