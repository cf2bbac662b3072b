/*
 * The expert MLP over packed rows. No host reads a count: pairs of (row, slot) are counted, sorted by
 * expert and cut into tiles here, by one CTA or a cluster, which finds faults too:
 *
 *   pairs   | e0 e0 e0 | e1 .. | e1 e1 | e4 e4 |     tiles: an expert, its first pair, how many
 *
 * Pairs of one expert stand in no order: nothing depends on which of them meet in a tile.
 *
 *   rows --(source)--> gate, up --> wide [pairs, I] --> down --(target)--> answers
 *
 * Grids are sized by what was reserved. Rows are read where they arrived, and each answer is written
 * where it leaves from.
 */
#include "kernels/cuda/device/block_cuda.cuh"
#include "kernels/cuda/device/told_cuda.cuh"
#include "kernels/cuda/experts/sort_cuda.cuh"
#include "kernels/cuda/experts/tiles_cuda.cuh"
#include "kernels/cuda/linear/gemm_cuda.cuh"
#include "kernels/cuda/operands/rows_held_cuda.cuh"

enum {
    SORT_CTAS = 8, /* of a cluster, where pairs are more than one CTA has threads */
    FLOW_OF = 4,   /* pairs of as many experts, at least, that flow through one kernel */
    FEW_ROWS = 1,  /* of a block whose pairs are not sorted */
    FEW_NVFP4_ROWS = 3,
    FEW_PAIRS = 5, /* of an expert, on average */
    FEW_TOGETHER = 8,
    MANY_PAIRS = 12, /* of an expert, on average */
    MANY_NVFP4_PAIRS = 20,
    MANY_TOGETHER = 128,
};

/* Where answers go that do not lie one behind the other. */
static tsr_cuda_parts parts_of(const tsr_experts_block *b)
{
    return {(float *const *)(const void *)b->parts, b->part_bits};
}

static pair_args pairs_of(const tsr_cuda_device *cuda, const tsr_experts_block *b, int32_t together)
{
    const tsr_experts *e = b->experts;
    pair_args a = {};

    a.rows = (const unsigned char *)b->rows;
    a.row_count = b->row_count;
    a.answer_of = b->answer_of;
    a.local_of = e->local_of;
    a.row_bytes = (int64_t)e->row_bytes;
    a.id_at = (int64_t)e->hidden * (int64_t)sizeof(float);
    a.slots = e->top_k;
    a.experts = e->experts;
    a.local = e->local;
    a.max_rows = tsr_smaller(cuda->base.shape.max_rows, b->most_rows);
    a.max_answers = cuda->base.shape.max_answers;
    a.together = together;
    return a;
}

static tsr_status sort_pairs(tsr_cuda_device *cuda, const tsr_experts_block *b, int32_t together,
                             cudaStream_t stream)
{
    const int32_t ctas = (int64_t)b->most_rows * b->experts->top_k > COUNTERS ? SORT_CTAS : 1;
    const tsr_cuda_launch_shape at = {dim3((unsigned)ctas), COUNTERS,
                                      sort_bytes(b->experts->local, b->experts->experts), stream,
                                      (unsigned)ctas};

    return tsr_cuda_launch(at, sort_kernel, pairs_of(cuda, b, together), cuda->work, cuda->faults);
}

/* Operand rows for one side: made as the product goes, or for each pair before it. */
static tsr_status find_rows(tsr_cuda_device *cuda, const tsr_experts *e, tsr_cuda_side side,
                            const tsr_cuda_source *from, tsr_cuda_tiles *t, cudaStream_t stream)
{
    const tsr_linear_kind *kind = side == TSR_CUDA_DOWN ? &e->down : &e->gate;

    t->made = tsr_cuda_operand_of(cuda);
    t->made_up = tsr_cuda_up_operand_of(cuda);
    if (side == TSR_CUDA_UP)
        kind = &e->up;
    if (tsr_cuda_stages(kind)) {
        t->x = from->x;
        t->source = from->row;
        t->x_stride = from->x_stride;
        return TSR_OK;
    }
    tsr_status st = tsr_cuda_make_pair_rows(cuda, e, side, from, &t->made, stream);
    if (st == TSR_OK && t->mode == TSR_CUDA_TILES_GATED && !t->shares)
        st = tsr_cuda_make_pair_rows(cuda, e, TSR_CUDA_UP, from, &t->made_up, stream);
    return st;
}

