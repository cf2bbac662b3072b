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
#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/gemm_cuda.cuh"
#include "kernels/cuda/pairs_cuda.cuh"
#include "kernels/cuda/rows_held_cuda.cuh"
#include "kernels/cuda/tiles_cuda.cuh"

#include <cooperative_groups.h>

enum {
    COUNTERS = 1024,
    EXPERTS_A_THREAD = TSR_MAX_EXPERTS / COUNTERS,
    SORT_CTAS = 8, /* of a cluster, where pairs are more than one CTA has threads */
    FEW_ROWS = 1,  /* of a block whose pairs are not sorted */
    FEW_NVFP4_ROWS = 3,
    FEW_PAIRS = 5, /* of an expert, on average */
    FEW_TOGETHER = 8,
    MANY_PAIRS = 12, /* of an expert, on average */
    MANY_NVFP4_PAIRS = 20,
    MANY_TOGETHER = 128,
};

/* Rows that were never reserved. */
static __device__ bool too_many_rows(const pair_args &a, int32_t rows, tsr_cuda_faults faults)
{
    const tsr_fault fault = {TSR_FAULT_ROWS, 0, 0, rows, a.max_rows};

    if (rows >= 0 && rows <= a.max_rows)
        return false;
    if (threadIdx.x == 0)
        tsr_leave_fault(faults, fault);
    return true;
}

/* Pairs and tiles, and those of the tiles that are full, counted together. */
typedef struct pair_counts {
    int32_t pairs;
    int32_t tiles;
    int32_t full;
} pair_counts;

static __device__ __forceinline__ pair_counts warp_sum_before(pair_counts mine, pair_counts *all)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    pair_counts sum = mine;

    for (int apart = 1; apart < TSR_CUDA_LANES; apart *= 2) {
        const int32_t pairs = __shfl_up_sync(TSR_ALL_LANES, sum.pairs, apart);
        const int32_t tiles = __shfl_up_sync(TSR_ALL_LANES, sum.tiles, apart);
        const int32_t full = __shfl_up_sync(TSR_ALL_LANES, sum.full, apart);
        if (lane >= apart) {
            sum.pairs += pairs;
            sum.tiles += tiles;
            sum.full += full;
        }
    }
    all->pairs = __shfl_sync(TSR_ALL_LANES, sum.pairs, TSR_CUDA_LANES - 1);
    all->tiles = __shfl_sync(TSR_ALL_LANES, sum.tiles, TSR_CUDA_LANES - 1);
    all->full = __shfl_sync(TSR_ALL_LANES, sum.full, TSR_CUDA_LANES - 1);
    sum.pairs -= mine.pairs;
    sum.tiles -= mine.tiles;
    sum.full -= mine.full;
    return sum;
}

/* Sums over the threads in front of each, and over all. */
static __device__ pair_counts sum_before(pair_counts mine, pair_counts *all)
{
    __shared__ pair_counts part[COUNTERS / TSR_CUDA_LANES];
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    pair_counts of_warp;
    pair_counts before = warp_sum_before(mine, &of_warp);

    __syncthreads(); /* the last call's readers are done */
    if (lane == 0)
        part[warp] = of_warp;
    __syncthreads();
    const pair_counts warps = warp_sum_before(part[lane], all);
    before.pairs += __shfl_sync(TSR_ALL_LANES, warps.pairs, warp);
    before.tiles += __shfl_sync(TSR_ALL_LANES, warps.tiles, warp);
    before.full += __shfl_sync(TSR_ALL_LANES, warps.full, warp);
    return before;
}

/* From counts to the first pair of each expert, and the tiles, by the CTA that writes them: full ones
 * in front, so that those who take every so many have as much to do. */
