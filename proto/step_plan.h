/*
 * One step, as the coordinator broadcasts it to all ranks: a fixed packed layout, no varints, no
 * allocation, every bound checked on arrival. Little-endian hosts only (checked at start).
 *
 *   | header | entry 0 | ... | entry n-1 | block ids | masks | admissions |
 *
 * Entries are ordered by rank, on a rank releases before tokens, then by slot; each such place is
 * taken once. A rank acts in that order too: releases, then admissions, then tokens, so that a slot
 * and its blocks may change hands within a step.
 *
 * A mask stands for each entry that is held to one, in their order: the ids that may be sampled, as a list,
 * or as a bit for every id where that is shorter.
 *
 *   | n | id 0 | ... | id n-1 |          | TSR_MASK_BITS | 32 bits | ... |
 *
 * A step never carries a token that was sampled: the owner of a sequence remembers its last token,
 * so that a step can be launched before the last one's tokens are read. Prompt tokens travel once,
 * in an admission (protobuf-c, admission.h).
 */
#ifndef TSR_PROTO_STEP_PLAN_H
#define TSR_PROTO_STEP_PLAN_H

#include "runtime/base/status.h"
#include "runtime/base/token_logprob.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TSR_STEP_MAGIC = 0x54535250, TSR_STEP_VERSION = 2 };

typedef enum tsr_step_flags {
    TSR_STEP_STOP = 1,        /* the last step: every rank leaves its loop after it */
    TSR_STEP_EXPERT_LOAD = 2, /* when it has landed, every rank tells rank 0 of its experts' rows */
    TSR_STEP_LAND = 4, /* it is landed before another comes: all that run wait for its tokens */
    TSR_STEP_FLAGS = 7,
} tsr_step_flags;

typedef struct tsr_step_header {
    uint32_t magic;
    uint32_t version;
    uint64_t epoch;        /* 1, 2, 3 ...: a rank that expects another one has lost its place */
    uint64_t plan_digest;  /* of the tsr_plan all ranks hold */
    uint64_t state_digest; /* of every sequence's length before this step; see step_state.h */
    uint64_t digest;       /* of all bytes of this step with this field zero */
    uint32_t flags;        /* tsr_step_flags */
    uint32_t entries;
    uint32_t blocks;
    uint32_t admission_bytes;
    uint32_t max_rank_tokens; /* most tokens of any rank: how many exchanges a layer takes */
    uint32_t mask_words;      /* of all masks */
} tsr_step_header;
static_assert(sizeof(tsr_step_header) == 64, "the step header travels as it lies in memory");

typedef enum tsr_entry_flags {
    TSR_ENTRY_SAMPLE = 1, /* the last row's logits become a token */
    TSR_ENTRY_LOGITS = 2, /* the logits of every row are sent to the coordinator */
    TSR_ENTRY_RELEASE =
        4, /* no tokens: the sequence is forgotten, its blocks may be reused from this step on */
    TSR_ENTRY_SCORE = 8, /* how probable the next token of every row is, which the prompt has; that
                            of the last row is none where it is not there and not sampled either */
    TSR_ENTRY_RESUME =
        16, /* the first of its sequence, which begins behind positions that others have
                              computed: its blocks hold them */
    TSR_ENTRY_MASKED = 32,          /* what is sampled is of a mask */
    TSR_ENTRY_TOP_SHIFT = 8,        /* 5 bits: most probable ids told with a sampled token */
    TSR_ENTRY_SCORE_TOP_SHIFT = 16, /* 5 bits: the same with each scored one */
    TSR_ENTRY_TOP_MASK = 31,
} tsr_entry_flags;

/* `tokens` positions of one sequence, from first_position. */
typedef struct tsr_step_entry {
    uint32_t rank;
    uint32_t slot; /* of the sequence on its rank, 0..max_num_seqs-1 */
    uint32_t flags;
    uint32_t first_position;
    uint32_t tokens;
    uint32_t output_index; /* of the token to sample: 0 for a request's first */
    uint32_t first_block;  /* newly given blocks: step blocks[first_block ...] are appended to the
                              block table; of a RESUME, those up to first_position are others' too */
    uint32_t block_count;
} tsr_step_entry;
static_assert(sizeof(tsr_step_entry) == 32, "step entries travel as they lie in memory");

/* A view into a received or built step; owns nothing. */
typedef struct tsr_step_plan {
    tsr_step_header *header;
    tsr_step_entry *entry;     /* [header->entries] */
    uint32_t *block;           /* [header->blocks] */
    uint32_t *mask;            /* [header->mask_words] */
    unsigned char *admissions; /* [header->admission_bytes] */
} tsr_step_plan;

/* How much of everything a step has. */
typedef struct tsr_step_counts {
    uint32_t entries;
    uint32_t blocks;
    uint32_t mask_words;
    uint32_t admission_bytes;
} tsr_step_counts;

