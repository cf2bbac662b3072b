/*
 * Items of a stream of weights (stream_cuda.cuh), as tiles_stream_cuda.cu has them: operand rows of a tile of
 * pairs, a warp's product with them, and where its values go.
 */
#ifndef TSR_KERNELS_CUDA_EXPERTS_TILES_ITEM_CUDA_CUH
#define TSR_KERNELS_CUDA_EXPERTS_TILES_ITEM_CUDA_CUH

#include "kernels/cuda/experts/stream_cuda.cuh"

enum {
    TEAM_PITCH = 20, /* words of a token's sums with a tile, against bank conflicts */
    FEW_WARPS = 8,   /* of a CTA, two of which share a multiprocessor, or the least that multiply */
    LINEARS = STREAM_SIDES + 1,
    LINEAR_WORDS = 16, /* that a linear is counted as */
    KEPT_FOURS = 8,    /* of a row, by a thread that makes operands */
    MOST_PARTS = 2,    /* that the rows of a tile of pairs are made in */
    /* Pairs of eight experts, on average, up to which warps go in teams, and CTAs in twos. */
    TEAM_DENSITY = 24,
    PAIR_DENSITY = 8,
    OWNED_OF = 5, /* CTAs, of which at most one has no tile of pairs, where they own them */
};

static_assert(sizeof(tsr_linear) <= LINEAR_WORDS * sizeof(uint32_t), "a linear has more words");

/* Sums of a side of a warp, where a team adds them up. */
typedef float stream_sums[PRODUCT_COLUMNS][TEAM_PITCH];

/* What sums with a row of the weights of both sides become values by. */
typedef struct stream_ends {
    float scale[STREAM_SIDES];
    float bias[STREAM_SIDES];
    int32_t row; /* of the output, of side 0 */
    bool there[STREAM_SIDES];
} stream_ends;

/* `row` is that of a tile. */
static __device__ __forceinline__ stream_ends ends_of(const stream_args &a, const stream_warp *w,
                                                      int32_t row)
{
    const bool down = stream_is_down(a);
    stream_ends e;

    e.row = w->item.group * TSR_CUDA_TILE * (down ? STREAM_SIDES : 1) + row;
#pragma unroll
    for (int side = 0; side < STREAM_SIDES; side++) {
        const tsr_linear &l = w->linear[down ? 0 : side];
        const int32_t of_side = e.row + (down ? side * TSR_CUDA_TILE : 0);
        e.there[side] = of_side < a.t.out;
        e.scale[side] = e.there[side] ? product_row_scale(l, of_side) : 0.0F;
        e.bias[side] = e.there[side] && l.bias != NULL ? l.bias[of_side] : -0.0F;
    }
    return e;
}

/* From both sides' sums with one token to where their values go. Nothing changes by adding -0. */
static __device__ __forceinline__ void finish(const stream_args &a, const stream_memory *m,
                                              const stream_ends &e, int32_t token, float sum0,
                                              float sum1)
{
    const bool down = stream_is_down(a);
    float *y = tsr_cuda_row(a.t.pairs.into, a.t.y, m->target[token], a.t.out) + e.row;
    const float scale = m->scale[token];

    sum0 = __fadd_rn(__fmul_rn(sum0, __fmul_rn(scale, e.scale[0])), e.bias[0]);
    sum1 = __fadd_rn(__fmul_rn(sum1, __fmul_rn(scale, e.scale[1])), e.bias[1]);
    if (e.there[0])
        y[0] = down ? sum0 : __fmul_rn(tsr_silu(sum0), sum1);
    if (down && e.there[1])
        y[TSR_CUDA_TILE] = sum1;
}

/* Sums that a warp has alone: those of the instruction's result. */
template <int SPANS>
static __device__ __forceinline__ void finish_own(const stream_args &a, const stream_warp *w,
                                                  const float total[STREAM_SIDES][SPANS][4])
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);

#pragma unroll
    for (int half = 0; half < 2; half++) {
        const stream_ends e = ends_of(a, w, lane / 4 + half * 8);
#pragma unroll
        for (int i = 0; i < 2 * SPANS; i++) {
            const int32_t token = i / 2 * PRODUCT_COLUMNS + 2 * (lane % 4) + i % 2;
            if (token < w->o.count)
                finish(a, w->m, e, token, total[0][i / 2][2 * half + i % 2],
                       total[1][i / 2][2 * half + i % 2]);
        }
    }
}

static __device__ __forceinline__ void team_meets(const stream_args &a, const stream_share &s)
{
    asm volatile("barrier.sync %0, %1;" ::"r"(s.team + 1), "r"(a.cut.slices * TSR_CUDA_LANES)
                 : "memory");
}

