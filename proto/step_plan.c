/* A step's layout, and the checks that come before anybody follows it. */
#include "proto/step_plan.h"

#include "runtime/base/log.h"

#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

_Static_assert(sizeof(size_t) == 8, "sizes of a step are added without checks for overflow");

tsr_step_counts tsr_step_counts_of(const tsr_step_header *header)
{
    return (tsr_step_counts){header->entries, header->blocks, header->mask_words,
                             header->admission_bytes};
}

size_t tsr_step_plan_bytes(const tsr_step_counts *counts)
{
    return sizeof(tsr_step_header) + (size_t)counts->entries * sizeof(tsr_step_entry) +
           ((size_t)counts->blocks + counts->mask_words) * sizeof(uint32_t) +
           (size_t)counts->admission_bytes;
}

/* The parts of a step in `bytes`, as its counts lay them out. */
static tsr_step_plan view_of(void *bytes, const tsr_step_counts *counts)
{
    unsigned char *at = bytes;
    tsr_step_plan step = {.header = bytes};

    at += sizeof(tsr_step_header);
    step.entry = (void *)at;
    at += (size_t)counts->entries * sizeof(tsr_step_entry);
    step.block = (void *)at;
    at += (size_t)counts->blocks * sizeof(uint32_t);
    step.mask = (void *)at;
    step.admissions = at + (size_t)counts->mask_words * sizeof(uint32_t);
    return step;
}

tsr_status tsr_step_plan_lay_out(void *buffer, size_t capacity, const tsr_step_counts *counts,
                                 tsr_step_plan *ret_step)
{
    const size_t bytes = tsr_step_plan_bytes(counts);
    if (bytes > capacity)
        return TSR_ERR_CAPACITY;

    memset(buffer, 0, bytes);
    *ret_step = view_of(buffer, counts);
    ret_step->header->magic = TSR_STEP_MAGIC;
    ret_step->header->version = TSR_STEP_VERSION;
    ret_step->header->entries = counts->entries;
    ret_step->header->blocks = counts->blocks;
    ret_step->header->mask_words = counts->mask_words;
    ret_step->header->admission_bytes = counts->admission_bytes;
    return TSR_OK;
}

/* The digest of a step, whose own field is zero while it is taken. */
static uint64_t digest_of(tsr_step_header *header)
{
    const uint64_t kept = header->digest;
    const tsr_step_counts counts = tsr_step_counts_of(header);
    header->digest = 0;
    const uint64_t digest = XXH3_64bits(header, tsr_step_plan_bytes(&counts));
    header->digest = kept;
    return digest;
}

void tsr_step_plan_seal(const tsr_step_plan *step)
{
    step->header->digest = digest_of(step->header);
}

/* A field that must be one value. Logs and is false when it is another. */
static bool agree(const tsr_step_bounds *b, const char *field, uint64_t expected, uint64_t got)
{
    if (expected == got)
        return true;
    tsr_log(TSR_LOG_ERROR,
            "step %" PRIu64 " on rank %" PRIu32 ": %s: expected 0x%" PRIx64 ", got 0x%" PRIx64
            "; the ranks no longer agree, start the job again",
            b->epoch, b->rank, field, expected, got);
    return false;
}

/* A field of entry `index` that must lie in low..high. */
static bool field_within(const tsr_step_bounds *b, const char *field, uint64_t index,
                         const uint64_t range[2], uint64_t got)
{
    if (got >= range[0] && got <= range[1])
        return true;
    tsr_log(TSR_LOG_ERROR,
            "step %" PRIu64 " on rank %" PRIu32 ": %s %" PRIu64 ": expected %" PRIu64 " to %" PRIu64
            ", got %" PRIu64 "; the ranks no longer agree, start the job again",
            b->epoch, b->rank, field, index, range[0], range[1], got);
    return false;
}