/* As a header has them. */
tsr_step_counts tsr_step_counts_of(const tsr_step_header *header);

/* Bytes of a step with these counts. */
size_t tsr_step_plan_bytes(const tsr_step_counts *counts);

/* The first word of a mask that has a bit for each id; of any other it is the number of its ids. */
enum { TSR_MASK_BITS = 1 << 30 };

/* Words of the mask that begins there, of a vocabulary. */
static inline uint64_t tsr_mask_length(const uint32_t *mask, uint32_t vocab)
{
    return 1 + (uint64_t)(mask[0] == TSR_MASK_BITS ? (vocab + 31) / 32 : mask[0]);
}

/*
 * Lays out an empty step in `buffer` for the given counts. The caller fills it, then seals it.
 * TSR_ERR_CAPACITY when it does not fit into `capacity` bytes.
 */
TSR_MUST_USE tsr_status tsr_step_plan_lay_out(void *buffer, size_t capacity,
                                              const tsr_step_counts *counts,
                                              tsr_step_plan *ret_step);

/* Sets header->digest. */
void tsr_step_plan_seal(const tsr_step_plan *step);

/* What a rank knows that a step must agree with. */
typedef struct tsr_step_bounds {
    uint64_t epoch;
    uint64_t plan_digest;
    uint64_t state_digest;
    uint32_t rank; /* the one that checks: shown in messages */
    uint32_t ranks;
    uint32_t max_num_seqs;
    uint32_t max_batched_tokens;
    uint32_t max_model_len;
    uint32_t kv_blocks;
    uint32_t vocab;
} tsr_step_bounds;

/*
 * Bytes of the whole step whose header arrived: what a rank has yet to receive. Nothing else of the
 * header is believed yet.
 *
 * TSR_ERR_MISMATCH, logged: another magic or version, or more than `capacity` bytes
 */
TSR_MUST_USE tsr_status tsr_step_plan_announced(const tsr_step_header *header, size_t capacity,
                                                const tsr_step_bounds *bounds, size_t *ret_bytes);

/*
 * A view of received bytes, after every check. `bytes` is aligned to 8.
 *
 * TSR_ERR_MISMATCH, logged: which field, what this rank expected and what it got
 */
TSR_MUST_USE tsr_status tsr_step_plan_open(void *bytes, size_t count, const tsr_step_bounds *bounds,
                                           tsr_step_plan *ret_step);

/* True for an entry that brings tokens, false for a release. */
static inline bool tsr_step_entry_computes(const tsr_step_entry *entry)
{
    return (entry->flags & TSR_ENTRY_RELEASE) == 0;
}

/* Rows of logits that an entry asks for. */
static inline uint32_t tsr_step_entry_logit_rows(const tsr_step_entry *entry)
{
    if ((entry->flags & (TSR_ENTRY_LOGITS | TSR_ENTRY_SCORE)) != 0)
        return entry->tokens;
    return (entry->flags & TSR_ENTRY_SAMPLE) != 0 ? 1 : 0;
}

static inline uint32_t tsr_entry_top(uint32_t flags)
{
    return flags >> TSR_ENTRY_TOP_SHIFT & TSR_ENTRY_TOP_MASK;
}

static inline uint32_t tsr_entry_score_top(uint32_t flags)
{
    return flags >> TSR_ENTRY_SCORE_TOP_SHIFT & TSR_ENTRY_TOP_MASK;
}

/* Tokens that come back of an entry of these flags: scored ones, then a sampled one. */
static inline uint32_t tsr_entry_results(uint32_t flags, uint32_t tokens)
{
    if ((flags & TSR_ENTRY_SCORE) != 0)
        return tokens;
    return (flags & TSR_ENTRY_SAMPLE) != 0 ? 1 : 0;
}

/* Most probable ids that come back with them, in the same order. */
static inline uint32_t tsr_entry_tops(uint32_t flags, uint32_t tokens)
{
    const uint32_t sampled = (flags & TSR_ENTRY_SAMPLE) != 0 ? 1 : 0;
    const uint32_t scored = tsr_entry_results(flags, tokens) - sampled;

    return sampled * tsr_entry_top(flags) + scored * tsr_entry_score_top(flags);
}

/* What a rank sends back for every result of an entry, in the order of the entries; behind all of
 * them, where any was asked for, come the most probable ids (tsr_token_logprob). */
typedef struct tsr_token_row {
    uint32_t slot;
    int32_t token; /* -1: its logits are not finite, or the row stands for no token; -2: rules leave
                      none */
    float logprob;
    uint32_t reserved;
} tsr_token_row;
static_assert(sizeof(tsr_token_row) == 16, "token rows travel as they lie in memory");

/* All that came back of a step; a view. */
typedef struct tsr_step_results {
    const tsr_token_row *row;     /* [rows] */
    const tsr_token_logprob *top; /* [tops] */
    uint32_t rows;
    uint32_t tops;
} tsr_step_results;

#endif