static __device__ void cut_tiles(const pair_args &a, const tsr_cuda_work &w, int32_t *count,
                                 bool writes)
{
    pair_counts so_far = {0, 0, 0};

    for (int32_t first = 0; first < a.local; first += COUNTERS) {
        const int32_t e = first + (int32_t)threadIdx.x;
        const int32_t pairs = e < a.local ? count[e] : 0;
        const pair_counts mine = {pairs, (pairs + a.together - 1) / a.together, pairs / a.together};
        pair_counts all;
        const pair_counts before = sum_before(mine, &all);
        tsr_cuda_tile *full = w.tile + so_far.tiles + before.full;
        tsr_cuda_tile *rest = w.tile + so_far.tiles + all.full + before.tiles - before.full;
        for (int32_t i = 0; writes && i < pairs; i += a.together) {
            tsr_cuda_tile *tile = pairs - i >= a.together ? full++ : rest;
            tile->expert = e;
            tile->first = so_far.pairs + before.pairs + i;
            tile->count = min(pairs - i, a.together);
        }
        if (e < a.local)
            count[e] = so_far.pairs + before.pairs;
        so_far.pairs += all.pairs;
        so_far.tiles += all.tiles;
    }
    if (writes && threadIdx.x == 0)
        *w.tiles = so_far.tiles;
}

/* A slot that wants an answer. */
typedef struct wanted_slot {
    int32_t answer; /* -1: none is wanted */
    int32_t local;  /* -1: the expert is not here */
} wanted_slot;

/* Of a slot that there may be. */
static __device__ __forceinline__ wanted_slot slot_at(const pair_args &a, const int32_t *local_of,
                                                      int32_t i)
{
    const int32_t id = id_of(a, i);
    wanted_slot s = {a.answer_of[i], -1};

    if (s.answer >= 0 && id >= 0 && id < a.experts)
        s.local = local_of[id];
    return s;
}

static __device__ __forceinline__ void place(const pair_args &a, const tsr_cuda_work &w,
                                             int32_t *next, int32_t i, wanted_slot s)
{
    const int32_t at = s.answer < 0 ? -1 : atomicAdd(&next[s.local], 1);

    w.pair_of[i] = at;
    if (at < 0)
        return;
    w.source[at] = i / a.slots;
    w.target[at] = s.answer;
}

/*
 * Shared memory of a CTA that sorts:
 *
 *   count [local] | pairs | wrong | next [local] | local_of [E]
 */
typedef struct sort_room {
    int32_t *count; /* pairs of each expert that this CTA has found */
    int32_t *pairs; /* all that it has found */
    int32_t *wrong; /* whether an expert of theirs is not here */
    int32_t *next;  /* where the next pair of an expert goes */
    int32_t *local_of;
} sort_room;

static __host__ __device__ __forceinline__ size_t sort_bytes(int32_t local, int32_t experts)
{
    return ((size_t)local * 2 + 2 + (size_t)experts) * sizeof(int32_t);
}

static __device__ __forceinline__ sort_room sort_room_of(int32_t *memory, int32_t local)
{
    const sort_room r = {memory, memory + local, memory + local + 1, memory + local + 2,
                         memory + 2 * local + 2};
    return r;
}

/* Over all CTAs of the cluster, and over those in front of each thread's experts' pairs. Returns
 * whether what was found can be served. */
static __device__ bool add_up(const pair_args &a, int32_t *memory,
                              int32_t ret_before[EXPERTS_A_THREAD])
{
    const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    const sort_room r = sort_room_of(memory, a.local);
    int32_t all[EXPERTS_A_THREAD] = {};
    int32_t pairs = 0;
    int32_t wrong = 0;

    for (int i = 0; i < EXPERTS_A_THREAD; i++)
        ret_before[i] = 0;
    for (unsigned c = 0; c < cluster.num_blocks(); c++) {
        const sort_room of = sort_room_of(cluster.map_shared_rank(memory, c), a.local);
        pairs += *of.pairs;
        wrong |= *of.wrong;
#pragma unroll
        for (int i = 0; i < EXPERTS_A_THREAD; i++) {
            const int32_t e = i * COUNTERS + (int32_t)threadIdx.x;
            const int32_t count = e < a.local ? of.count[e] : 0;
            all[i] += count;
            ret_before[i] += c < cluster.block_rank() ? count : 0;
        }
    }
#pragma unroll
    for (int i = 0; i < EXPERTS_A_THREAD; i++) {
        const int32_t e = i * COUNTERS + (int32_t)threadIdx.x;
        if (e < a.local)
            r.next[e] = all[i];
    }
    return wrong == 0 && pairs <= a.max_answers;
}