tsr_status tsr_step_plan_announced(const tsr_step_header *header, size_t capacity,
                                   const tsr_step_bounds *bounds, size_t *ret_bytes)
{
    if (!agree(bounds, "magic", TSR_STEP_MAGIC, header->magic) ||
        !agree(bounds, "version", TSR_STEP_VERSION, header->version))
        return TSR_ERR_MISMATCH;

    const tsr_step_counts counts = tsr_step_counts_of(header);
    const size_t bytes = tsr_step_plan_bytes(&counts);
    if (!field_within(bounds, "bytes of the step with entries", header->entries,
                      (uint64_t[]){sizeof(*header), capacity}, bytes))
        return TSR_ERR_MISMATCH;

    *ret_bytes = bytes;
    return TSR_OK;
}

/* Where an entry stands in the order of a step: rank, then releases before tokens, then slot. */
static uint64_t order_of_entry(const tsr_step_entry *e)
{
    return ((uint64_t)e->rank << 33) | ((uint64_t)tsr_step_entry_computes(e) << 32) | e->slot;
}

/* The fields of a release beyond rank and slot are zero. */
static bool release_holds(const tsr_step_bounds *b, const tsr_step_entry *e)
{
    return agree(b, "flags of a release", TSR_ENTRY_RELEASE, e->flags) &&
           agree(b, "first_position of a release", 0, e->first_position) &&
           agree(b, "tokens of a release", 0, e->tokens) &&
           agree(b, "output_index of a release", 0, e->output_index) &&
           agree(b, "block_count of a release", 0, e->block_count);
}

static bool tokens_hold(const tsr_step_bounds *b, const tsr_step_entry *e, uint32_t i)
{
    const uint32_t top = (uint32_t)TSR_ENTRY_TOP_MASK << TSR_ENTRY_TOP_SHIFT;
    const uint32_t score_top = (uint32_t)TSR_ENTRY_TOP_MASK << TSR_ENTRY_SCORE_TOP_SHIFT;
    const uint32_t known = TSR_ENTRY_SAMPLE | TSR_ENTRY_LOGITS | TSR_ENTRY_RELEASE |
                           TSR_ENTRY_SCORE | TSR_ENTRY_RESUME | TSR_ENTRY_MASKED | top | score_top;
    const bool is_aimless =
        (e->flags & TSR_ENTRY_MASKED) != 0 && (e->flags & TSR_ENTRY_SAMPLE) == 0;
    const uint64_t most_top[2] = {0, TSR_MOST_TOP};

    if (!agree(b, "unknown flags of an entry", 0, e->flags & ~known) ||
        !agree(b, "a mask of an entry that samples nothing", 0, is_aimless) ||
        !field_within(b, "top of entry", i, most_top, tsr_entry_top(e->flags)) ||
        !field_within(b, "top of scores of entry", i, most_top, tsr_entry_score_top(e->flags)) ||
        !field_within(b, "tokens of entry", i, (uint64_t[]){1, b->max_batched_tokens}, e->tokens))
        return false;
    return field_within(b, "end of entry", i, (uint64_t[]){1, b->max_model_len},
                        (uint64_t)e->first_position + e->tokens) &&
           field_within(b, "output_index of entry", i, (uint64_t[]){0, b->max_model_len},
                        e->output_index);
}

/* Every entry alone, their order, and that their blocks follow one another. */
static bool entries_hold(const tsr_step_bounds *b, const tsr_step_plan *step)
{
    uint64_t next_place = 0;
    uint64_t next_block = 0;

    for (uint32_t i = 0; i < step->header->entries; i++) {
        const tsr_step_entry *e = &step->entry[i];
        if (!field_within(b, "rank of entry", i, (uint64_t[]){0, b->ranks - 1}, e->rank) ||
            !field_within(b, "slot of entry", i, (uint64_t[]){0, b->max_num_seqs - 1}, e->slot) ||
            !field_within(b, "place of entry", i, (uint64_t[]){next_place, UINT64_MAX},
                          order_of_entry(e)) ||
            !agree(b, "first_block of an entry", next_block, e->first_block))
            return false;
        if (tsr_step_entry_computes(e) ? !tokens_hold(b, e, i) : !release_holds(b, e))
            return false;
        next_place = order_of_entry(e) + 1;
        next_block += e->block_count;
    }
    return agree(b, "blocks", next_block, step->header->blocks);
}

