/*
 * Merging in O(n log n), because a word may be as long as the text. Symbols are linked by the index
 * of their first byte; pairs wait in a heap, by rank and then by place.
 *
 *   merges    0: (e, r)    1: (w, e)    2: (w, er)
 *   w e r     heap   0 at e    1 at w
 *   w er -    heap   1 at w    2 at w      merge 1 has lost its e, and stays
 *   w er -    heap   2 at w                it came up: w and er become wer, not we: dropped
 *   wer - -
 *
 * To look for pairs that are gone would cost more than to meet them.
 */
#include "runtime/text/bpe.h"

#include <stdlib.h>
#include <string.h>

tsr_status tsr_merges_open(tsr_merges *merges, size_t count)
{
    size_t slots = 16;
    while (slots < count * 2)
        slots *= 2;
    merges->slots = malloc(slots * sizeof(*merges->slots));
    if (merges->slots == NULL)
        return TSR_ERR_MEMORY;
    merges->slot_count = slots;
    for (size_t i = 0; i < slots; i++)
        merges->slots[i].left = -1;
    return TSR_OK;
}

void tsr_merges_close(tsr_merges *merges)
{
    free(merges->slots);
    *merges = (tsr_merges){0};
}

/* The slot that holds a pair, or the free one where it would stand. */
static tsr_merge *slot_of(const tsr_merges *merges, int32_t left, int32_t right)
{
    const size_t mask = merges->slot_count - 1;
    uint64_t h = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    h *= 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    for (size_t slot = (size_t)(h >> 32) & mask;; slot = (slot + 1) & mask) {
        tsr_merge *merge = &merges->slots[slot];
        if (merge->left < 0 || (merge->left == left && merge->right == right))
            return merge;
    }
}

void tsr_merges_add(tsr_merges *merges, const tsr_merge *merge)
{
    *slot_of(merges, merge->left, merge->right) = *merge;
}

static bool comes_first(const tsr_candidate *a, const tsr_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(tsr_bpe_scratch *scratch, tsr_candidate candidate)
{
    size_t hole = scratch->heap_count++;
    while (hole > 0 && comes_first(&candidate, &scratch->heap[(hole - 1) / 2])) {
        scratch->heap[hole] = scratch->heap[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    scratch->heap[hole] = candidate;
}

static tsr_candidate heap_pop(tsr_bpe_scratch *scratch)
{
    tsr_candidate *heap = scratch->heap;
    const tsr_candidate top = heap[0];
    const tsr_candidate last = heap[--scratch->heap_count];
    const size_t count = scratch->heap_count;
    size_t hole = 0;
    for (size_t child = 1; child < count; child = 2 * hole + 1) {
        if (child + 1 < count && comes_first(&heap[child + 1], &heap[child]))
            child++;
        if (!comes_first(&heap[child], &last))
            break;
        heap[hole] = heap[child];
        hole = child;
    }
    heap[hole] = last;
    return top;
}

/* The merge of the symbols at `at` and behind it, or one whose `left` is negative. */
static const tsr_merge *merge_at(const tsr_merges *merges, const tsr_symbol *symbols, int32_t at)
{
    return slot_of(merges, symbols[at].id, symbols[symbols[at].next].id);
}

static void consider(const tsr_merges *merges, tsr_bpe_scratch *scratch, int32_t at)
{
    const tsr_merge *merge = merge_at(merges, scratch->symbols, at);
    if (merge->left >= 0)
        heap_push(scratch, (tsr_candidate){.rank = merge->rank, .at = at, .into = merge->into});
}

static tsr_status reserve_scratch(tsr_bpe_scratch *scratch, size_t count)
{
    if (count > INT32_MAX / 2)
        return TSR_ERR_CAPACITY;
    if (count <= scratch->capacity)
        return TSR_OK;

    tsr_bpe_scratch_close(scratch);
    const size_t capacity = count < 64 ? 64 : count + count / 4;
    scratch->symbols = malloc(capacity * sizeof(*scratch->symbols));
    /* one candidate for each pair of the word; a merge takes one away and adds at most two */
    scratch->heap = malloc(2 * capacity * sizeof(*scratch->heap));
    if (scratch->symbols == NULL || scratch->heap == NULL)
        return TSR_ERR_MEMORY;
    scratch->capacity = capacity;
    return TSR_OK;
}

void tsr_bpe_scratch_close(tsr_bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->heap);
    *scratch = (tsr_bpe_scratch){0};
}

static void merge_all(const tsr_merges *merges, tsr_bpe_scratch *scratch)
{
    tsr_symbol *symbols = scratch->symbols;
    while (scratch->heap_count > 0) {
        const tsr_candidate top = heap_pop(scratch);
        const int32_t at = top.at;
        if (symbols[at].id < 0 || symbols[at].next < 0)
            continue;
        const tsr_merge *merge = merge_at(merges, symbols, at);
        if (merge->left < 0 || merge->into != top.into)
            continue; /* one of the two has grown since */

        const int32_t gone = symbols[at].next;
        symbols[at].id = top.into;
        symbols[at].next = symbols[gone].next;
        symbols[gone].id = -1;
        if (symbols[at].next >= 0) {
            symbols[symbols[at].next].previous = at;
            consider(merges, scratch, at);
        }
        if (symbols[at].previous >= 0)
            consider(merges, scratch, symbols[at].previous);
    }
}

tsr_status tsr_bpe_add(const tsr_merges *merges, const char *word, size_t count,
                       tsr_bpe_scratch *scratch, tsr_ids *ids)
{
    tsr_status st = reserve_scratch(scratch, count);
    if (st != TSR_OK)
        return st;

    tsr_symbol *symbols = scratch->symbols;
    const int32_t end = (int32_t)count;
    for (int32_t i = 0; i < end; i++) {
        symbols[i] = (tsr_symbol){
            .id = merges->byte_ids[(unsigned char)word[i]],
            .next = i + 1 < end ? i + 1 : -1,
            .previous = i - 1,
        };
    }
    scratch->heap_count = 0;
    for (int32_t i = 0; i + 1 < end; i++)
        consider(merges, scratch, i);
    merge_all(merges, scratch);

    for (int32_t i = 0; st == TSR_OK && i >= 0 && i < end; i = symbols[i].next)
        st = tsr_ids_add(ids, symbols[i].id);
    return st;
}

tsr_status tsr_ids_add(tsr_ids *ids, int32_t id)
{
    if (ids->most > 0 && ids->count == ids->most) {
        ids->full = true;
        return TSR_ERR_CAPACITY;
    }
    if (ids->count == ids->capacity) {
        if (ids->capacity > SIZE_MAX / 4 / sizeof(*ids->ids))
            return TSR_ERR_MEMORY;
        const size_t capacity = ids->capacity ? ids->capacity * 2 : 64;
        int32_t *grown = realloc(ids->ids, capacity * sizeof(*grown));
        if (grown == NULL)
            return TSR_ERR_MEMORY;
        ids->ids = grown;
        ids->capacity = capacity;
    }
    ids->ids[ids->count++] = id;
    return TSR_OK;
}