/* Sums of a team's warps, a slice each. `sums` are the team's: [slice][side]. */
static __device__ __forceinline__ void finish_team(const stream_args &a, const stream_warp *w,
                                                   const float own[STREAM_SIDES][1][4],
                                                   stream_sums *sums)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t slice = w->share.slice;
    const int32_t mine = slice * TSR_CUDA_LANES + lane;
    const int32_t row = mine % TSR_CUDA_TILE;
    const stream_ends e = ends_of(a, w, row);

    team_meets(a, w->share); /* nobody looks at the item before any more */
#pragma unroll
    for (int i = 0; i < STREAM_SIDES * 4; i++)
        sums[slice * STREAM_SIDES + i / 4][2 * (lane % 4) + i % 2][lane / 4 + i / 2 % 2 * 8] =
            own[i / 4][0][i % 4];
    team_meets(a, w->share);
    for (int32_t i = mine; i < w->o.count * TSR_CUDA_TILE; i += a.cut.slices * TSR_CUDA_LANES) {
        const int32_t token = i / TSR_CUDA_TILE;
        float sum0 = sums[0][token][row];
        float sum1 = sums[1][token][row];
        for (int32_t k = 1; k < a.cut.slices; k++) {
            sum0 += sums[k * STREAM_SIDES][token][row];
            sum1 += sums[k * STREAM_SIDES + 1][token][row];
        }
        finish(a, w->m, e, token, sum0, sum1);
    }
}

/* The first tiles of pairs, before it is known how many there are: a look at memory costs as much as anything
 * else here. */
static __device__ __forceinline__ void look_at_tiles(const stream_args &a, stream_memory *m)
{
    const int32_t words = (int32_t)(sizeof(tsr_cuda_tile) / sizeof(int32_t));

    for (int32_t i = (int32_t)threadIdx.x; i < a.near * words; i += (int32_t)blockDim.x)
        ((int32_t *)(void *)m->tile)[i] = ((const int32_t *)(const void *)a.tile)[i];
    __syncthreads();
}

static __device__ __forceinline__ tsr_cuda_tile tile_at(const stream_args &a,
                                                        const stream_memory *m, int32_t index)
{
    return index < a.near ? m->tile[index] : a.tile[index];
}

/* Rows of x of `count` tiles of pairs, by threads that fetch no linears. */
static __device__ __forceinline__ void fetch_sources(const stream_args &a, int32_t first,
                                                     int32_t count, int32_t tiles, stream_memory *m)
{
    const int32_t i = (int32_t)(blockDim.x - 1 - threadIdx.x);
    const int32_t index = first + i / PRODUCT_TOKENS;
    const int32_t mine = i % PRODUCT_TOKENS;

    if (a.t.source == NULL || i >= count * PRODUCT_TOKENS || index >= tiles)
        return;
    const tsr_cuda_tile pairs = tile_at(a, m, index);
    if (mine < pairs.count)
        m->source[index % 2][mine] = a.t.source[pairs.first + mine];
}

/* Linears of `count` tiles of pairs, word by word. Code that runs once divides by powers of two. */
static __device__ __forceinline__ void fetch_linears(const stream_args &a, int32_t first,
                                                     int32_t count, int32_t tiles, stream_memory *m)
{
    const int32_t words = (int32_t)(sizeof(tsr_linear) / sizeof(uint32_t));
    const int32_t i = (int32_t)threadIdx.x;
    const int32_t index = first + i / (LINEARS * LINEAR_WORDS);
    const int32_t side = i / LINEAR_WORDS % LINEARS;
    const int32_t word = i % LINEAR_WORDS;
    const bool down = stream_is_down(a);

    if (i >= count * LINEARS * LINEAR_WORDS || index >= tiles || word >= words ||
        (down && side > 0))
        return;
    const tsr_mlp &mlp = a.t.mlps[tile_at(a, m, index).expert];
    const tsr_linear &l = down || side == STREAM_DOWN ? mlp.down : side == 0 ? mlp.gate : mlp.up;
    ((uint32_t *)(void *)&m->linear[index % 2][side])[word] =
        ((const uint32_t *)(const void *)&l)[word];
}

