/*
 * Products of experts: CTAs walk over (tile of pairs, block of rows), the rows of one tile next to
 * each other, so that those that run together share tokens, then weights.
 *
 *   gated    a block is 64 rows: the first warpgroup has them of the gate, the second of up; both
 *            meet when they are stored
 *   else     a block is 128 rows
 *
 * Which expert, where its weights lie and which rows its pairs are is on the device: each is fetched
 * a tile before it is needed.
 */
#include "kernels/cuda/linear/gemm_cuda.cuh"

#include "kernels/cuda/device/e4m3_cuda.cuh"
#include "kernels/cuda/linear/gemm_bring_cuda.cuh"
#include "kernels/cuda/linear/gemm_store_cuda.cuh"

typedef struct experts_args {
    tsr_gemm_grouped g;
    gemm_shape shape;
    int32_t blocks; /* of rows */
    int32_t tokens; /* most that are multiplied at once */
} experts_args;

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
    s.linear = w.tile.expert;
    s.block = block;
    s.weight_scale = w.linear.weight_scale * packed_left(w.linear.format);
    s.biased = w.linear.bias != NULL;
    return s;
}

template <tsr_weight_format FORMAT, bool GATED>
static __device__ __forceinline__ void experts_bring_tile(const experts_args &a, gemm_ring *r,
                                                          const experts_walk &w, gemm_order *last)
{
    const gemm_width width = gemm_width_of(a.g.in);
    const int32_t block = w.item % a.blocks * (GATED ? GEMM_HALF : GEMM_ROWS);
    const int32_t tile =
        block / TSR_CUDA_TILE + (GATED ? gemm_my_tile() % GEMM_HALF_TILES : gemm_my_tile());
    gemm_order next = {};
    int32_t at = 0;

    next.weights = gemm_weights_at<FORMAT>(w.linear.weight, w.linear.scales, tile, a.g.out, width);
    do {
        next.count = min(w.tile.count - at, a.tokens);
        if (next.count > 0) {
            const int32_t row =
                at == 0 ? w.row : gemm_row_of(a.g.source, w.tile.first + at, next.count);
            next.item = gemm_put_item(r, experts_source<GATED>(a, w, at, row));
        }
        gemm_produce_last<FORMAT>(r, width, a.g.x.rows, last, next);
        at += a.tokens;
    } while (at < w.tile.count);
}

template <tsr_weight_format FORMAT, bool GATED>
static __device__ __forceinline__ void experts_bring(const experts_args &a, gemm_ring *r)
{
    const tsr_cuda_side side = experts_side<GATED>(a);
    const int32_t stride = (int32_t)gridDim.x;
    gemm_order last = {};
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
    while (w.item < w.items || last.item != NULL) {
        const tsr_linear linear = *tsr_side_of(&a.g.mlps[w.next.expert], side);
        const tsr_cuda_tile after = experts_tile(a, w.item + 2 * stride, w.items);
        const int32_t row = gemm_row_of(a.g.source, w.next.first, min(w.next.count, a.tokens));
        if (w.item >= w.items)
            w.tile.count = 0;
        experts_bring_tile<FORMAT, GATED>(a, r, w, &last);
        w.item += stride;
        w.row = row;
        w.tile = w.next;
        w.next = after;
        w.linear = linear;
    }
    gemm_put_end(r);
}

/* What becomes of values for an expert's down. */
typedef struct experts_codes {
    const float *factor; /* of the columns, or NULL */
    tsr_divisor by;
    int32_t padded; /* columns of a row */
} experts_codes;

static __device__ __forceinline__ experts_codes experts_codes_of(const experts_args &a,
                                                                 const gemm_item *item)
{
    experts_codes c = {};

    if (a.g.codes.rows == NULL)
        return c;
    const tsr_linear &down = a.g.mlps[item->linear].down;
    c.factor = down.pre_quant_scale;
    c.by = tsr_divisor_of(down.input_scale);
    c.padded = tsr_cuda_padded(a.g.out);
    return c;
}

/* Four values of a pair, of which `left` are there, as rows_held_cuda.cu would make them. */
static __device__ __forceinline__ void experts_put_codes(const experts_args &a,
                                                         const experts_codes &c, int32_t pair,
                                                         int32_t row, int32_t left,
                                                         const float v[4])
{
    float x[4];

#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[i] = i < left && c.factor != NULL ? v[i] * __ldg(c.factor + row + i) : v[i];
        x[i] = i < left ? x[i] : 0.0F;
    }
    *(uint2 *)(void *)(a.g.codes.rows + (int64_t)pair * c.padded + row) =
        tsr_e4m3_four(make_float4(x[0], x[1], x[2], x[3]), c.by);
    if (row == 0)
        a.g.codes.scale[pair] = c.by.by;
}

