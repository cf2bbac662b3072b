/*
 * Byte-pair merging: a word starts as one symbol per byte, and the pair of neighbours that stands
 * first in the file's list of merges becomes one symbol, until no pair is in the list.
 *
 *     l o w e r        merges  0: (e, r)   1: (l, o)   2: (lo, w)
 *     l o w er
 *     lo w er
 *     low er
 */
#ifndef TSR_RUNTIME_TEXT_BPE_H
#define TSR_RUNTIME_TEXT_BPE_H

#include "runtime/base/status.h"
#include "runtime/text/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One line of the list. */
typedef struct tsr_merge {
    int32_t left;
    int32_t right;
    int32_t rank; /* its line: the lowest goes first */
    int32_t into;
} tsr_merge;

/* Zero-initialise; close with tsr_merges_close. */
typedef struct tsr_merges {
    tsr_merge *slots;  /* [slot_count] a hash table; left < 0: free */
    size_t slot_count; /* a power of two above twice the merges */
    int32_t byte_ids[256];
} tsr_merges;

/* Room for `count` merges. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_merges_open(tsr_merges *merges, size_t count);
void tsr_merges_close(tsr_merges *merges);

/* Of two merges of one pair the later holds, as in the reference. */
void tsr_merges_add(tsr_merges *merges, const tsr_merge *merge);

/* A symbol of a word, at the index of its first byte. */
typedef struct tsr_symbol {
    int32_t id; /* -1: merged into the one before it */
    int32_t next;
    int32_t previous;
} tsr_symbol;

/* A pair that may be merged; worth doing only while both symbols still are what they were. */
typedef struct tsr_candidate {
    int32_t rank;
    int32_t at;
    int32_t into;
} tsr_candidate;

/* What merging one word after another needs. Zero-initialise; close with tsr_bpe_scratch_close. */
typedef struct tsr_bpe_scratch {
    tsr_symbol *symbols; /* [capacity] */
    tsr_candidate *heap; /* [heap_count], the least first */
    size_t capacity;     /* symbols; the heap holds twice as many */
    size_t heap_count;
} tsr_bpe_scratch;
void tsr_bpe_scratch_close(tsr_bpe_scratch *scratch);

/* Appends the ids of a word, in O(count log count). TSR_ERR_MEMORY, TSR_ERR_CAPACITY (a word of
 * 1 GiB) */
TSR_MUST_USE tsr_status tsr_bpe_add(const tsr_merges *merges, const char *word, size_t count,
                                    tsr_bpe_scratch *scratch, tsr_ids *ids);

/* Appends one id. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_ids_add(tsr_ids *ids, int32_t id);

#endif
