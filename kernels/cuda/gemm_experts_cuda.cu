/*
 * Products of experts: CTAs walk over (tile of pairs, block of rows), the rows of one tile next to
 * each other, so that those that run together share tokens, then weights.
 *
 *   gated    a block is 64 rows: the first warpgroup has them of the gate, the second of up; they
 *            exchange halves, each finishes half of the tokens
 *   else     a block is 128 rows
 *
 * Which expert, where its weights lie and which rows its pairs are is on the device: each is fetched
 * a tile before it is needed.
 */
#include "kernels/cuda/gemm_cuda.cuh"

#include "kernels/cuda/gemm_sums_cuda.cuh"

typedef struct experts_args {
    tsr_gemm_grouped g;
    gemm_shape shape;
    int32_t blocks; /* of rows */
    int32_t tokens; /* most that are multiplied at once */
} experts_args;

enum { EXCHANGE_BYTES = GEMM_TOKENS / 4 * 2 * GEMM_GROUP * 4 };

/* Where a thread of the third warpgroup is on its walk. What comes next is fetched a tile ahead. */
typedef struct experts_walk {
    int32_t item;
    int32_t items;
    int32_t row; /* the operand row of the thread's token */
    tsr_cuda_tile tile;
    tsr_cuda_tile next;
    tsr_linear linear; /* the thread's own of the tile's expert */
} experts_walk;

static __device__ __forceinline__ tsr_cuda_tile experts_tile(const experts_args &a, int32_t item,
                                                             int32_t items)
{
    return a.g.tile[min(item, items - 1) / a.blocks];
}

/* The half of the rows that a thread brings scales and weights of. */
template <bool GATED>
static __device__ __forceinline__ tsr_cuda_side experts_side(const experts_args &a)
{
    if (!GATED)
        return a.g.side;
    return gemm_my_tile() < GEMM_HALF_TILES ? TSR_CUDA_GATE : TSR_CUDA_UP;
}

/* Pairs `at` .. of a tile with the walk's block of rows. */
template <bool GATED>
static __device__ __forceinline__ gemm_source experts_source(const experts_args &a,
                                                             const experts_walk &w, int32_t at,
                                                             int32_t row)
{
    const int32_t thread = (int32_t)threadIdx.x % GEMM_GROUP;
    const int32_t block = w.item % a.blocks * (GATED ? GEMM_HALF : GEMM_ROWS);
    const int32_t of_weight = block + (GATED ? thread % GEMM_HALF : thread);
    const bool there = of_weight < a.g.out;
    gemm_source s = {};

    s.scale = a.g.x.scale;
    s.pair = w.tile.first + at + thread;
    s.to = GATED || a.g.target == NULL ? NULL : a.g.target + s.pair;
    s.channel = there && a.g.kind.format == TSR_WEIGHT_FP8_CHANNEL
                    ? (const float *)w.linear.scales + of_weight
                    : NULL;
    s.bias = there && w.linear.bias != NULL ? w.linear.bias + of_weight : NULL;
    s.blocks = a.g.kind.format == TSR_WEIGHT_FP8_BLOCK ? (const float *)w.linear.scales : NULL;
    s.row = row;
    s.count = min(w.tile.count - at, a.tokens);
    s.block = block;
    s.weight_scale = w.linear.weight_scale * packed_left(w.linear.format);
    s.biased = w.linear.bias != NULL;
    return s;
}

template <tsr_weight_format FORMAT, bool GATED>
static __device__ __forceinline__ void experts_bring_tile(const experts_args &a, gemm_ring *r,
                                                          const experts_walk &w)
{
    const gemm_width width = gemm_width_of(a.g.in);
    const int32_t block = w.item % a.blocks * (GATED ? GEMM_HALF : GEMM_ROWS);
    const int32_t tile =
        block / TSR_CUDA_TILE + (GATED ? gemm_my_tile() % GEMM_HALF_TILES : gemm_my_tile());
    const gemm_weights weights =
        gemm_weights_at<FORMAT>(w.linear.weight, w.linear.scales, tile, a.g.out, width);

    for (int32_t at = 0; at < w.tile.count; at += a.tokens) {
        const int32_t count = min(w.tile.count - at, a.tokens);
        const int32_t row = at == 0 ? w.row : gemm_row_of(a.g.source, w.tile.first + at, count);
        const gemm_item *item = gemm_put_item(r, experts_source<GATED>(a, w, at, row));
        gemm_produce<FORMAT>(r, width, weights, a.g.x.rows, item, count, 0);
    }
}