/* Gate and up of the same rows meet: half a warp takes a token. */
static __device__ __forceinline__ void experts_gate(const experts_args &a, const gemm_ring &r,
                                                    const gemm_item *item, const gemm_output &out,
                                                    const experts_codes &codes, int32_t first,
                                                    int32_t end)
{
    enum { HALF_LANES = TSR_CUDA_LANES / 2 };
    const bool channels = a.g.kind.format == TSR_WEIGHT_FP8_CHANNEL;
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t within = lane % HALF_LANES * 4;
    const int32_t row = item->block + within;
    const gemm_four gate = gemm_four_of(item, channels, within);
    const gemm_four up = gemm_four_of(item, channels, GEMM_HALF + within);

    if (row >= (codes.padded > 0 ? codes.padded : out.rows))
        return;
    for (int32_t token = first + 2 * gemm_storer() + lane / HALF_LANES; token < end;
         token += 2 * GEMM_STORERS) {
        float g[4];
        float u[4];
        gemm_get_sums(r, token - first, within, g);
        gemm_get_sums(r, token - first, GEMM_HALF + within, u);
        gemm_finish(gate, item->scale[token], g);
        gemm_finish(up, item->scale[token], u);
        for (int i = 0; i < 4; i++)
            g[i] = __fmul_rn(tsr_silu(g[i]), u[i]);
        if (codes.padded > 0)
            experts_put_codes(a, codes, item->to[token], row, out.rows - row, g);
        else
            gemm_put(out, item->to[token], row, g);
    }
}

/* The first two warpgroups. */
template <tsr_weight_format FORMAT, bool SCALED, bool GATED>
static __device__ __forceinline__ void experts_multiply(const experts_args &a, gemm_ring *r)
{
    const gemm_width w = gemm_width_of(a.g.in);
    const float *group =
        tsr_cuda_has_groups(a.g.kind.format, a.g.kind.activation) ? a.g.x.group_scale : NULL;

    if constexpr (!SCALED) {
        gemm_consume<FORMAT>(r, w);
    } else {
        for (;;) {
            const gemm_item *item = gemm_take_item(*r);
            if (item->count == 0)
                break;
            const int32_t half = (int32_t)threadIdx.x / GEMM_GROUP;
            const int32_t row = item->block + (GATED ? 0 : half * GEMM_HALF);
            gemm_leave_scaled<FORMAT>(r, w, gemm_scales_of(item, group, a.g.in, row), item);
        }
    }
}

/* All rounds of an item. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void
experts_gate_all(const experts_args &a, gemm_ring *r, const gemm_item *item, const gemm_output &out)
{
    const int32_t round = gemm_round(FORMAT, GEMM_KERNEL_TOKENS);
    const experts_codes codes = experts_codes_of(a, item);

    gemm_pass<FORMAT>(r, gemm_width_of(a.g.in));
    for (int32_t first = 0; first < item->count; first += round) {
        gemm_take_sums<FORMAT>(r);
        experts_gate(a, *r, item, out, codes, first, min(item->count, first + round));
        gemm_give_sums<FORMAT>(r);
    }
    gemm_give_item(r);
}

/* The fourth. */
template <tsr_weight_format FORMAT, bool GATED>
static __device__ __forceinline__ void experts_store(const experts_args &a, gemm_ring *r)
{
    gemm_output out = gemm_output_of(a.g.y, a.g.gates ? a.g.y : NULL, a.g.out, a.g.out);

    out.gates = a.g.gates;
    if constexpr (!GATED)
        out.into = a.g.into;
    for (;;) {
        const gemm_item *item = gemm_take_item(*r);
        if (item->count == 0)
            break;
        if constexpr (GATED)
            experts_gate_all<FORMAT>(a, r, item, out);
        else
            gemm_store<FORMAT>(r, item, gemm_width_of(a.g.in),
                               a.g.kind.format == TSR_WEIGHT_FP8_CHANNEL, out);
    }
}

template <tsr_weight_format FORMAT, bool SCALED, bool GATED>
static __global__ void __launch_bounds__(GEMM_ALL_THREADS, 1)
    experts_kernel(const __grid_constant__ experts_args a)
{
    extern __shared__ unsigned char shared[];
    gemm_ring r = gemm_ring_open(shared, a.shape, false);

    tsr_admit_kernel();
    if (threadIdx.x / GEMM_GROUP == 2) {
        wgmma_fewer_registers<GEMM_PRODUCER_REGISTERS>();
        experts_bring<FORMAT, GATED>(a, &r);
    } else if (threadIdx.x / GEMM_GROUP == 3) {
        wgmma_fewer_registers<gemm_storer_registers(FORMAT, GATED)>();
        tsr_await_kernel();
        experts_store<FORMAT, GATED>(a, &r);
    } else {
        wgmma_more_registers<gemm_consumer_registers(FORMAT, GATED)>();
        tsr_await_kernel();
        experts_multiply<FORMAT, SCALED, GATED>(a, &r);
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
    a.tokens = tsr_smaller(gemm_most_tokens(scaled), card->tokens);
    a.shape = gemm_storing_shape_of(g->kind.format, &a.tokens, card->shared);
    const int64_t most = (int64_t)a.blocks * g->max_tiles;
    if (most == 0)
        return TSR_OK;
    at.grid.x = (unsigned)(most < card->processors ? most : card->processors);
    at.threads = GEMM_ALL_THREADS;
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
