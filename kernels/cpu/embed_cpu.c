/*
 * Rows of the embedding, decoded to f32, of the ids that the text has at the tokens' places:
 *
 *   slot, position --> text[slot, position] --> table[id] --> x
 */
#include "kernels/cpu/ops_cpu.h"

#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/stream_cpu.h"

static int32_t id_of(const tsr_embed_block *b, int32_t t)
{
    return b->text.ids[(size_t)b->slot[t] * (size_t)b->text.positions + (size_t)b->position[t]];
}

/* What is wrong with a token, or a fault of no kind. */
static tsr_fault token_fault(const tsr_embed_block *b, int32_t t)
{
    const int32_t slot = b->slot[t];
    const int32_t position = b->position[t];

    if (slot < 0 || slot >= b->text.slots || position < 0 || position >= b->text.positions)
        return (tsr_fault){.kind = TSR_FAULT_PLACE, .row = t, .slot = slot, .value = position};
    if (id_of(b, t) < 0 || id_of(b, t) >= b->table->out) {
        return (tsr_fault){
            .kind = TSR_FAULT_TOKEN, .row = t, .value = id_of(b, t), .limit = b->table->out};
    }
    return (tsr_fault){.kind = TSR_FAULT_NONE};
}

tsr_status ISA(tsr_embed_cpu)(tsr_device *device, const tsr_embed_block *b, tsr_stream s)
{
    const tsr_cpu_format *format = ISA(tsr_cpu_formats)[b->table->format];
    const size_t hidden = (size_t)b->table->in;

    (void)s;
    for (int32_t t = 0; t < b->tokens; t++) {
        const tsr_fault fault = token_fault(b, t);
        if (fault.kind == TSR_FAULT_NONE)
            continue;
        tsr_set_fault_cpu(tsr_cpu(device), fault);
        return TSR_OK;
    }
    for (int32_t t = 0; t < b->tokens; t++)
        format->decode(b->table, id_of(b, t), 1, (float *)b->x + (size_t)t * hidden);
    return TSR_OK;
}