/* Whether weights go through rings of warps, and by how many pairs of an expert: 0: they do not. */
static int32_t streams_together(const tsr_cuda_device *cuda, const tsr_experts_block *b)
{
    const tsr_experts *e = b->experts;

    if (e->local == 0 || !tsr_cuda_is_packed(e->gate.format) ||
        !tsr_cuda_is_packed(e->down.format) || e->gate.format != e->up.format ||
        e->gate.activation != e->up.activation || !e->gate_is_up)
        return 0;
    return tsr_cuda_streams_together(&cuda->gemm, tsr_larger(e->hidden, e->intermediate));
}

/* Whether pairs are so few that each CTA finds its own. */
static bool are_few(const tsr_cuda_device *cuda, const tsr_experts_block *b)
{
    const tsr_experts *e = b->experts;
    const int64_t slots = (int64_t)b->most_rows * e->top_k;
    const bool nvfp4 = e->gate.format == TSR_WEIGHT_NVFP4 && e->down.format == TSR_WEIGHT_NVFP4;

    return b->most_rows > 0 && b->most_rows <= (nvfp4 ? FEW_NVFP4_ROWS : FEW_ROWS) &&
           slots <= cuda->base.shape.max_answers && streams_together(cuda, b) > 0 &&
           tsr_cuda_takes_few(&e->gate, e->hidden, false) &&
           tsr_cuda_takes_few(&e->down, e->intermediate, true);
}

static tsr_cuda_tiles tiles_of(const tsr_cuda_device *cuda, const tsr_experts_block *b,
                               const tsr_linear_kind *kind, tsr_cuda_tiles_mode mode,
                               int32_t together)
{
    const tsr_experts *e = b->experts;
    tsr_cuda_tiles t = {};

    t.mlps = e->mlps;
    t.mode = mode;
    t.format = kind->format;
    t.activation = kind->activation;
    t.grouped = tsr_cuda_has_groups(kind->format, kind->activation);
    t.shares = e->gate_is_up;
    t.chosen = b->chosen;
    t.out = mode == TSR_CUDA_TILES_DOWN ? e->hidden : e->intermediate;
    t.in = mode == TSR_CUDA_TILES_DOWN ? e->intermediate : e->hidden;
    t.rows = together;
    t.together = together;
    t.pairs = pairs_of(cuda, b, together);
    if (mode == TSR_CUDA_TILES_DOWN)
        t.pairs.into = parts_of(b);
    t.density = (int32_t)((int64_t)8 * b->most_rows * e->top_k / e->experts);
    return t;
}

static tsr_status multiply(tsr_cuda_device *cuda, const tsr_experts_block *b,
                           const tsr_cuda_tiles *t, cudaStream_t stream)
{
    if (are_few(cuda, b))
        return tsr_cuda_multiply_few(cuda, t, stream);
    return streams_together(cuda, b) > 0 ? tsr_cuda_stream_tiles(cuda, t, stream)
                                         : tsr_cuda_multiply_tiles(cuda, t, stream);
}

/* One side or both, from arrived rows. */
static tsr_status wide_tiles(tsr_cuda_device *cuda, const tsr_experts_block *b,
                             tsr_cuda_tiles_mode mode, int32_t together, cudaStream_t stream,
                             tsr_cuda_tiles *ret_tiles)
{
    const tsr_experts *e = b->experts;
    const tsr_cuda_side side = mode == TSR_CUDA_TILES_UP ? TSR_CUDA_UP : TSR_CUDA_GATE;
    tsr_cuda_tiles t =
        tiles_of(cuda, b, mode == TSR_CUDA_TILES_UP ? &e->up : &e->gate, mode, together);
    tsr_cuda_source from = {};

    from.x = (const float *)b->rows;
    from.row = cuda->work.source;
    from.x_stride = (int64_t)(e->row_bytes / sizeof(float));
    t.y = cuda->work.wide;
    const tsr_status st = find_rows(cuda, e, side, &from, &t, stream);
    *ret_tiles = t;
    return st;
}

