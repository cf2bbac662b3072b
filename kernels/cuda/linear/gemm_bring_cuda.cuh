/*
 * What the third warpgroup of a tile's CTA does: it fills items and slots. A slot's weights come in bulk,
 * each warp's two tiles; its tokens come
 *
 *   in boxes      where operand rows follow each other: to both CTAs of a cluster
 *   in pieces     else, 16 bytes a thread
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_GEMM_BRING_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_GEMM_BRING_CUDA_CUH

#include "kernels/cuda/linear/gemm_tile_cuda.cuh"

/* The tile of 16 rows that a lane below GEMM_WRITER_TILES brings. */
typedef struct gemm_weights {
    const unsigned char *codes;
    const unsigned char *scales;
    bool there;
} gemm_weights;

/* Which of a slot's tiles that is. */
static __device__ __forceinline__ int32_t gemm_my_tile(void)
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES) % GEMM_WRITERS;
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);

    return warp * GEMM_WRITER_TILES + lane % GEMM_WRITER_TILES;
}

/* It is `tile` of a weight of `out` rows. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ gemm_weights gemm_weights_at(const void *codes,
                                                               const void *scales, int32_t tile,
                                                               int32_t out, const gemm_width &w)
{
    const int64_t slot = (int64_t)tile * w.row;
    gemm_weights g;

    g.codes = (const unsigned char *)codes + slot * gemm_code_bytes(FORMAT);
    g.scales = (const unsigned char *)scales + slot * gemm_scale_bytes(FORMAT);
    g.there = threadIdx.x % TSR_CUDA_LANES < GEMM_WRITER_TILES && tile * TSR_CUDA_TILE < out;
    return g;
}

/* Bytes that this warp's lanes bring of a slot's weights. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ uint32_t gemm_weights_bytes(const gemm_weights &g)
{
    const uint32_t all = (uint32_t)__popc(__ballot_sync(TSR_ALL_LANES, g.there));

    return all * (gemm_code_bytes(FORMAT) + gemm_scale_bytes(FORMAT));
}

/* A lane's tile, to slot `slot` at `at`. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_copy_weights(const gemm_ring &r, int32_t slot,
                                                         uint32_t at, const gemm_weights &g,
                                                         int32_t column_slot)
{
    const uint32_t tile = (uint32_t)gemm_my_tile();
    const uint32_t code_bytes = gemm_code_bytes(FORMAT);
    const uint32_t scale_bytes = gemm_scale_bytes(FORMAT);
    const uint32_t full = gemm_full(r, slot);

    if (!g.there)
        return;
    copy_bulk(at + tile * code_bytes, g.codes + (int64_t)column_slot * code_bytes, code_bytes,
              full);
    if (scale_bytes > 0)
        copy_bulk(at + GEMM_TILES * code_bytes + tile * scale_bytes,
                  g.scales + (int64_t)column_slot * scale_bytes, scale_bytes, full);
}

/* What an item is made of; each thread of the third warpgroup brings its own. */
typedef struct gemm_source {
    const float *scale;   /* [operand row] */
    const int32_t *to;    /* row of the output of the thread's token, or NULL: it is `pair` */
    const float *channel; /* of the thread's row of the weight; NULL: none, or no such row */
    const float *bias;
    const float *blocks; /* of its half */
    int32_t pair;        /* the thread's token */
    int32_t row;         /* its operand row */
    int32_t count;       /* tokens of the item */
    int32_t linear;
    int32_t block;
    float weight_scale;
    bool biased;
} gemm_source;

/* Fills the next item; returns it when every thread's row is seen by all. */
static __device__ __forceinline__ const gemm_item *gemm_put_item(gemm_ring *r, const gemm_source &s)
{
    const int32_t thread = (int32_t)threadIdx.x % GEMM_GROUP;
    const int32_t slot = gemm_item_slot(*r);
    gemm_item *item = &r->item[slot - GEMM_MAX_SLOTS];

    barrier_wait(gemm_empty(*r, slot), gemm_item_phase(*r) ^ 1);
    item->row[thread] = s.row;
    if (thread < s.count) {
        copy_4(async_address(&item->scale[thread]), s.scale + s.row);
        if (s.to != NULL)
            copy_4(async_address(&item->to[thread]), s.to);
        else
            item->to[thread] = s.pair;
    }
    if (s.channel != NULL)
        copy_4(async_address(&item->channel[thread]), s.channel);
    if (s.bias != NULL)
        copy_4(async_address(&item->bias[thread]), s.bias);
    if (thread == 0) {
        item->count = s.count;
        item->linear = s.linear;
        item->block = s.block;
    }
    if (thread % GEMM_HALF == 0) {
        const int32_t half = thread / GEMM_HALF;
        item->weight_scale[half] = s.weight_scale;
        item->blocks[half] = s.blocks;
        item->biased[half] = s.biased;
    }
    copies_arrive(gemm_full(*r, slot));
    barrier_arrive(gemm_full(*r, slot));
    r->items++;
    asm volatile("barrier.sync 2, %0;" ::"n"(1 * GEMM_GROUP) : "memory");
    return item;
}