/* Where the operand rows of a tile of pairs come from, and their answers go. */
static __device__ __forceinline__ stage_source source_of(const stream_args &a, int32_t index,
                                                         const tsr_cuda_tile &pairs,
                                                         stream_memory *m)
{
    const int32_t mine = (int32_t)threadIdx.x;
    const int32_t *rows = a.t.source != NULL ? m->source[index % 2] : NULL;
    const stage_source from = {a.t.x, rows, a.t.x_stride, a.t.made};

    if (mine < pairs.count)
        m->target[mine] = stream_is_down(a) ? a.target[pairs.first + mine] : pairs.first + mine;
    return from;
}

/* A linear as far as rows are made by it, with what is known of it. */
template <tsr_weight_format FORMAT, known_rows ROWS>
static __device__ __forceinline__ tsr_linear known_of(const tsr_linear &linear)
{
    tsr_linear l = linear;

    l.format = FORMAT; /* or one of its codes with other scales, which rows do not tell apart */
    if (ROWS != ANY_ROWS)
        l.activation = ROWS == PLAIN_ROWS ? TSR_ACTIVATION_NONE : TSR_ACTIVATION_FP8;
    return l;
}

/* The operand rows of a tile of pairs, several at a time. What they are made of comes in front of
 * what is ordered meanwhile: behind it would be late. */
template <tsr_weight_format FORMAT, known_rows ROWS, bool OWNS>
static __device__ __forceinline__ void stage_pairs(const stream_args &a, stream_warp *w,
                                                   int32_t index, const tsr_cuda_tile &pairs,
                                                   const tsr_linear &of_pairs, unsigned char *rows)
{
    const tsr_linear linear = known_of<FORMAT, ROWS>(of_pairs);
    stage_rows to = {(uint16_t *)(void *)rows, w->m->scale, a.cut.padded + PRODUCT_PAD};
    const stage_source from = source_of(a, index, pairs, w->m);
    const int32_t first = from.row != NULL ? 0 : pairs.first;
    const bool orders = !OWNS || !stream_is_down(a); /* else they have been given */
    const int32_t at_once = min(stage_parts<KEPT_FOURS>(linear, from), (int32_t)PRODUCT_COLUMNS);
    stage_kept<KEPT_FOURS> kept;

    if (pairs.count > MOST_PARTS * at_once) {
        stage_fill(linear, from, first, pairs.count, to, w->m->peaks);
        if (orders)
            stream_fill<FORMAT, OWNS>(a, w);
        return;
    }
#pragma unroll 1
    for (int32_t done = 0; done < pairs.count; done += at_once) {
        const int32_t count = min(pairs.count - done, at_once);
        stage_first<KEPT_FOURS>(linear, from, first + done, count, &kept);
        if (done > 0)
            __syncthreads(); /* nobody looks at the peaks before any more */
        if (orders && done + count == pairs.count)
            stream_fill<FORMAT, OWNS>(a, w);
        stage_second<KEPT_FOURS>(linear, count, &kept, to, w->m->peaks);
        to.rows += at_once * to.pitch;
        to.scale += at_once;
    }
}

static __device__ __forceinline__ product_operand operand_of(const stream_args &a,
                                                             const tsr_cuda_tile &pairs,
                                                             const unsigned char *rows)
{
    product_operand o;

    o.rows = (const uint16_t *)(const void *)rows;
    o.count = pairs.count;
    o.pitch = a.cut.padded + PRODUCT_PAD;
    o.group_scale = a.t.grouped ? a.t.made.group_scale + (int64_t)pairs.first * a.cut.groups : NULL;
    return o;
}

/* Rounds of all teams, counted over all tiles of pairs, as items. */
static __device__ __forceinline__ int32_t round_begins(const stream_args &a, int32_t round)
{
    const int32_t tile = round / a.rounds;

    return tile * a.groups + (round - tile * a.rounds) * a.teams;
}

/* Whole rounds, so that no team waits for the others at the end of a tile of pairs. Teams have many
 * short ones, which CTAs share evenly; else a CTA has as many as the fullest one must have, since each
 * tile of pairs that it meets takes the time of making its operand rows. */
template <bool TEAMED>
static __device__ __forceinline__ stream_share share_of(const stream_args &a, int32_t tiles)
{
    const int32_t cta = (int32_t)blockIdx.x;
    const int32_t rounds = tiles * a.rounds;
    const int32_t each = rounds / (int32_t)gridDim.x;
    const int32_t more = rounds - each * (int32_t)gridDim.x;
    const int32_t most = each + (more > 0 ? 1 : 0);
    const int32_t first = TEAMED ? cta * each + min(cta, more) : cta * most;
    const int32_t end = first + (TEAMED ? each + (cta < more ? 1 : 0) : most);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    stream_share s;

    s.first = round_begins(a, min(first, rounds));
    s.end = round_begins(a, min(end, rounds));
    s.team = TEAMED ? warp / a.cut.slices : warp;
    s.slice = TEAMED ? warp % a.cut.slices : 0;
    s.slices = TEAMED ? 1 : a.cut.slices;
    return s;
}

