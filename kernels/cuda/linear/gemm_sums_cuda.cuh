/*
 * What the first two warpgroups of a tile do (gemm_tile_cuda.cuh): sums of its 128 rows and its
 * tokens, which others store (gemm_store_cuda.cuh).
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_GEMM_SUMS_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_GEMM_SUMS_CUDA_CUH

#include "kernels/cuda/device/number_cuda.cuh"
#include "kernels/cuda/device/wgmma_cuda.cuh"
#include "kernels/cuda/linear/gemm_tile_cuda.cuh"

/* The next item, to be given back when nothing of it is needed any more. */
static __device__ __forceinline__ const gemm_item *gemm_take_item(const gemm_ring &r)
{
    const int32_t slot = gemm_item_slot(r);

    barrier_wait(gemm_full(r, slot), gemm_item_phase(r));
    return &r.item[slot - GEMM_MAX_SLOTS];
}

static __device__ __forceinline__ void gemm_give_item(gemm_ring *r)
{
    __syncwarp();
    if (threadIdx.x % TSR_CUDA_LANES == 0)
        barrier_arrive(gemm_empty(*r, gemm_item_slot(*r)));
    r->items++;
}

/* A warp's 16 x 64 weights of a slot, as they stand there. */
template <tsr_weight_format FORMAT> struct gemm_codes {
    packed_unit unit[GEMM_COLUMNS / tsr_packed_columns(FORMAT)];
};

/* The same as A of four steps. */
typedef uint32_t gemm_operand[16];

/* How far a warp is: the ring is at the slot whose codes are read next. */
template <tsr_weight_format FORMAT> struct gemm_reader {
    gemm_codes<FORMAT> codes; /* of the slot after the one in registers; 16 bits: not yet */
    int32_t wide;             /* tokens, in sixteens */
    int32_t left;             /* slots of the product whose codes have not been read */
    int32_t slot;             /* whose tokens are multiplied next */
    uint32_t tokens;          /* of that, as wgmma_tokens has them */
    int32_t held;             /* whose tokens are being multiplied; -1: none */
};

