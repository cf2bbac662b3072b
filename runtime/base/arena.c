/*
 * Blocks that are never given back singly:
 *
 *   grow    | block 0 | -> | block 1: twice as large, or as asked | -> ...        so they are few
 *   reset   every block empty and all kept: what fitted once fits again, sealed or not
 *
 * Every allocation begins on a cache line, which is also the widest vector, and is zero. The rest
 * of a block that is too small for what comes next is lost until the reset.
 */
#include "runtime/base/arena.h"

#include "runtime/base/sizes.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct block {
    struct block *next;
    size_t capacity;
    size_t used;
    unsigned char *bytes;
} block;

struct tsr_arena {
    block *first;
    block *current;
    size_t used;
    bool sealed;
};

static block *block_open(size_t capacity)
{
    block *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return NULL;

    void *bytes = NULL;
    if (posix_memalign(&bytes, TSR_ALIGNMENT, capacity) != 0) {
        free(b);
        return NULL;
    }
    b->bytes = bytes;
    b->capacity = capacity;
    return b;
}

tsr_status tsr_arena_open(size_t first_bytes, tsr_arena **ret_arena)
{
    tsr_arena *arena = calloc(1, sizeof(*arena));
    if (arena == NULL)
        return TSR_ERR_MEMORY;

    arena->first = block_open(tsr_larger_size(first_bytes, TSR_ALIGNMENT));
    if (arena->first == NULL) {
        free(arena);
        return TSR_ERR_MEMORY;
    }
    arena->current = arena->first;
    *ret_arena = arena;
    return TSR_OK;
}

/* The next block that holds `bytes`, reusing those kept by a reset before adding one. */
static block *next_block(tsr_arena *arena, size_t bytes)
{
    block *last = arena->current;
    for (block *b = last->next; b != NULL; b = b->next) {
        last = b;
        if (b->capacity >= bytes)
            return b;
    }
    if (arena->sealed)
        return NULL;

    const size_t doubled = last->capacity > SIZE_MAX / 2 ? SIZE_MAX : last->capacity * 2;
    last->next = block_open(tsr_larger_size(bytes, doubled));
    return last->next;
}

void *tsr_arena_alloc(tsr_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX - TSR_ALIGNMENT)
        return NULL;

    const size_t rounded = tsr_aligned(tsr_larger_size(bytes, 1), TSR_ALIGNMENT);
    block *b = arena->current;
    if (b->capacity - b->used < rounded) {
        b = next_block(arena, rounded);
        if (b == NULL)
            return NULL;
        arena->current = b;
    }
    void *p = b->bytes + b->used;
    b->used += rounded;
    arena->used += rounded;
    memset(p, 0, rounded);
    return p;
}

void *tsr_arena_array(tsr_arena *arena, size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size)
        return NULL;
    return tsr_arena_alloc(arena, count * size);
}

char *tsr_arena_text(tsr_arena *arena, const char *text, size_t bytes)
{
    if (bytes == SIZE_MAX)
        return NULL;
    char *copy = tsr_arena_alloc(arena, bytes + 1);
    if (copy != NULL && bytes != 0)
        memcpy(copy, text, bytes);
    return copy;
}

void tsr_arena_seal(tsr_arena *arena)
{
    arena->sealed = true;
}

void tsr_arena_reset(tsr_arena *arena)
{
    for (block *b = arena->first; b != NULL; b = b->next)
        b->used = 0;
    arena->current = arena->first;
    arena->used = 0;
}

size_t tsr_arena_used(const tsr_arena *arena)
{
    return arena->used;
}

void tsr_arena_close(tsr_arena *arena)
{
    if (arena == NULL)
        return;
    for (block *b = arena->first; b != NULL;) {
        block *next = b->next;
        free(b->bytes);
        free(b);
        b = next;
    }
    free(arena);
}