/* Nothing comes any more. */
static __device__ __forceinline__ void gemm_put_end(gemm_ring *r)
{
    const gemm_source none = {};

    (void)gemm_put_item(r, none);
}

/* The operand row of a thread's own token; beyond the last the last's. */
static __device__ __forceinline__ int32_t gemm_row_of(const int32_t *source, int32_t first,
                                                      int32_t count)
{
    const int32_t pair = first + min((int32_t)threadIdx.x % GEMM_GROUP, count - 1);

    return source != NULL ? source[pair] : pair;
}

/* An item whose slots are not filled yet. */
typedef struct gemm_order {
    gemm_weights weights;
    const gemm_item *item; /* NULL: there is none */
    int32_t count;         /* tokens */
    int32_t first;         /* operand row, where they follow each other */
    int32_t ahead;         /* slots whose weights are under way */
} gemm_order;

/* Operand rows as boxes of so many tokens. */
typedef struct gemm_boxes {
    const void *map;
    int32_t tokens;
} gemm_boxes;

/* How a thread fills slots: with pieces of so many tokens. */
typedef struct gemm_pieces {
    const unsigned char *from[GEMM_PASSES];
    uint32_t to;    /* in a slot */
    uint32_t bytes; /* of weights that come of this warp */
    int32_t passes;
} gemm_pieces;

/* Slot first + BEHIND: its weights and its tokens, from that far behind
 * where pieces come from. */
template <tsr_weight_format FORMAT, int BEHIND>
static __device__ __forceinline__ void gemm_fill(gemm_ring *r, const gemm_width &w,
                                                 const gemm_order &order, const gemm_pieces &pieces,
                                                 int32_t first)
{
    const int32_t k = first + BEHIND;

    if (k >= w.slots)
        return;
    const uint32_t at = r->at + pieces.to;
    barrier_wait(gemm_empty(*r, r->slot), r->phase ^ 1);
    if (threadIdx.x % TSR_CUDA_LANES == 0)
        barrier_expect(gemm_full(*r, r->slot), k < order.ahead ? 0 : pieces.bytes);
    if (k >= order.ahead)
        gemm_copy_weights<FORMAT>(*r, r->slot, r->at, order.weights, k);
#pragma unroll
    for (int i = 0; i < GEMM_PASSES; i++) {
        if (i < pieces.passes)
            copy_16_behind<BEHIND * GEMM_TOKEN_BYTES>(at + i * GEMM_PASS_TOKENS * GEMM_TOKEN_BYTES,
                                                      pieces.from[i]);
    }
    copies_arrive(gemm_full(*r, r->slot));
    gemm_advance(r);
}

/* By all threads of the third warpgroup. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void
gemm_produce(gemm_ring *r, const gemm_width &w, const uint16_t *operand, const gemm_order &order)
{
    enum { AT_ONCE = 4 }; /* slots whose pieces are found by the same addresses */
    const uint32_t thread = threadIdx.x % GEMM_GROUP;
    const uint32_t token = thread / GEMM_PIECES;
    const uint32_t piece = thread % GEMM_PIECES;
    gemm_pieces p;

    p.to = gemm_tokens_at(FORMAT) + token * GEMM_TOKEN_BYTES + (piece ^ token % 8) * 16;
    p.bytes = gemm_weights_bytes<FORMAT>(order.weights);
    p.passes = (order.count + GEMM_PASS_TOKENS - 1) / GEMM_PASS_TOKENS;