/* Waits for the next slot, where the product has one. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_await(const gemm_ring &r,
                                                  const gemm_reader<FORMAT> &reader)
{
    if (reader.left == 0)
        return;
    barrier_wait(gemm_full(r, r.slot), r.phase);
    if (!r.boxed)
        copies_seen();
}

/* Its codes. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_read(gemm_ring *r, gemm_reader<FORMAT> *reader,
                                                 gemm_codes<FORMAT> *codes)
{
    const uint32_t lane = threadIdx.x % TSR_CUDA_LANES;
    const uint32_t at = r->at;
    const uint32_t codes_at = at + r->tile * gemm_code_bytes(FORMAT) + lane * 16;
    const uint32_t scales_at = at + r->scales_at + r->tile * PACKED_SCALES + lane / 4 * 8;

    if (reader->left == 0)
        return;
#pragma unroll
    for (int u = 0; u < GEMM_COLUMNS / tsr_packed_columns(FORMAT); u++) {
        codes->unit[u].codes = shared_load_16(codes_at + u * PACKED_UNIT);
        if (FORMAT == TSR_WEIGHT_NVFP4)
            codes->unit[u].scales = shared_load_8(scales_at);
    }
    reader->left--;
    gemm_advance(r);
}

/* What is done with codes is done after this: sooner it would take registers that are in use. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_hold(gemm_codes<FORMAT> *codes)
{
    for (int u = 0; u < GEMM_COLUMNS / tsr_packed_columns(FORMAT); u++)
        asm volatile(""
                     : "+r"(codes->unit[u].codes.x), "+r"(codes->unit[u].codes.y),
                       "+r"(codes->unit[u].codes.z), "+r"(codes->unit[u].codes.w));
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_convert(const gemm_codes<FORMAT> &codes,
                                                    gemm_operand &a)
{
    const int steps = tsr_packed_columns(FORMAT) / TSR_CUDA_STEP;

#pragma unroll
    for (int u = 0; u < GEMM_COLUMNS / tsr_packed_columns(FORMAT); u++) {
#pragma unroll
        for (int s = 0; s < steps; s++)
            packed_operand<FORMAT>(codes.unit[u], s, a + 4 * (u * steps + s));
    }
}

/* A product of so many slots begins: the first becomes an operand. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_open(gemm_ring *r, gemm_reader<FORMAT> *reader,
                                                 int32_t slots, int32_t count, gemm_operand &a)
{
    gemm_codes<FORMAT> first;

    reader->wide = (count + 15) / 16;
    reader->left = slots;
    reader->slot = r->slot;
    reader->tokens = wgmma_tokens(r->at + r->tokens_at);
    reader->held = -1;
    gemm_await<FORMAT>(*r, *reader);
    gemm_read<FORMAT>(r, reader, &first);
    gemm_convert<FORMAT>(first, a);
    if (gemm_converts(FORMAT)) {
        gemm_await<FORMAT>(*r, *reader);
        gemm_read<FORMAT>(r, reader, &reader->codes);
    }
}

/* The slot that was multiplied may be filled again. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_release(const gemm_ring &r, gemm_reader<FORMAT> *reader)
{
    if (reader->held >= 0 && threadIdx.x % TSR_CUDA_LANES == 0) {
        barrier_arrive(gemm_empty(r, reader->held));
        if (r.paired)
            cluster_barrier_arrive_read(gemm_empty(r, reader->held), cluster_rank() ^ 1, 1);
    }
    reader->held = -1;
}

/* Steps FIRST up to END of a slot. */
template <tsr_weight_format FORMAT, int N, int FIRST, int END, int COUNT>
static __device__ __forceinline__ void gemm_start_steps(float (&sum)[COUNT], const gemm_operand &a,
                                                        uint32_t tokens)
{
#pragma unroll
    for (int s = FIRST; s < END; s++)
        wgmma_multiply<FORMAT != TSR_WEIGHT_BF16, N>(sum, a + 4 * s, tokens + WGMMA_STEP * s);
    wgmma_commit();
}

template <tsr_weight_format FORMAT, int N, int COUNT>
static __device__ __forceinline__ void gemm_start(float (&sum)[COUNT], const gemm_operand &a,
                                                  uint32_t tokens)
{
    wgmma_begin();
    gemm_start_steps<FORMAT, N, 0, GEMM_COLUMNS / TSR_CUDA_STEP>(sum, a, tokens);
}

/* The product of as many tokens as there are. */
template <tsr_weight_format FORMAT, int TOKENS>
static __device__ __forceinline__ void
gemm_start_wide(float (&sum)[TOKENS / 2], const gemm_operand &a, uint32_t tokens, int32_t wide)
{
    if (TOKENS == GEMM_TOKENS && wide == 8)
        gemm_start<FORMAT, TOKENS>(sum, a, tokens);
    else if (wide == 1)
        gemm_start<FORMAT, 16>(sum, a, tokens);
    else if (wide == 2)
        gemm_start<FORMAT, 32>(sum, a, tokens);
    else if (wide == 3)
        gemm_start<FORMAT, 48>(sum, a, tokens);
    else if (TOKENS == GEMM_SCALED_TOKENS || wide == 4)
        gemm_start<FORMAT, 64>(sum, a, tokens);
    else if constexpr (TOKENS == GEMM_TOKENS) {
        if (wide == 5)
            gemm_start<FORMAT, 80>(sum, a, tokens);
        else if (wide == 6)
            gemm_start<FORMAT, 96>(sum, a, tokens);
        else
            gemm_start<FORMAT, 112>(sum, a, tokens);
    }
}