static tsr_status widen_side(tsr_cuda_device *cuda, const tsr_experts_block *b,
                             tsr_cuda_tiles_mode mode, int32_t together, cudaStream_t stream)
{
    tsr_cuda_tiles t;
    const tsr_status st = wide_tiles(cuda, b, mode, together, stream, &t);

    return st == TSR_OK ? multiply(cuda, b, &t, stream) : st;
}

/* wide = silu(gate) * up, of each pair. */
static tsr_status widen(tsr_cuda_device *cuda, const tsr_experts_block *b, int32_t together,
                        cudaStream_t stream)
{
    const tsr_experts *e = b->experts;

    if (e->gate.format == e->up.format && e->gate.activation == e->up.activation &&
        tsr_cuda_is_packed(e->gate.format))
        return widen_side(cuda, b, TSR_CUDA_TILES_GATED, together, stream);
    const tsr_status st = widen_side(cuda, b, TSR_CUDA_TILES_GATE, together, stream);
    return st == TSR_OK ? widen_side(cuda, b, TSR_CUDA_TILES_UP, together, stream) : st;
}

static tsr_status down_tiles(tsr_cuda_device *cuda, const tsr_experts_block *b, int32_t together,
                             cudaStream_t stream, tsr_cuda_tiles *ret_tiles)
{
    const tsr_experts *e = b->experts;
    tsr_cuda_tiles t = tiles_of(cuda, b, &e->down, TSR_CUDA_TILES_DOWN, together);
    tsr_cuda_source from = {};

    from.x = cuda->work.wide;
    from.x_stride = e->intermediate;
    t.y = (float *)b->answers;
    const tsr_status st = find_rows(cuda, e, TSR_CUDA_DOWN, &from, &t, stream);
    *ret_tiles = t;
    return st;
}

static tsr_status narrow(tsr_cuda_device *cuda, const tsr_experts_block *b, int32_t together,
                         cudaStream_t stream)
{
    tsr_cuda_tiles t;
    const tsr_status st = down_tiles(cuda, b, together, stream, &t);

    return st == TSR_OK ? multiply(cuda, b, &t, stream) : st;
}

/* Which kernel has all of few rows, if there is one. */
typedef enum at_once { AT_ONCE_NONE, AT_ONCE_ONE, AT_ONCE_FLOW } at_once;

static at_once find_at_once(tsr_cuda_device *cuda, const tsr_experts_block *b,
                            tsr_cuda_tiles *ret_wide, tsr_cuda_tiles *ret_down)
{
    const tsr_experts *e = b->experts;
    const cudaStream_t unused = NULL; /* operand rows are made as the product goes */

    const int64_t slots = (int64_t)b->most_rows * e->top_k;
    const bool flows = FLOW_OF * slots >= e->experts && slots <= e->experts;

    if ((b->most_rows != 1 && !flows) || streams_together(cuda, b) == 0 ||
        !tsr_cuda_stages(&e->gate) || !tsr_cuda_stages(&e->down) ||
        wide_tiles(cuda, b, TSR_CUDA_TILES_GATED, 1, unused, ret_wide) != TSR_OK ||
        down_tiles(cuda, b, 1, unused, ret_down) != TSR_OK)
        return AT_ONCE_NONE;
    if (tsr_cuda_takes_one(cuda, ret_wide, ret_down))
        return AT_ONCE_ONE;
    return flows && tsr_cuda_takes_flow(cuda, ret_wide, ret_down) ? AT_ONCE_FLOW : AT_ONCE_NONE;
}

bool tsr_cuda_takes_told(tsr_cuda_device *cuda, const tsr_experts *experts, const void *rows)
{
    tsr_experts_block b = {};
    tsr_cuda_tiles wide;
    tsr_cuda_tiles down;

    b.rows = rows;
    b.experts = experts;
    b.most_rows = 1;
    return find_at_once(cuda, &b, &wide, &down) == AT_ONCE_ONE;
}