template <tsr_weight_format FORMAT, bool GATED>
static __device__ __forceinline__ void experts_bring(const experts_args &a, gemm_ring *r)
{
    const tsr_cuda_side side = experts_side<GATED>(a);
    const int32_t stride = (int32_t)gridDim.x;
    experts_walk w;

    tsr_await_kernel();
    w.items = *a.g.tiles * a.blocks;
    w.item = (int32_t)blockIdx.x;
    if (w.item < w.items) {
        w.tile = experts_tile(a, w.item, w.items);
        w.next = experts_tile(a, w.item + stride, w.items);
        w.row = gemm_row_of(a.g.source, w.tile.first, min(w.tile.count, a.tokens));
        w.linear = *tsr_side_of(&a.g.mlps[w.tile.expert], side);
    }
    while (w.item < w.items) {
        const tsr_linear linear = *tsr_side_of(&a.g.mlps[w.next.expert], side);
        const tsr_cuda_tile after = experts_tile(a, w.item + 2 * stride, w.items);
        const int32_t row = gemm_row_of(a.g.source, w.next.first, min(w.next.count, a.tokens));
        experts_bring_tile<FORMAT, GATED>(a, r, w);
        w.item += stride;
        w.row = row;
        w.tile = w.next;
        w.next = after;
        w.linear = linear;
    }
    gemm_put_end(r);
}

/* Gate and up of the same rows meet: of every 16 tokens warpgroup 0 keeps the first 8. */
template <int TOKENS>
static __device__ __forceinline__ void experts_gate(const experts_args &a,
                                                    const float (&y)[TOKENS / 2],
                                                    const gemm_item *item, uint32_t exchange)
{
    const int32_t half = (int32_t)threadIdx.x / GEMM_GROUP;
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES) % GEMM_HALF_TILES;
    const uint32_t mine = exchange + 4 * (threadIdx.x % GEMM_GROUP);
    const int32_t first = item->block + warp * TSR_CUDA_TILE + lane / 4;
    const int32_t count = item->count;

    gemm_consumers_meet(); /* what was exchanged last has been read */
#pragma unroll
    for (int i = 0; i < TOKENS / 4; i++) {
        const int at = i / 4 * 8 + i % 4;
        if (i / 4 * 16 < count)
            shared_store(mine + 4 * GEMM_GROUP * (2 * i + half), half == 0 ? y[at + 4] : y[at]);
    }
    gemm_consumers_meet();
#pragma unroll
    for (int i = 0; i < TOKENS / 4; i++) {
        const int at = i / 4 * 8 + i % 4;
        const int32_t token = i / 4 * 16 + half * 8 + 2 * (lane % 4) + i % 2;
        const int32_t row = first + i / 2 % 2 * 8;
        if (i / 4 * 16 >= count)
            break;
        const float other = shared_load(mine + 4 * GEMM_GROUP * (2 * i + 1 - half));
        const float kept = half == 0 ? y[at] : y[at + 4];
        const float gate = half == 0 ? kept : other;
        const float up = half == 0 ? other : kept;
        if (token < count && row < a.g.out)
            a.g.y[(int64_t)item->to[token] * a.g.out + row] = __fmul_rn(tsr_silu(gate), up);
    }
}

template <tsr_weight_format FORMAT, bool SCALED, bool GATED>
static __device__ __forceinline__ void experts_product(const experts_args &a, gemm_ring *r,
                                                       const gemm_width &w, const gemm_item *item,
                                                       uint32_t exchange)
{
    const int tokens = gemm_most_tokens(SCALED);
    const int32_t half = (int32_t)threadIdx.x / GEMM_GROUP;
    const int32_t row = item->block + (GATED ? 0 : half * GEMM_HALF);
    const float *group =
        tsr_cuda_has_groups(a.g.kind.format, a.g.kind.activation) ? a.g.x.group_scale : NULL;
    float total[gemm_most_tokens(SCALED) / 2];

    if constexpr (SCALED)
        gemm_consume_scaled<FORMAT, tokens>(r, w, gemm_scales_of(item, group, a.g.in, row), item,
                                            total);
    else
        gemm_consume<FORMAT, tokens>(r, w, item->count, total);
    gemm_finish<tokens>(total, item, a.g.kind.format == TSR_WEIGHT_FP8_CHANNEL);
    if constexpr (GATED)
        experts_gate<tokens>(a, total, item, exchange);
    else
        gemm_store<tokens>(total, item, row, gemm_output_of(a.g.y, NULL, a.g.out, a.g.out));
}