/* The slot that is multiplied now is the next one to be released. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_turn(const gemm_ring &r, gemm_reader<FORMAT> *reader)
{
    wgmma_wait<1>();
    gemm_release<FORMAT>(r, reader);
    reader->held = reader->slot;
    reader->tokens += r.slot_bytes / WGMMA_UNIT;
    if (++reader->slot == r.slots) {
        reader->slot = 0;
        reader->tokens = wgmma_tokens(r.base + r.tokens_at);
    }
}

/* A full tile in 16 bits: what is read of the slot behind has half of the product's time to come. */
template <tsr_weight_format FORMAT, int TOKENS>
static __device__ __forceinline__ void gemm_step_plain(gemm_ring *r, gemm_reader<FORMAT> *reader,
                                                       float (&sum)[TOKENS / 2], gemm_operand &a,
                                                       gemm_operand &next)
{
    const int steps = GEMM_COLUMNS / TSR_CUDA_STEP;
    const uint32_t tokens = reader->tokens;

    wgmma_begin();
    gemm_start_steps<FORMAT, TOKENS, 0, steps / 2>(sum, a, tokens);
    gemm_await<FORMAT>(*r, *reader);
    gemm_turn<FORMAT>(*r, reader);
    wgmma_hold(next);
    if (reader->left > 0) {
        gemm_codes<FORMAT> codes;
        gemm_read<FORMAT>(r, reader, &codes);
        gemm_convert<FORMAT>(codes, next);
    }
    wgmma_begin();
    gemm_start_steps<FORMAT, TOKENS, steps / 2, steps>(sum, a, tokens);
}

/* A slot: its product with `a` starts; while it goes on, the slot behind it becomes `next`. */
template <tsr_weight_format FORMAT, int TOKENS, bool FULL>
static __device__ __forceinline__ void gemm_step(gemm_ring *r, gemm_reader<FORMAT> *reader,
                                                 float (&sum)[TOKENS / 2], gemm_operand &a,
                                                 gemm_operand &next)
{
    const uint32_t tokens = reader->tokens;

    if (FULL)
        gemm_start<FORMAT, TOKENS>(sum, a, tokens);
    else
        gemm_start_wide<FORMAT, TOKENS>(sum, a, tokens, reader->wide);
    gemm_await<FORMAT>(*r, *reader);
    gemm_turn<FORMAT>(*r, reader);
    wgmma_hold(next);
    if (gemm_converts(FORMAT)) {
        gemm_hold<FORMAT>(&reader->codes);
        gemm_convert<FORMAT>(reader->codes, next);
        gemm_read<FORMAT>(r, reader, &reader->codes);
    } else if (reader->left > 0) {
        gemm_codes<FORMAT> codes;
        gemm_read<FORMAT>(r, reader, &codes);
        gemm_convert<FORMAT>(codes, next);
    }
}

/* Slots in pairs; a[0] has the first, and the one behind the last in the end. */
template <tsr_weight_format FORMAT, int TOKENS, bool FULL>
static __device__ __forceinline__ void gemm_steps(gemm_ring *r, gemm_reader<FORMAT> *reader,
                                                  float (&sum)[TOKENS / 2], gemm_operand (&a)[2],
                                                  int32_t pairs)
{
    asm volatile("" : "+r"(pairs)); /* it is counted down and not found again each time */
    for (; pairs > 0; pairs--) {
        if constexpr (FULL && !gemm_converts(FORMAT)) {
            gemm_step_plain<FORMAT, TOKENS>(r, reader, sum, a[0], a[1]);
            gemm_step_plain<FORMAT, TOKENS>(r, reader, sum, a[1], a[0]);
        } else {
            gemm_step<FORMAT, TOKENS, FULL>(r, reader, sum, a[0], a[1]);
            gemm_step<FORMAT, TOKENS, FULL>(r, reader, sum, a[1], a[0]);
        }
    }
}

/* `count` slots into `sum`, from zero; a[0] has the first. Only the last chain of a product has an
 * odd count. */