/* False: there is no kernel for it. */
static bool compute_at_once(tsr_cuda_device *cuda, const tsr_experts_block *b, cudaStream_t stream,
                            tsr_status *ret_status)
{
    tsr_cuda_tiles wide;
    tsr_cuda_tiles down;
    const at_once which = find_at_once(cuda, b, &wide, &down);

    if (which == AT_ONCE_NONE)
        return false;
    *ret_status = which == AT_ONCE_ONE ? tsr_cuda_multiply_one(cuda, &wide, &down, stream)
                                       : tsr_cuda_multiply_flow(cuda, &wide, &down, stream);
    return true;
}

/* In one kernel where gate and up can be followed by down at once. */
static tsr_status multiply_all(tsr_cuda_device *cuda, const tsr_experts_block *b, int32_t together,
                               cudaStream_t stream)
{
    const tsr_experts *e = b->experts;
    tsr_cuda_tiles wide;
    tsr_cuda_tiles down;
    tsr_status st;

    if (streams_together(cuda, b) > 0 && !are_few(cuda, b) && tsr_cuda_stages(&e->gate) &&
        tsr_cuda_stages(&e->down)) {
        st = wide_tiles(cuda, b, TSR_CUDA_TILES_GATED, together, stream, &wide);
        if (st == TSR_OK)
            st = down_tiles(cuda, b, together, stream, &down);
        if (st != TSR_OK || tsr_cuda_streams_both(cuda, &wide, &down, e->local))
            return st == TSR_OK ? tsr_cuda_stream_both(cuda, &wide, &down, stream) : st;
    }
    st = widen(cuda, b, together, stream);
    return st == TSR_OK ? narrow(cuda, b, together, stream) : st;
}

/* What many rows have in common with few: nothing but the tiles, which are larger. */
static tsr_gemm_grouped grouped_of(const tsr_cuda_device *cuda, const tsr_experts *e,
                                   const tsr_linear_kind *kind)
{
    tsr_gemm_grouped g = {};

    g.mlps = e->mlps;
    g.tile = cuda->work.tile;
    g.tiles = cuda->work.tiles;
    g.x = tsr_cuda_operand_of(cuda);
    g.kind = *kind;
    g.max_tiles = cuda->work.max_tiles;
    return g;
}

/* Whether the product of gate and up makes the operand rows of down, whose scale it knows. */
static bool gates_make_codes(const tsr_experts *e)
{
    return e->gate_is_up && e->down.activation == TSR_ACTIVATION_FP8 &&
           e->down.format != TSR_WEIGHT_BF16;
}

/* Operand rows of gates or ups, of which many pairs see the same arrived row. */
static tsr_status make_pair_rows(tsr_cuda_device *cuda, const tsr_experts_block *b,
                                 tsr_cuda_side side, const tsr_cuda_source *from,
                                 const tsr_cuda_operand *to, cudaStream_t stream)
{
    const tsr_experts *e = b->experts;

    if (!tsr_held_takes_slots(e, side))
        return tsr_cuda_make_pair_rows(cuda, e, side, from, to, stream);
    const pair_args p = pairs_of(cuda, b, MANY_TOGETHER);
    return tsr_held_slot_rows(cuda, e, side, &p, to, stream);
}

/* Operand rows of arrived rows where all experts see the same ones, else of pairs; where gate and up
 * see different ones, one product after the other. */
