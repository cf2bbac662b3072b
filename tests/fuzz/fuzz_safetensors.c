/* Any bytes as the beginning of a safetensors file. What is accepted must lie inside the file. */
#include "tests/fuzz/fuzz.h"

#include "runtime/checkpoint/safetensors.h"

#include <stdlib.h>

/* The payload is not in the input: its length comes from the last two bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    if (count < 2)
        return 0;

    const uint64_t payload = (uint64_t)bytes[count - 2] << 8 | bytes[count - 1];
    const tsr_safetensors_bytes source = {
        .name = "fuzz",
        .bytes = (const char *)bytes,
        .count = count - 2,
        .file_bytes = count - 2 + payload,
    };
    tsr_arena *memory = NULL;
    tsr_problems problems = {0};
    tsr_safetensors header = {0};
    if (tsr_arena_open(4096, &memory) != TSR_OK)
        abort();

    const tsr_status st = tsr_safetensors_parse(&source, memory, &problems, &header);
    if ((st == TSR_OK) == tsr_problems_has_error(&problems))
        abort();
    for (size_t i = 0; i < header.count; i++) {
        const tsr_tensor *t = &header.tensors[i];
        if (t->offset > source.file_bytes || t->bytes > source.file_bytes - t->offset)
            abort();
    }
    tsr_problems_close(&problems);
    tsr_arena_close(memory);
    return 0;
}