template <tsr_weight_format FORMAT, int TOKENS>
static __device__ __forceinline__ void gemm_chain(gemm_ring *r, gemm_reader<FORMAT> *reader,
                                                  float (&sum)[TOKENS / 2], gemm_operand (&a)[2],
                                                  int32_t count)
{
#pragma unroll
    for (int i = 0; i < TOKENS / 2; i++)
        sum[i] = 0.0F;
    wgmma_hold(sum);
    if (reader->wide == TOKENS / 16)
        gemm_steps<FORMAT, TOKENS, true>(r, reader, sum, a, count / 2);
    else
        gemm_steps<FORMAT, TOKENS, false>(r, reader, sum, a, count / 2);
    if (count % 2 != 0)
        gemm_step<FORMAT, TOKENS, false>(r, reader, sum, a[0], a[1]);
    wgmma_wait<0>();
    wgmma_hold(a[0]);
    wgmma_hold(a[1]);
    wgmma_hold(sum);
    gemm_release<FORMAT>(*r, reader);
}

/* All slices. */
template <tsr_weight_format FORMAT, int TOKENS>
static __device__ __forceinline__ void gemm_consume_item(gemm_ring *r, const gemm_width &w,
                                                         int32_t count, float (&total)[TOKENS / 2])
{
    gemm_reader<FORMAT> reader;
    gemm_operand a[2];
    float sum[TOKENS / 2];

#pragma unroll
    for (int i = 0; i < TOKENS / 2; i++)
        total[i] = 0.0F;
    gemm_open<FORMAT>(r, &reader, w.slots, count, a[0]);
    for (int32_t k = 0; k < w.slots; k += w.slice) {
        gemm_chain<FORMAT, TOKENS>(r, &reader, sum, a, min(w.slice, w.slots - k));
#pragma unroll
        for (int i = 0; i < TOKENS / 2; i++)
            total[i] = __fadd_rn(total[i], sum[i]);
    }
}

/* The barriers of the next round of sums, as `slot` of gemm_full and gemm_empty: lent slots take turns. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ int32_t gemm_sums_slot(const gemm_ring &r)
{
    return GEMM_SUMS + (gemm_converts(FORMAT) ? 0 : (int32_t)(r.rounds % 2));
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ uint32_t gemm_sums_phase(const gemm_ring &r)
{
    return (gemm_converts(FORMAT) ? r.rounds : r.rounds / 2) % 2;
}

/* Where they go, when it is free. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ uint32_t gemm_sums_at(gemm_ring *r)
{
    barrier_wait(gemm_empty(*r, gemm_sums_slot<FORMAT>(*r)), gemm_sums_phase<FORMAT>(*r) ^ 1);
    if (gemm_converts(FORMAT))
        return r->sums;
    const uint32_t at = r->at;
    barrier_wait(gemm_full(*r, r->slot), r->phase);
    gemm_advance(r);
    return at;
}

/* Puts down the sums of `count` tokens, round after round, for those who store them. */
template <tsr_weight_format FORMAT, int TOKENS>
static __device__ __forceinline__ void gemm_leave(gemm_ring *r, const float (&sum)[TOKENS / 2],
                                                  int32_t count)
{
    const int round = gemm_round(FORMAT, GEMM_KERNEL_TOKENS);
    const uint32_t warp = threadIdx.x / TSR_CUDA_LANES;
    const uint32_t lane = threadIdx.x % TSR_CUDA_LANES;
    const uint32_t row = (warp * TSR_CUDA_TILE + lane / 4) ^ 8 * (lane % 4);
    const uint32_t mine[2] = {2 * (lane % 4) * GEMM_SUMS_BYTES + 4 * row,
                              2 * (lane % 4) * GEMM_SUMS_BYTES + 4 * (row ^ 8)};

#pragma unroll
    for (int first = 0; first < TOKENS; first += round) {
        if (first >= count)
            break;
        const uint32_t to = gemm_sums_at<FORMAT>(r);
#pragma unroll
        for (int j = first / 8; j < TOKENS / 8 && j < (first + round) / 8; j++) {
            if (8 * j >= count)
                break;
#pragma unroll
            for (int i = 0; i < 4; i++)
                shared_store(to + mine[i / 2] + (8 * j - first + i % 2) * GEMM_SUMS_BYTES,
                             sum[4 * j + i]);
        }
        __syncwarp();
        if (lane == 0)
            barrier_arrive(gemm_full(*r, gemm_sums_slot<FORMAT>(*r)));
        r->rounds++;
    }
    gemm_give_item(r);
}