/* CTAs of one cluster, each every so many slots. A thread has most often no more than its first. */
static __global__ void __launch_bounds__(COUNTERS)
    sort_kernel(pair_args a, tsr_cuda_work w, tsr_cuda_faults faults)
{
    extern __shared__ int32_t memory[];
    const sort_room r = sort_room_of(memory, a.local);
    const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    const int32_t mine = (int32_t)(blockIdx.x * COUNTERS + threadIdx.x);
    const int32_t apart = (int32_t)(gridDim.x * COUNTERS);
    wanted_slot first = {-1, -1};
    int32_t before[EXPERTS_A_THREAD];

    for (int32_t e = (int32_t)threadIdx.x; e < a.local; e += COUNTERS)
        r.count[e] = 0;
    if (threadIdx.x == 0)
        *r.pairs = *r.wrong = 0;
    for (int32_t e = (int32_t)threadIdx.x; e < a.experts; e += COUNTERS)
        r.local_of[e] = a.local_of[e];
    __syncthreads();
    tsr_admit_kernel();
    tsr_await_kernel();
    const bool is_faulty = tsr_is_faulty(faults);
    const int32_t rows = *a.row_count;
    const int32_t slots = rows * a.slots;
    if (mine < a.max_rows * a.slots) /* on its way before it is known whether it is one */
        first = slot_at(a, r.local_of, mine);
    if (is_faulty || too_many_rows(a, rows, faults))
        return;
    if (mine >= slots)
        first.answer = -1;
    for (int32_t i = mine; i < slots; i += apart) {
        const wanted_slot s = i == mine ? first : slot_at(a, r.local_of, i);
        if (s.answer < 0)
            continue;
        atomicAdd(r.pairs, 1);
        if (s.local >= 0)
            atomicAdd(&r.count[s.local], 1);
        else
            *r.wrong = 1;
    }
    cluster.sync();
    const bool fits = add_up(a, memory, before);
    cluster.sync(); /* nobody's counts are read any more */
    if (!fits) {
        if (mine == 0)
            tsr_leave_fault(faults, first_fault(a, slots));
        return;
    }
    cut_tiles(a, w, r.next, blockIdx.x == 0);
#pragma unroll
    for (int i = 0; i < EXPERTS_A_THREAD; i++) {
        const int32_t e = i * COUNTERS + (int32_t)threadIdx.x;
        if (e < a.local)
            r.next[e] += before[i];
    }
    __syncthreads();
    if (mine < slots)
        place(a, w, r.next, mine, first);
    for (int32_t i = mine + apart; i < slots; i += apart)
        place(a, w, r.next, i, slot_at(a, r.local_of, i));
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
    t.out = mode == TSR_CUDA_TILES_DOWN ? e->hidden : e->intermediate;
    t.in = mode == TSR_CUDA_TILES_DOWN ? e->intermediate : e->hidden;
    t.rows = together;
    t.together = together;
    t.pairs = pairs_of(cuda, b, together);
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

static tsr_status widen_side(tsr_cuda_device *cuda, const tsr_experts_block *b,
                             tsr_cuda_tiles_mode mode, int32_t together, cudaStream_t stream)
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

static tsr_status narrow(tsr_cuda_device *cuda, const tsr_experts_block *b, int32_t together,
                         cudaStream_t stream)
{
    const tsr_experts *e = b->experts;
    tsr_cuda_tiles t = tiles_of(cuda, b, &e->down, TSR_CUDA_TILES_DOWN, together);
    tsr_cuda_source from = {};

    from.x = cuda->work.wide;
    from.x_stride = e->intermediate;
    t.y = (float *)b->answers;
    const tsr_status st = find_rows(cuda, e, TSR_CUDA_DOWN, &from, &t, stream);
    return st == TSR_OK ? multiply(cuda, b, &t, stream) : st;
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

    if (many || !are_few(cuda, b))
        st = sort_pairs(cuda, b, many ? MANY_TOGETHER : together, stream);

    if (e->local == 0 || cuda->work.max_tiles == 0)
        return st;
    if (st == TSR_OK)
        st = many ? widen_many(cuda, b, stream) : widen(cuda, b, together, stream);
    if (st == TSR_OK)
        st = many ? narrow_many(cuda, b, stream) : narrow(cuda, b, together, stream);
    return st;
}
