/* A body in chunks (RFC 9112, 7.1), read as it comes, wherever it is cut. */
#ifndef TSR_LAUNCH_HTTP_HTTP_CHUNKS_H
#define TSR_LAUNCH_HTTP_HTTP_CHUNKS_H

#include "runtime/base/status.h"
#include "runtime/base/text_buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-initialise. */
typedef struct tsr_http_chunks {
    int state;
    int digits;
    size_t line;   /* bytes of the line at hand, or of all trailers */
    uint64_t left; /* of the chunk */
} tsr_http_chunks;

/*
 * Takes bytes and appends what they hold to `body`.
 *
 *   most      bytes that the body may have
 *   ret_used  bytes that were taken: all of them unless the body ended
 *
 * TSR_ERR_ARG: not chunks; TSR_ERR_CAPACITY: more than `most`; TSR_ERR_MEMORY
 */
typedef struct tsr_http_piece {
    const char *bytes;
    size_t count;
} tsr_http_piece;
TSR_MUST_USE tsr_status tsr_http_chunks_push(tsr_http_chunks *chunks, tsr_http_piece piece,
                                             size_t most, tsr_text *body, size_t *ret_used,
                                             bool *ret_ended);

#endif
