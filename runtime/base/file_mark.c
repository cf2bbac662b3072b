/* A header may be long (a record for every tensor): it is read a chunk at a time, and digests as
 * the whole does. */
#include "runtime/base/file_mark.h"

#include <stdio.h>
#include <xxhash.h>

enum { CHUNK_BYTES = 16384 };

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

    XXH3_state_t *digest = XXH3_createState();
    if (digest == NULL)
        return TSR_ERR_MEMORY;
    (void)XXH3_64bits_reset(digest);
    tsr_status st = TSR_OK;
    for (uint64_t at = 0; st == TSR_OK && at < mark->head_bytes; at += CHUNK_BYTES) {
        unsigned char chunk[CHUNK_BYTES];
        const uint64_t left = mark->head_bytes - at;
        const size_t here = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
        st = tsr_file_read(file, at, here, chunk);
        if (st == TSR_OK)
            (void)XXH3_64bits_update(digest, chunk, here);
    }
    if (st == TSR_OK)
        *ret_bears = XXH3_64bits_digest(digest) == mark->head_digest;
    (void)XXH3_freeState(digest);
    return st;
}

uint64_t tsr_file_digest(const char *path)
{
    FILE *file = fopen(path, "rb");
    XXH3_state_t *state = XXH3_createState();
    unsigned char chunk[CHUNK_BYTES];
    uint64_t digest = 0;

    if (file != NULL && state != NULL && XXH3_64bits_reset(state) == XXH_OK) {
        for (size_t got; (got = fread(chunk, 1, sizeof(chunk), file)) > 0;)
            (void)XXH3_64bits_update(state, chunk, got);
        digest = ferror(file) == 0 ? XXH3_64bits_digest(state) : 0;
    }
    (void)XXH3_freeState(state);
    if (file != NULL)
        (void)fclose(file);
    return digest;
}