/* Items of one width, as long as they come. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_consume(gemm_ring *r, const gemm_width &w)
{
    for (;;) {
        const gemm_item *item = gemm_take_item(*r);
        float total[GEMM_KERNEL_TOKENS / 2];
        if (item->count == 0)
            break;
        gemm_consume_item<FORMAT, GEMM_KERNEL_TOKENS>(r, w, item->count, total);
        gemm_leave<FORMAT, GEMM_KERNEL_TOKENS>(r, total, item->count);
    }
}

/* ---- scales of 128 columns ---- */

typedef struct gemm_scales {
    const float *block; /* of this warpgroup's rows, group after group; NULL: none */
    const float *group; /* [operand row][groups]; NULL: none */
    int32_t groups;
} gemm_scales;

/* `row` is the first of this warpgroup's. */
static __device__ __forceinline__ gemm_scales gemm_scales_of(const gemm_item *item,
                                                             const float *group, int32_t in,
                                                             int32_t row)
{
    const float *blocks = item->blocks[threadIdx.x / GEMM_GROUP];
    gemm_scales s;

    s.groups = (in + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP;
    s.block = blocks != NULL ? blocks + (int64_t)(row / TSR_CUDA_GROUP) * s.groups : NULL;
    s.group = group;
    return s;
}

template <int TOKENS>
static __device__ __forceinline__ void
gemm_join(const gemm_scales &s, int32_t group, const int32_t *operand_row,
          const float (&part)[TOKENS / 2], float (&sum)[TOKENS / 2])
{
    const float of_block = s.block != NULL ? s.block[group] : 1.0F;
    const int32_t quad = (int32_t)(threadIdx.x % 4);

#pragma unroll
    for (int j = 0; j < TOKENS / 8; j++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int64_t row = operand_row[j * 8 + 2 * quad + e];
            const float of_row = s.group != NULL ? s.group[row * s.groups + group] : 1.0F;
            const float scale = __fmul_rn(of_block, of_row);
            sum[4 * j + e] = fmaf(part[4 * j + e], scale, sum[4 * j + e]);
            sum[4 * j + 2 + e] = fmaf(part[4 * j + 2 + e], scale, sum[4 * j + 2 + e]);
        }
    }
}

/* All slices, where a chain ends after 128 columns. */
template <tsr_weight_format FORMAT, int TOKENS>
static __device__ __forceinline__ void
gemm_consume_scaled(gemm_ring *r, const gemm_width &w, const gemm_scales &scales,
                    const gemm_item *item, float (&total)[TOKENS / 2])
{
    const int32_t chain = TSR_CUDA_GROUP / GEMM_COLUMNS;
    gemm_reader<FORMAT> reader;
    gemm_operand a[2];
    float part[TOKENS / 2];
    float sum[TOKENS / 2];

#pragma unroll
    for (int i = 0; i < TOKENS / 2; i++)
        total[i] = sum[i] = 0.0F;
    gemm_open<FORMAT>(r, &reader, w.slots, item->count, a[0]);
    for (int32_t k = 0; k < w.slots; k += chain) {
        const int32_t count = min(chain, w.slots - k);
        gemm_chain<FORMAT, TOKENS>(r, &reader, part, a, count);
        gemm_join<TOKENS>(scales, k / chain, item->row, part, sum);
        if (k + count != w.slots && (k + count) % w.slice != 0)
            continue;
#pragma unroll
        for (int i = 0; i < TOKENS / 2; i++) {
            total[i] = __fadd_rn(total[i], sum[i]);
            sum[i] = 0.0F;
        }
    }
}

/* What such an item leaves. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_leave_scaled(gemm_ring *r, const gemm_width &w,
                                                         const gemm_scales &scales,
                                                         const gemm_item *item)
{
    float total[GEMM_SCALED_TOKENS / 2];

    gemm_consume_scaled<FORMAT, GEMM_SCALED_TOKENS>(r, w, scales, item, total);
    gemm_leave<FORMAT, GEMM_SCALED_TOKENS>(r, total, item->count);
}

#endif