static tsr_status widen_many(tsr_cuda_device *cuda, const tsr_experts_block *b, cudaStream_t stream)
{
    const tsr_cuda_side sides[] = {TSR_CUDA_GATE, TSR_CUDA_UP};
    const tsr_experts *e = b->experts;
    tsr_gemm_grouped g = grouped_of(cuda, e, &e->gate);
    tsr_cuda_source from = {};
    tsr_linear first = {};
    tsr_status st;

    g.y = cuda->work.wide;
    if (gates_make_codes(e))
        g.codes = tsr_cuda_up_operand_of(cuda);
    g.in = e->hidden;
    g.out = e->intermediate;
    from.x = (const float *)b->rows;
    from.x_stride = (int64_t)(e->row_bytes / sizeof(float));
    if (e->gates_alike) {
        first.format = e->gate.format;
        first.activation = e->gate.activation;
        first.in = e->hidden;
        first.input_scale = e->gate_input_scale;
        first.pre_quant_scale = e->gate_pre_quant_scale;
        from.count = b->row_count;
        g.source = cuda->work.source;
        st = tsr_cuda_make_rows(cuda, &first, &from, &g.x, b->most_rows, stream);
    } else {
        from.row = cuda->work.source;
        st = make_pair_rows(cuda, b, TSR_CUDA_GATE, &from, &g.x, stream);
    }
    if (st == TSR_OK && e->gate_is_up)
        return tsr_gemm_gated(&cuda->gemm, &g, stream);
    for (int i = 0; st == TSR_OK && i < 2; i++) {
        g.side = sides[i];
        g.gates = sides[i] == TSR_CUDA_UP;
        if (g.gates)
            st = make_pair_rows(cuda, b, sides[i], &from, &g.x, stream);
        if (st == TSR_OK)
            st = tsr_gemm_experts(&cuda->gemm, &g, stream);
    }
    return st;
}

static tsr_status narrow_many(tsr_cuda_device *cuda, const tsr_experts_block *b,
                              cudaStream_t stream)
{
    const tsr_experts *e = b->experts;
    tsr_gemm_grouped g = grouped_of(cuda, e, &e->down);
    tsr_cuda_source from = {};

    g.y = (float *)b->answers;
    g.target = cuda->work.target;
    g.into = parts_of(b);
    g.side = TSR_CUDA_DOWN;
    g.in = e->intermediate;
    g.out = e->hidden;
    from.x = cuda->work.wide;
    from.x_stride = e->intermediate;
    if (gates_make_codes(e)) {
        g.x = tsr_cuda_up_operand_of(cuda);
        return tsr_gemm_experts(&cuda->gemm, &g, stream);
    }
    const tsr_status st = tsr_cuda_make_pair_rows(cuda, e, TSR_CUDA_DOWN, &from, &g.x, stream);
    return st == TSR_OK ? tsr_gemm_experts(&cuda->gemm, &g, stream) : st;
}

/* Whether pairs are so many that wide instructions pay, and the experts are made for them. */
static bool are_many(const tsr_experts_block *b)
{
    const tsr_experts *e = b->experts;

    const int32_t many = e->gate.format == TSR_WEIGHT_NVFP4 ? MANY_NVFP4_PAIRS : MANY_PAIRS;

    return (int64_t)b->most_rows * e->top_k > (int64_t)many * e->experts &&
           tsr_cuda_is_packed(e->gate.format) && tsr_cuda_is_packed(e->down.format) &&
           e->gate.format == e->up.format && e->gate.activation == e->up.activation;
}

tsr_status tsr_experts_cuda(tsr_device *device, const tsr_experts_block *b, tsr_stream s)
{
    tsr_cuda_device *cuda = tsr_cuda(device);
    const tsr_experts *e = b->experts;
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    const int32_t streamed = streams_together(cuda, b);
    const int32_t most =
        e->local == 0 ? 1
        : streamed > 0
            ? streamed
            : tsr_cuda_pairs_together(tsr_larger(e->hidden, e->intermediate), e->gate_is_up);
    /* Few pairs an expert: eight at a time leave room for more CTAs. */
    const bool few = (int64_t)b->most_rows * e->top_k <= (int64_t)FEW_PAIRS * e->experts;
    const int32_t together =
        tsr_smaller(tsr_larger(b->most_rows, 1), few ? tsr_smaller(most, FEW_TOGETHER) : most);
    const bool many = e->local > 0 && are_many(b);
    tsr_status st = TSR_OK;

    cuda->sends = false;
    if (compute_at_once(cuda, b, stream, &st))
        return st;
    if (many || !are_few(cuda, b))
        st = sort_pairs(cuda, b, many ? MANY_TOGETHER : together, stream);

    if (e->local == 0 || cuda->work.max_tiles == 0)
        return st;
    if (st == TSR_OK)
        st = many ? widen_many(cuda, b, stream) : multiply_all(cuda, b, together, stream);
    return st == TSR_OK && many ? narrow_many(cuda, b, stream) : st;
}
