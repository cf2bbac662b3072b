#include "runtime/base/file_mark.h"

#include <stdlib.h>
#include <xxhash.h>

tsr_file_mark tsr_file_mark_of(uint64_t bytes, const void *head, size_t head_bytes)
{
    return (tsr_file_mark){
        .bytes = bytes, .head_bytes = head_bytes, .head_digest = XXH3_64bits(head, head_bytes)};
}

tsr_status tsr_file_bears(const tsr_file *file, const tsr_file_mark *mark, bool *ret_bears)
{
    if (file->bytes != mark->bytes || mark->head_bytes > mark->bytes) {
        *ret_bears = false;
        return TSR_OK;
    }

    const size_t count = (size_t)mark->head_bytes;
    void *head = malloc(count + 1);
    if (!head)
        return TSR_ERR_MEMORY;
    const tsr_status st = tsr_file_read(file, 0, count, head);
    if (st == TSR_OK)
        *ret_bears = XXH3_64bits(head, count) == mark->head_digest;
    free(head);
    return st;
}
