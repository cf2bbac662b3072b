/*
 * Bytes of the ring, the scratch and the records. A tensor is cut at whole rows, so that a piece is
 * more than half full: hence twice as many pieces at most as would be full.
 */
#include "runtime/plan/loading.h"

#include "runtime/base/sizes.h"

void tsr_load_count_add(tsr_load_count *count, const tsr_tensor_place *place)
{
    const uint64_t end = place->offset + place->bytes;

    if (place->file == TSR_NO_FILE)
        return;
    count->pieces += 1 + 2 * place->bytes / TSR_LOAD_PIECE_BYTES;
    if (end > count->file_end)
        count->file_end = end;
}

size_t tsr_load_slot_bytes(uint64_t longest)
{
    const uint64_t bytes = longest + TSR_ALIGNMENT; /* an address keeps its offset modulo that */
    return (size_t)tsr_aligned(bytes, TSR_ALIGNMENT);
}

uint64_t tsr_load_bytes(const tsr_load_count *count)
{
    const uint64_t longest = tsr_smaller_size(count->file_end, TSR_LOAD_PIECE_BYTES);

    return TSR_LOAD_SLOTS * (uint64_t)tsr_load_slot_bytes(longest) + TSR_LOAD_SCRATCH_BYTES +
           count->pieces * TSR_LOAD_PIECE_RECORD_BYTES +
           count->records * TSR_LOAD_TENSOR_RECORD_BYTES;
}
