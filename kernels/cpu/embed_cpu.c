/*
 * Rows of the embedding, decoded to f32.
 */
#include "kernels/cpu/ops_cpu.h"

#include "kernels/cpu/format/format_cpu.h"
#include "runtime/base/log.h"

tsr_status ISA(tsr_embed_cpu)(tsr_device *device, const tsr_embed_args *a, tsr_stream s)
{
    const tsr_cpu_format *format = ISA(tsr_cpu_formats)[a->table->format];
    const size_t hidden = (size_t)a->table->in;

    (void)device;
    (void)s;
    for (int32_t t = 0; t < a->tokens; t++) {
        if (a->ids[t] < 0 || a->ids[t] >= a->table->out) {
            tsr_log(TSR_LOG_ERROR, "embed: id %d of token %d is not in 0..%d", (int)a->ids[t],
                    (int)t, (int)a->table->out - 1);
            return TSR_ERR_ARG;
        }
        format->decode(a->table, a->ids[t], 1, (float *)a->out + (size_t)t * hidden);
    }
    return TSR_OK;
}