template <tsr_weight_format FORMAT, bool SCALED, bool GATED>
static __global__ void __launch_bounds__(GEMM_THREADS, 1)
    experts_kernel(const __grid_constant__ experts_args a)
{
    extern __shared__ unsigned char shared[];
    gemm_ring r = gemm_ring_open(shared, a.shape);

    tsr_admit_kernel();
    if (threadIdx.x / GEMM_GROUP == 2) {
        wgmma_fewer_registers<GEMM_PRODUCER_REGISTERS>();
        experts_bring<FORMAT, GATED>(a, &r);
        return;
    }
    wgmma_more_registers<GEMM_CONSUMER_REGISTERS>();
    tsr_await_kernel();
    const gemm_width w = gemm_width_of(a.g.in);
    const uint32_t exchange = async_address(shared) + GEMM_ITEMS * (uint32_t)sizeof(gemm_item);
    for (;;) {
        const gemm_item *item = gemm_take_item(r);
        if (item->count == 0)
            break;
        experts_product<FORMAT, SCALED, GATED>(a, &r, w, item, exchange);
        gemm_give_item(&r);
    }
}

typedef void (*experts_function)(experts_args);

/* Each without and with a gate. */
enum { EXPERTS_ROWS = GEMM_KINDS };

static const experts_function experts_kernels[EXPERTS_ROWS][2] = {
    {experts_kernel<TSR_WEIGHT_BF16, false, false>, experts_kernel<TSR_WEIGHT_BF16, false, true>},
    {experts_kernel<TSR_WEIGHT_FP8, false, false>, experts_kernel<TSR_WEIGHT_FP8, false, true>},
    {experts_kernel<TSR_WEIGHT_FP8, true, false>, experts_kernel<TSR_WEIGHT_FP8, true, true>},
    {experts_kernel<TSR_WEIGHT_NVFP4, false, false>, experts_kernel<TSR_WEIGHT_NVFP4, false, true>},
    {experts_kernel<TSR_WEIGHT_F16, false, false>, experts_kernel<TSR_WEIGHT_F16, false, true>},
};

tsr_status tsr_gemm_prepare_experts(const tsr_gemm_card *card)
{
    tsr_status st = TSR_OK;

    for (int i = 0; st == TSR_OK && i < 2 * EXPERTS_ROWS; i++)
        st = TSR_CUDA(cudaFuncSetAttribute((const void *)experts_kernels[i / 2][i % 2],
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           (int)card->shared));
    return st;
}

static tsr_status launch(const tsr_gemm_card *card, const tsr_gemm_grouped *g, bool gated,
                         cudaStream_t stream)
{
    const bool scaled = product_is_scaled(g->kind.format, g->kind.activation);
    const int row = tsr_gemm_kind(g->kind.format, scaled);
    tsr_cuda_launch_shape at = {};
    experts_args a = {};

    a.g = *g;
    a.blocks = (int32_t)tsr_cuda_ceil(g->out, gated ? GEMM_HALF : GEMM_ROWS);
    a.tokens = gemm_most_tokens(scaled);
    a.shape = gemm_shape_of(g->kind.format, a.tokens, gated ? EXCHANGE_BYTES : 0, card->shared);
    const int64_t most = (int64_t)a.blocks * g->max_tiles;
    if (most == 0)
        return TSR_OK;
    at.grid.x = (unsigned)(most < card->processors ? most : card->processors);
    at.threads = GEMM_THREADS;
    at.shared = a.shape.bytes;
    at.stream = stream;
    return tsr_cuda_launch(at, experts_kernels[row][gated ? 1 : 0], a);
}

tsr_status tsr_gemm_experts(const tsr_gemm_card *card, const tsr_gemm_grouped *g,
                            cudaStream_t stream)
{
    return launch(card, g, false, stream);
}

tsr_status tsr_gemm_gated(const tsr_gemm_card *card, const tsr_gemm_grouped *g, cudaStream_t stream)
{
    return launch(card, g, true, stream);
}