/* An item of the warp's, or its slice of one of the team's. */
template <tsr_weight_format FORMAT, int SPANS, bool SCALED, bool TEAMED, bool OWNS>
static __device__ __forceinline__ void multiply_item(const stream_args &a, stream_warp *w,
                                                     stream_sums *sums)
{
    float total[STREAM_SIDES][SPANS][4];

    for (int32_t i = 0; i < w->share.slices; i++) {
        float sum[STREAM_SIDES][SPANS][4];
        stream_slice<FORMAT, SPANS, SCALED, OWNS>(a, w, w->share.slice + i, sum);
#pragma unroll
        for (int k = 0; k < STREAM_SIDES * SPANS * 4; k++) {
            float *to = &total[k / (SPANS * 4)][k / 4 % SPANS][k % 4];
            const float of_slice = sum[k / (SPANS * 4)][k / 4 % SPANS][k % 4];
            *to = i == 0 ? of_slice : *to + of_slice;
        }
    }
    if constexpr (TEAMED)
        finish_team(a, w, total, sums);
    else
        finish_own<SPANS>(a, w, total);
}

/* The tile of pairs that comes next: its operand rows, and the linears of the one after it. */
template <tsr_weight_format FORMAT, known_rows ROWS>
static __device__ __forceinline__ void
begin_pairs(const stream_args &a, stream_warp *w, int32_t index, int32_t tiles, unsigned char *rows)
{
    const tsr_cuda_tile pairs = tile_at(a, w->m, index);

    __syncthreads(); /* nobody looks at the tile before any more */
    if (index == w->known) {
        fetch_linears(a, index + 1, 1, tiles, w->m);
        fetch_sources(a, index + 1, 1, tiles, w->m);
    }
    stage_pairs<FORMAT, ROWS, false>(a, w, index, pairs, w->m->linear[index % 2][0], rows);
    __syncthreads();
    w->linear = w->m->linear[index % 2];
    w->o = operand_of(a, pairs, rows);
    w->operand = product_rows_at(w->o);
    w->known = index + 1;
    w->item.index = index;
}

/* A warp with its ring. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ stream_warp warp_of(const stream_args &a, unsigned char *rows,
                                                      stream_memory *m)
{
    const int32_t ring_bytes = stream_depth(FORMAT) * stream_place(FORMAT);
    stream_warp w = {};

    w.m = m;
    w.ring = async_address(rows) +
             (uint32_t)(a.rows_bytes + (int32_t)(threadIdx.x / TSR_CUDA_LANES) * ring_bytes);
    return w;
}

/* The CTA's share of all items. */
template <tsr_weight_format FORMAT, known_rows ROWS, int SPANS, bool SCALED, bool TEAMED>
static __device__ __forceinline__ void multiply_share(const stream_args &a, stream_warp *w,
                                                      int32_t tiles, unsigned char *rows)
{
    const int32_t warps = (int32_t)(blockDim.x / TSR_CUDA_LANES);
    const int32_t ring_bytes = stream_depth(FORMAT) * stream_place(FORMAT);
    stream_sums *sums = (stream_sums *)(void *)(rows + a.rows_bytes + warps * ring_bytes);

    w->share = share_of<TEAMED>(a, tiles);
    if (w->share.first >= w->share.end)
        return;
    int32_t index = w->share.first / a.groups;
    fetch_linears(a, index, 2, tiles, w->m);
    fetch_sources(a, index, 2, tiles, w->m);
    __syncthreads();
    w->known = index + 1;
    w->cursor.item = {index, w->share.first % a.groups + w->share.team - a.teams};
    stream_advance(a, w);
    if (stream_is_down(a)) {
        stream_fill<FORMAT, false>(a, w);
        tsr_await_kernel();
    }
    for (int32_t group = w->share.first % a.groups; index * a.groups < w->share.end;
         index++, group = 0) {
        begin_pairs<FORMAT, ROWS>(a, w, index, tiles, rows);
        const bool multiplies = w->share.team < a.teams;
        for (group += w->share.team; multiplies && group < stream_groups(a, w->share, index);
             group += a.teams) {
            w->item.group = group;
            multiply_item<FORMAT, SPANS, SCALED, TEAMED, false>(
                a, w, sums + w->share.team * a.cut.slices * STREAM_SIDES);
        }
    }
}

#endif
