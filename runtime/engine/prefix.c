/* The prefix cache: keys, and who may begin where. Keys have 128 bits and a seed that nobody outside
 * knows, so no prompt can be made that meets another's blocks. */
#include "runtime/engine/prefix.h"

#include "runtime/base/sizes.h"

#include <xxhash.h>

bool tsr_prefix_allowed(const tsr_scheduler *scheduler, const tsr_live *live)
{
    return scheduler->options.prefix_cache && !live->want_logits && !live->score_prompt;
}

void tsr_prefix_read(const tsr_scheduler *scheduler, tsr_live *live)
{
    const int32_t block_tokens = scheduler->shape.block_tokens;
    const size_t bytes = (size_t)block_tokens * sizeof(*live->tokens);

    if (!scheduler->options.prefix_cache)
        return;
    while (live->key_count < live->key_room &&
           (live->key_count + 1) * block_tokens <= live->token_count) {
        const int32_t at = live->key_count++;
        const XXH128_hash_t own = XXH3_128bits_withSeed(
            live->tokens + (size_t)at * (size_t)block_tokens, bytes, scheduler->key_seed);
        const tsr_block_key before = at > 0 ? live->keys[at - 1] : (tsr_block_key){live->salt, 0};
        const uint64_t chain[4] = {before.low, before.high, own.low64, own.high64};
        const XXH128_hash_t key = XXH3_128bits_withSeed(chain, sizeof(chain), scheduler->key_seed);
        live->keys[at] = (tsr_block_key){key.low64, key.high64 | 1}; /* never that of none */
    }
}

/* Leading blocks that it may begin behind. */
static int32_t most_blocks(const tsr_scheduler *s, const tsr_live *live)
{
    if (!tsr_prefix_allowed(s, live))
        return 0;
    return tsr_smaller(live->key_count, (live->token_count - 1) / s->shape.block_tokens);
}

static bool is_under_way(const tsr_live *live)
{
    return live->length < live->goal;
}

static bool same_key(const tsr_live *a, const tsr_live *b, int32_t at)
{
    return at < a->key_count && at < b->key_count && a->keys[at].low == b->keys[at].low &&
           a->keys[at].high == b->keys[at].high;
}

tsr_prefix_match tsr_prefix_match_of(const tsr_scheduler *scheduler, const tsr_rank_load *load,
                                     const tsr_live *live)
{
    const int32_t most = most_blocks(scheduler, live);
    tsr_prefix_match match = {0};

    while (match.known < most) {
        const int32_t id = tsr_kv_blocks_find(&load->blocks, live->keys[match.known]);
        if (id < 0)
            break;
        match.held += load->blocks.block[id].holders > 0;
        match.known++;
    }
    match.coming = match.known;
    for (const tsr_live *other = load->running.first; other != NULL && match.coming < most;
         other = other->next) {
        while (is_under_way(other) && match.coming < most && same_key(other, live, match.coming))
            match.coming++;
    }
    return match;
}

void tsr_prefix_take(tsr_scheduler *scheduler, tsr_live *live)
{
    tsr_kv_blocks *blocks = &scheduler->load[live->rank].blocks;
    const int32_t most = most_blocks(scheduler, live);

    while (live->block_count < most) {
        const int32_t id = tsr_kv_blocks_find(blocks, live->keys[live->block_count]);
        if (id < 0)
            break;
        tsr_kv_blocks_hold(blocks, (uint32_t)id);
        live->blocks[live->block_count++] = (uint32_t)id;
    }
    live->length = live->block_count * scheduler->shape.block_tokens;
    live->known = live->block_count;
}

/* True when the step being planned or a later one is to fill block `at` of a prompt. */
static bool fills(const tsr_scheduler *s, const tsr_live *live, int32_t at)
{
    const int32_t filled = (live->length - live->step.tokens) / s->shape.block_tokens;
    return live->begun && filled <= at && at < live->goal / s->shape.block_tokens;
}

bool tsr_prefix_waits(const tsr_scheduler *scheduler, const tsr_live *live)
{
    const int32_t at = live->block_count;
    const tsr_live *other = scheduler->load[live->rank].running.first;

    if (live->begun || at >= most_blocks(scheduler, live))
        return false;
    while (other != NULL && !(fills(scheduler, other, at) && same_key(other, live, at)))
        other = other->next;
    return other != NULL;
}

void tsr_prefix_note(tsr_scheduler *scheduler, tsr_live *live)
{
    const int32_t full = tsr_smaller(live->length / scheduler->shape.block_tokens, live->key_count);
    tsr_kv_blocks *blocks = &scheduler->load[live->rank].blocks;

    for (; live->known < full; live->known++)
        tsr_kv_blocks_know(blocks, live->blocks[live->known], live->keys[live->known]);
}

void tsr_prefix_forget(tsr_scheduler *scheduler, const tsr_live *live)
{
    tsr_kv_blocks *blocks = &scheduler->load[live->rank].blocks;

    for (int32_t i = 0; i < live->known; i++)
        tsr_kv_blocks_forget(blocks, live->blocks[i]);
}
