/*
 * Memory by lifetime: one arena per engine, one per request, one per step.
 *
 *     block 0                     block 1
 *     +--------+-----+---......   +----------+----.......
 *     | alloc  | pad | alloc      | alloc    | free
 *     +--------+-----+---......   +----------+----.......
 *                                            ^ used
 *
 * An arena that may grow adds blocks. A sealed one never does: what does not fit is NULL, so that a
 * running step cannot call malloc. Not thread-safe: an arena belongs to one thread.
 */
#ifndef TSR_RUNTIME_BASE_ARENA_H
#define TSR_RUNTIME_BASE_ARENA_H

#include "runtime/base/status.h"

#include <stddef.h>

typedef struct tsr_arena tsr_arena;

/*
 *   first_bytes  size of the first block, taken at once
 *   ret_arena    close it with tsr_arena_close
 *
 * TSR_ERR_MEMORY when the host has no memory.
 */
TSR_MUST_USE tsr_status tsr_arena_open(size_t first_bytes, tsr_arena **ret_arena);

/* Zeroed memory aligned to 64 bytes, valid until reset or close; NULL when it does not fit. */
void *tsr_arena_alloc(tsr_arena *arena, size_t bytes);

/* `count * size` zeroed bytes with the multiplication checked; NULL when it does not fit. */
void *tsr_arena_array(tsr_arena *arena, size_t count, size_t size);

/* A copy of a string of `bytes` bytes with a zero byte behind it; NULL when it does not fit. */
char *tsr_arena_text(tsr_arena *arena, const char *text, size_t bytes);

/* No block is added from here on. */
void tsr_arena_seal(tsr_arena *arena);

/* Everything allocated so far is gone; the blocks stay. */
void tsr_arena_reset(tsr_arena *arena);

/* Bytes allocated since the last reset, padding included. */
size_t tsr_arena_used(const tsr_arena *arena);

/* NULL is allowed. */
void tsr_arena_close(tsr_arena *arena);

#endif