/* No rank has more tokens than it may, and the most of any rank is as the header says. */
static bool totals_hold(const tsr_step_bounds *b, const tsr_step_plan *step)
{
    uint64_t most = 0;
    uint64_t tokens = 0;

    for (uint32_t i = 0; i < step->header->entries; i++) {
        if (i > 0 && step->entry[i].rank != step->entry[i - 1].rank)
            tokens = 0;
        tokens += step->entry[i].tokens;
        if (!field_within(b, "tokens up to entry", i, (uint64_t[]){0, b->max_batched_tokens},
                          tokens))
            return false;
        most = tokens > most ? tokens : most;
    }
    return agree(b, "max_rank_tokens", most, step->header->max_rank_tokens);
}

static bool blocks_hold(const tsr_step_bounds *b, const tsr_step_plan *step)
{
    for (uint32_t i = 0; i < step->header->blocks; i++) {
        if (!field_within(b, "block", i, (uint64_t[]){0, b->kv_blocks - 1}, step->block[i]))
            return false;
    }
    return true;
}

/* Ids of the vocabulary that go up, or a bit for each. */
static bool mask_holds(const tsr_step_bounds *b, const uint32_t *mask, uint32_t entry)
{
    if (mask[0] == TSR_MASK_BITS)
        return true;
    for (uint32_t i = 1; i <= mask[0]; i++) {
        const uint64_t range[2] = {i > 1 ? (uint64_t)mask[i - 1] + 1 : 0, b->vocab - 1};
        if (!field_within(b, "an id of the mask of entry", entry, range, mask[i]))
            return false;
    }
    return true;
}

/* Each entry that is held to a mask has one, and there are no words behind them. */
static bool masks_hold(const tsr_step_bounds *b, const tsr_step_plan *step)
{
    const uint64_t words = step->header->mask_words;
    uint64_t at = 0;

    for (uint32_t i = 0; i < step->header->entries; i++) {
        if ((step->entry[i].flags & TSR_ENTRY_MASKED) == 0)
            continue;
        if (!field_within(b, "words of masks up to entry", i, (uint64_t[]){at + 1, UINT64_MAX},
                          words) ||
            !field_within(b, "words of masks with entry", i,
                          (uint64_t[]){at + tsr_mask_length(step->mask + at, b->vocab), UINT64_MAX},
                          words) ||
            !mask_holds(b, step->mask + at, i))
            return false;
        at += tsr_mask_length(step->mask + at, b->vocab);
    }
    return agree(b, "words of masks", at, words);
}

tsr_status tsr_step_plan_open(void *bytes, size_t count, const tsr_step_bounds *bounds,
                              tsr_step_plan *ret_step)
{
    tsr_step_header *header = bytes;
    size_t announced;

    if (!field_within(bounds, "bytes of the step, at least a header:", 0,
                      (uint64_t[]){sizeof(*header), SIZE_MAX}, count))
        return TSR_ERR_MISMATCH;
    if (tsr_step_plan_announced(header, count, bounds, &announced) != TSR_OK ||
        !agree(bounds, "bytes", announced, count) ||
        !agree(bounds, "epoch", bounds->epoch, header->epoch) ||
        !agree(bounds, "plan_digest", bounds->plan_digest, header->plan_digest) ||
        !agree(bounds, "state_digest", bounds->state_digest, header->state_digest) ||
        !agree(bounds, "digest", digest_of(header), header->digest) ||
        !agree(bounds, "unknown flags", 0, header->flags & ~(uint32_t)TSR_STEP_FLAGS))
        return TSR_ERR_MISMATCH;

    const tsr_step_counts counts = tsr_step_counts_of(header);
    const tsr_step_plan step = view_of(bytes, &counts);
    if (!entries_hold(bounds, &step) || !totals_hold(bounds, &step) ||
        !blocks_hold(bounds, &step) || !masks_hold(bounds, &step))
        return TSR_ERR_MISMATCH;

    *ret_step = step;
    return TSR_OK;
}