#pragma unroll
    for (int i = 0; i < GEMM_PASSES; i++) {
        const int32_t row = order.item->row[token + i * GEMM_PASS_TOKENS];
        p.from[i] =
            (const unsigned char *)operand + (int64_t)row * w.row * GEMM_TOKEN_BYTES + piece * 16;
    }
    for (int32_t k = 0; k < w.slots; k += AT_ONCE) {
        gemm_fill<FORMAT, 0>(r, w, order, p, k);
        gemm_fill<FORMAT, 1>(r, w, order, p, k);
        gemm_fill<FORMAT, 2>(r, w, order, p, k);
        gemm_fill<FORMAT, 3>(r, w, order, p, k);
#pragma unroll
        for (int i = 0; i < GEMM_PASSES; i++)
            p.from[i] += AT_ONCE * GEMM_TOKEN_BYTES;
    }
}

/* The weights of the first slots, before anything else: they are told of with the tokens. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_put_ahead(const gemm_ring &r, const gemm_weights &g,
                                                      int32_t slots)
{
    const uint32_t bytes = gemm_weights_bytes<FORMAT>(g);

    for (int32_t k = 0; k < slots; k++) {
        if (threadIdx.x % TSR_CUDA_LANES == 0)
            barrier_expect_more(gemm_full(r, k), bytes);
        gemm_copy_weights<FORMAT>(r, k, gemm_slot_at(r, k), g, k);
    }
}

/* As gemm_produce by both CTAs, tokens in boxes of the operand rows. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_produce_boxes(gemm_ring *r, const gemm_width &w,
                                                          const gemm_boxes &boxes,
                                                          const gemm_order &order)
{
    const int32_t thread = (int32_t)threadIdx.x % GEMM_GROUP;
    const int32_t count = (order.count + boxes.tokens - 1) / boxes.tokens;
    const int32_t mine = thread * GEMM_PAIR + (int32_t)cluster_rank();
    const uint32_t bytes = (uint32_t)(boxes.tokens * GEMM_TOKEN_BYTES);
    const uint32_t to = gemm_tokens_at(FORMAT) + (uint32_t)mine * bytes;
    const uint32_t weights = gemm_weights_bytes<FORMAT>(order.weights);
    const uint32_t tokens = thread < TSR_CUDA_LANES ? (uint32_t)count * bytes : 0;

    for (int32_t k = 0; k < w.slots; k++) {
        const uint32_t full = gemm_full(*r, r->slot);
        barrier_wait(gemm_empty(*r, r->slot), r->phase ^ 1);
        if (thread % TSR_CUDA_LANES == 0)
            barrier_expect(full, tokens + (k < order.ahead ? 0 : weights));
        if (mine < count)
            copy_box_to_all(r->at + to, boxes.map, k * GEMM_COLUMNS,
                            order.first + mine * boxes.tokens, full, (1U << GEMM_PAIR) - 1);
        if (k >= order.ahead)
            gemm_copy_weights<FORMAT>(*r, r->slot, r->at, order.weights, k);
        gemm_advance(r);
    }
}

/* Lends slots for the sums of an item, one for each round. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_lend(gemm_ring *r, int32_t count)
{
    for (int32_t first = 0; !gemm_converts(FORMAT) && first < count;
         first += gemm_round(FORMAT, GEMM_KERNEL_TOKENS)) {
        const uint32_t full = gemm_full(*r, r->slot);
        barrier_wait(gemm_empty(*r, r->slot), r->phase ^ 1);
        if (threadIdx.x % TSR_CUDA_LANES == 0)
            barrier_arrive(full);
        if (!r->paired)
            barrier_arrive(full);
        gemm_advance(r);
    }
}

/* Fills the slots of the item before, since what an item says takes a while to arrive. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_produce_last(gemm_ring *r, const gemm_width &w,
                                                         const uint16_t *operand, gemm_order *last,
                                                         const gemm_order &next)
{
    if (last->item != NULL)
        gemm_produce<FORMAT>(r, w, operand, *last);
    gemm_lend<FORMAT>(r, last->count);
    *last = next;
}

/* The same of both CTAs of a cluster. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void
gemm_produce_last_boxes(gemm_ring *r, const gemm_width &w, const gemm_boxes &boxes,
                        gemm_order *last, const gemm_order &next)
{
    if (last->item != NULL)
        gemm_produce_boxes<FORMAT>(r, w, boxes, *last);
    gemm_lend<FORMAT>(r, last->count);
    *last = next;
}

#endif
