/*
 * KV blocks by their holders, and by key. The coordinator alone gives and takes; a rank is told the
 * ids in step entries and checks them against its own record.
 *
 *   coordinator   free | 9 | 4 |  -- take, for the next tokens -->   A.blocks | 7 | 0 | by position
 *                                 <-- give, ended or preempted --    B.blocks | 7 | 2 |
 *   rank          holders of 7: 2, of 0 and 2: 1, of all others: 0
 *
 * Low ids go first and the last given goes next: where memory is only there once it is touched, a
 * cache that never fills stays small. Given back in reverse, ids are taken again in the order they
 * had, and of a prefix that stays known the end goes before the beginning, without which it is of no
 * use.
 */
#include "runtime/engine/kv_blocks.h"

enum { NONE = -1 };

bool tsr_kv_blocks_open(tsr_arena *memory, int32_t total, tsr_kv_blocks *ret_blocks)
{
    size_t buckets = 1;

    while (buckets < (size_t)total)
        buckets *= 2;
    const tsr_kv_blocks b = {
        .block = tsr_arena_array(memory, (size_t)total, sizeof(*b.block)),
        .bucket = tsr_arena_array(memory, buckets, sizeof(*b.bucket)),
        .bucket_mask = buckets - 1,
        .oldest = NONE,
        .newest = NONE,
        .count = total,
        .total = total,
    };
    if (b.block == NULL || b.bucket == NULL)
        return false;
    for (int32_t i = 0; i < total; i++)
        b.block[i] = (tsr_kv_block){.next = i + 1 < total ? i + 1 : NONE, .chain = NONE};
    for (size_t i = 0; i < buckets; i++)
        b.bucket[i] = NONE;
    *ret_blocks = b;
    return true;
}

static bool is_known(const tsr_kv_block *block)
{
    return (block->key.low | block->key.high) != 0;
}

static bool same_key(tsr_block_key a, tsr_block_key b)
{
    return a.low == b.low && a.high == b.high;
}

/* Where the chain of a key begins. */
static int32_t *bucket_of(const tsr_kv_blocks *b, tsr_block_key key)
{
    return &b->bucket[key.low & b->bucket_mask];
}

/* Out of the list of those free and known. */
static void unlink_free(tsr_kv_blocks *b, const tsr_kv_block *block)
{
    if (block->previous != NONE)
        b->block[block->previous].next = block->next;
    else
        b->oldest = block->next;
    if (block->next != NONE)
        b->block[block->next].previous = block->previous;
    else
        b->newest = block->previous;
}

void tsr_kv_blocks_forget(tsr_kv_blocks *blocks, uint32_t id)
{
    tsr_kv_block *block = &blocks->block[id];

    if (!is_known(block))
        return;
    int32_t *at = bucket_of(blocks, block->key);
    while (*at != (int32_t)id)
        at = &blocks->block[*at].chain;
    *at = block->chain;
    block->key = (tsr_block_key){0};
    block->chain = NONE;
}

static uint32_t take_one(tsr_kv_blocks *b)
{
    const int32_t id = b->unknown != NONE ? b->unknown : b->oldest;
    tsr_kv_block *block = &b->block[id];

    if (id == b->unknown) {
        b->unknown = block->next;
    } else {
        unlink_free(b, block);
        tsr_kv_blocks_forget(b, (uint32_t)id);
    }
    block->holders = 1;
    b->count--;
    return (uint32_t)id;
}

bool tsr_kv_blocks_take(tsr_kv_blocks *blocks, int32_t count, uint32_t *ids)
{
    if (count > blocks->count)
        return false;
    for (int32_t i = 0; i < count; i++)
        ids[i] = take_one(blocks);
    return true;
}

static void give_one(tsr_kv_blocks *b, int32_t id)
{
    tsr_kv_block *block = &b->block[id];

    block->holders--;
    if (block->holders > 0)
        return;
    b->count++;
    if (!is_known(block)) {
        block->next = b->unknown;
        b->unknown = id;
        return;
    }
    block->next = NONE;
    block->previous = b->newest;
    if (b->newest != NONE)
        b->block[b->newest].next = id;
    else
        b->oldest = id;
    b->newest = id;
}

void tsr_kv_blocks_give(tsr_kv_blocks *blocks, int32_t count, const uint32_t *ids)
{
    for (int32_t i = count; i > 0; i--)
        give_one(blocks, (int32_t)ids[i - 1]);
}

int32_t tsr_kv_blocks_find(const tsr_kv_blocks *blocks, tsr_block_key key)
{
    int32_t id = *bucket_of(blocks, key);

    while (id != NONE && !same_key(blocks->block[id].key, key))
        id = blocks->block[id].chain;
    return id;
}

void tsr_kv_blocks_hold(tsr_kv_blocks *blocks, uint32_t id)
{
    tsr_kv_block *block = &blocks->block[id];

    if (block->holders == 0) {
        unlink_free(blocks, block);
        blocks->count--;
    }
    block->holders++;
}

void tsr_kv_blocks_know(tsr_kv_blocks *blocks, uint32_t id, tsr_block_key key)
{
    tsr_kv_block *block = &blocks->block[id];

    if (is_known(block) || tsr_kv_blocks_find(blocks, key) != NONE)
        return;
    block->key = key;
    block->chain = *bucket_of(blocks, key);
    *bucket_of(blocks, key) = (int32_t)id;
}
