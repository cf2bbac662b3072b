/*
 * Rows as they travel: activations, then the ids, then zeros.
 */
#include "kernels/cpu/ops_cpu.h"

#include "kernels/cpu/device_cpu.h"

#include <string.h>

static void pack_share(const void *context, int32_t thread, int32_t threads)
{
    const tsr_pack_args *a = context;
    const size_t x_bytes = (size_t)a->hidden * sizeof(float);
    const size_t slots = (size_t)a->top_k;
    const size_t id_bytes = slots * sizeof(int32_t);
    const tsr_thread_range mine = tsr_thread_share(a->tokens, thread, threads);

    for (int64_t i = mine.first; i < mine.last; i++) {
        const size_t t = (size_t)i;
        unsigned char *row = (unsigned char *)a->rows + t * a->row_bytes;
        memcpy(row, (const unsigned char *)a->x + t * x_bytes, x_bytes);
        memcpy(row + x_bytes, a->expert + t * slots, id_bytes);
        memset(row + x_bytes + id_bytes, 0, a->row_bytes - x_bytes - id_bytes);
        for (size_t k = 0; k < slots; k++)
            a->tag[t * slots + k] = a->tag_of[a->expert[t * slots + k]];
    }
}

tsr_status ISA(tsr_pack_cpu)(tsr_device *device, const tsr_pack_args *a, tsr_stream s)
{
    (void)s;
    tsr_threads_run(tsr_cpu(device)->threads, a->tokens, pack_share, a);
    return TSR_OK;
}
