/*
 * Products of experts over tiles of up to 16 pairs, whose weights stream past (stream_cuda.cuh). A
 * warp goes through all slices of its rows, or through one where there is little to do; then the
 * warps of a team, one for each slice, have the same rows and add up in shared memory.
 *
 *   items    | pairs 0: rows | rows | .. | pairs 1: rows | rows | .. |
 *               '---- CTA 0 ----'   '---- CTA 1 ----'                     of a CTA: to its teams in turn
 *
 * Where there are about as many tiles of pairs as processors, each CTA has one, and goes on from gate and
 * up to down: no CTA waits for another, and its ring never runs empty.
 */
#include "kernels/cuda/experts/tiles_item_cuda.cuh"

/* Whether each CTA has a tile of pairs of its own, and few have none. */
static __device__ __forceinline__ bool is_owned(int32_t tiles)
{
    const int32_t ctas = (int32_t)gridDim.x;

    return tiles <= ctas && OWNED_OF * tiles >= (OWNED_OF - 1) * ctas;
}

template <tsr_weight_format FORMAT, known_rows ROWS, int SPANS, bool SCALED, bool TEAMED>
static __global__ void __launch_bounds__(STREAM_WARPS *TSR_CUDA_LANES, 1)
    stream_kernel(const __grid_constant__ stream_args a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(128) unsigned char rows[];
    __shared__ stream_memory m;
    stream_warp w = warp_of<FORMAT>(a, rows, &m);

    /* Whoever comes after gate and up begins when all before them has been seen: down finds its
     * weights, and orders them, while they are still at work. */
    if (!stream_is_down(a))
        tsr_await_kernel();
    tsr_admit_kernel();
    const bool is_faulty = tsr_is_faulty(faults);
    const int32_t tiles = *a.tiles;
    if (a.skips && is_owned(tiles)) {
        tsr_await_kernel();
        return;
    }
    look_at_tiles(a, &m);
    if (!is_faulty)
        multiply_share<FORMAT, ROWS, SPANS, SCALED, TEAMED>(a, &w, tiles, rows);
}

/* Gate and up, or down, with a tile of pairs. */
template <tsr_weight_format FORMAT, known_rows ROWS, int SPANS, bool SCALED>
static __device__ __forceinline__ void multiply_own(const stream_args &a, stream_warp *w,
                                                    int32_t index, const tsr_cuda_tile &pairs,
                                                    const tsr_linear *linear, unsigned char *rows)
{
    stage_pairs<FORMAT, ROWS, true>(a, w, index, pairs, *linear, rows);
    __syncthreads();
    w->linear = linear;
    w->o = operand_of(a, pairs, rows);
    w->operand = product_rows_at(w->o);
    w->share.slices = a.cut.slices;
    for (int32_t group = w->share.team; group < a.groups; group += a.teams) {
        w->item.group = group;
        multiply_item<FORMAT, SPANS, SCALED, false, true>(a, w, NULL);
    }
    __syncthreads(); /* all values are there, and nobody looks at the rows any more */
}

/* Gate, up and down at once, where a CTA has a tile of pairs of its own: weights of down are on their way
 * while gate and up end. Else gate and up alone. */
template <tsr_weight_format FORMAT, known_rows ROWS, int SPANS, bool SCALED>
static __global__ void __launch_bounds__(STREAM_WARPS *TSR_CUDA_LANES, 1)
    own_kernel(const __grid_constant__ stream_args a, const __grid_constant__ stream_args down,
               tsr_cuda_faults faults)
{
    extern __shared__ __align__(128) unsigned char rows[];
    __shared__ stream_memory m;
    const int32_t index = (int32_t)blockIdx.x;
    stream_warp w = warp_of<FORMAT>(a, rows, &m);

    tsr_await_kernel();
    tsr_admit_kernel();
    const bool is_faulty = tsr_is_faulty(faults);
    const int32_t tiles = *a.tiles;
    const tsr_cuda_tile pairs = a.tile[min(index, a.t.pairs.max_answers - 1)];
    look_at_tiles(a, &m);
    if (is_faulty)
        return;
    if (!is_owned(tiles)) {
        multiply_share<FORMAT, ROWS, SPANS, SCALED, false>(a, &w, tiles, rows);
        return;
    }
    if (index >= tiles)
        return;
    fetch_linears(a, index, 1, tiles, &m);
    fetch_sources(a, index, 1, tiles, &m);
    __syncthreads();
    w.share.team = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    w.cursor.item = {index, w.share.team - a.teams};
    multiply_own<FORMAT, ROWS, SPANS, SCALED>(a, &w, index, pairs, m.linear[index % 2], rows);
    multiply_own<FORMAT, ROWS, SPANS, SCALED>(down, &w, index, pairs,
                                              &m.linear[index % 2][STREAM_DOWN], rows);
}

typedef void (*stream_kernel_of)(const stream_args a, tsr_cuda_faults faults);

template <tsr_weight_format FORMAT, known_rows ROWS, bool SCALED>
static stream_kernel_of kernel_for(int32_t spans, bool teamed)
{
    if (teamed)
        return stream_kernel<FORMAT, ROWS, 1, SCALED, true>;
    return spans == 1 ? stream_kernel<FORMAT, ROWS, 1, SCALED, false>
                      : stream_kernel<FORMAT, ROWS, 2, SCALED, false>;
}

/* Rows that are plain, or whatever they are. */
template <tsr_weight_format FORMAT>
static stream_kernel_of kernel_for_rows(known_rows rows, int32_t spans, bool teamed)
{
    return rows == PLAIN_ROWS ? kernel_for<FORMAT, PLAIN_ROWS, false>(spans, teamed)
                              : kernel_for<FORMAT, ANY_ROWS, false>(spans, teamed);
}

static stream_kernel_of find_kernel(tsr_weight_format format, known_rows rows, bool scaled,
                                    int32_t spans, bool teamed)
{
    if (format == TSR_WEIGHT_BF16)
        return kernel_for_rows<TSR_WEIGHT_BF16>(rows, spans, teamed);
    if (format == TSR_WEIGHT_F16)
        return kernel_for_rows<TSR_WEIGHT_F16>(rows, spans, teamed);
    if (format == TSR_WEIGHT_NVFP4)
        return kernel_for_rows<TSR_WEIGHT_NVFP4>(rows, spans, teamed);
    if (scaled)
        return kernel_for<TSR_WEIGHT_FP8, ANY_ROWS, true>(spans, teamed);
    return rows == FP8_ROWS ? kernel_for<TSR_WEIGHT_FP8, FP8_ROWS, false>(spans, teamed)
                            : kernel_for_rows<TSR_WEIGHT_FP8>(rows, spans, teamed);
}

typedef void (*own_kernel_of)(const stream_args a, const stream_args down, tsr_cuda_faults faults);

template <tsr_weight_format FORMAT, known_rows ROWS> static own_kernel_of own_for(int32_t spans)
{
    return spans == 1 ? own_kernel<FORMAT, ROWS, 1, false> : own_kernel<FORMAT, ROWS, 2, false>;
}

/* NULL: such a product has none. */
static own_kernel_of find_own(tsr_weight_format format, known_rows rows, bool scaled, int32_t spans)
{
    if (scaled)
        return NULL;
    if (format == TSR_WEIGHT_NVFP4)
        return rows == PLAIN_ROWS ? own_for<TSR_WEIGHT_NVFP4, PLAIN_ROWS>(spans)
                                  : own_for<TSR_WEIGHT_NVFP4, ANY_ROWS>(spans);
    if (format == TSR_WEIGHT_FP8)
        return rows == PLAIN_ROWS ? own_for<TSR_WEIGHT_FP8, PLAIN_ROWS>(spans)
               : rows == FP8_ROWS ? own_for<TSR_WEIGHT_FP8, FP8_ROWS>(spans)
                                  : own_for<TSR_WEIGHT_FP8, ANY_ROWS>(spans);
    return NULL;
}

static tsr_status allow(const void *kernel, int32_t bytes)
{
    return TSR_CUDA(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
}

static tsr_status allow_shared(int32_t bytes, tsr_weight_format format, known_rows rows,
                               bool scaled)
{
    tsr_status st = allow((const void *)find_kernel(format, rows, scaled, 1, true), bytes);

    for (int32_t spans = 1; spans <= 2 && st == TSR_OK; spans++) {
        const own_kernel_of own = find_own(format, rows, scaled, spans);
        st = allow((const void *)find_kernel(format, rows, scaled, spans, false), bytes);
        if (own != NULL && st == TSR_OK)
            st = allow((const void *)own, bytes);
    }
    return st;
}

/* Bytes that a CTA can have beside what every CTA has, when so many share a multiprocessor. */
static int64_t room_of(const tsr_gemm_card *card, int32_t ctas)
{
    const int64_t system = 1024; /* bytes of each CTA */
    const int64_t shared = (int64_t)card->shared_all / ctas - system;
    const int64_t most = shared < (int64_t)card->shared ? shared : (int64_t)card->shared;

    return most - (int64_t)tsr_aligned(sizeof(stream_memory), 1024);
}

tsr_status tsr_cuda_prepare_streams(const tsr_gemm_card *card)
{
    static const tsr_weight_format formats[] = {TSR_WEIGHT_BF16, TSR_WEIGHT_F16, TSR_WEIGHT_NVFP4,
                                                TSR_WEIGHT_FP8};
    const int32_t bytes = (int32_t)room_of(card, 1);
    tsr_status st = allow_shared(bytes, TSR_WEIGHT_FP8, ANY_ROWS, true);

    for (int format = 0; format < 4; format++) {
        for (int rows = ANY_ROWS; rows <= FP8_ROWS && st == TSR_OK; rows++)
            st = allow_shared(bytes, formats[format], (known_rows)rows, false);
    }
    return st;
}

/* How a launch is cut. */
typedef struct stream_cut {
    int32_t warps; /* of a CTA */
    int32_t ctas;  /* of a multiprocessor; 0: there is no room */
    size_t shared;
} stream_cut;

static int32_t row_bytes(int32_t in)
{
    return (tsr_cuda_padded(in) + PRODUCT_PAD) * (int32_t)sizeof(uint16_t);
}

static int64_t shared_of(int32_t rows_bytes, int32_t warps, int32_t ring_bytes, bool teamed)
{
    const int64_t sums = teamed ? STREAM_SIDES * (int64_t)sizeof(stream_sums) : 0;

    return rows_bytes + warps * (sums + ring_bytes);
}

/* Two CTAs a multiprocessor where they are wanted and their operand rows fit, else a larger one. */
static stream_cut cut_of(const tsr_gemm_card *card, int32_t rows_bytes, int32_t ring_bytes,
                         bool teamed, bool two)
{
    const int64_t few = shared_of(rows_bytes, FEW_WARPS, ring_bytes, teamed);
    const int64_t more = shared_of(rows_bytes, STREAM_WARPS, ring_bytes, teamed);
    stream_cut c = {FEW_WARPS, 2, (size_t)few};

    if (two && few <= room_of(card, 2))
        return c;
    c.warps = STREAM_WARPS;
    c.ctas = more <= room_of(card, 1) ? 1 : 0;
    c.shared = (size_t)more;
    return c;
}

int32_t tsr_cuda_streams_together(const tsr_gemm_card *card, int32_t in)
{
    const int32_t most = stream_depth(TSR_WEIGHT_NVFP4) * stream_place(TSR_WEIGHT_NVFP4);
    int32_t together = PRODUCT_TOKENS;

    while (together > 0 &&
           cut_of(card, together * row_bytes(in), most, together <= PRODUCT_COLUMNS, false).ctas ==
               0)
        together /= 2;
    return together;
}

static stream_args args_of(const tsr_cuda_device *cuda, const tsr_cuda_tiles *t)
{
    const int32_t tiles = (int32_t)tsr_cuda_ceil(t->out, TSR_CUDA_TILE);
    stream_args a = {};

    a.t = *t;
    a.tile = cuda->work.tile;
    a.tiles = cuda->work.tiles;
    a.near = tsr_smaller(STREAM_TILES, t->pairs.max_answers);
    a.target = cuda->work.target;
    a.cut = product_cut_of(t->format, t->in);
    a.groups = t->mode == TSR_CUDA_TILES_DOWN ? (tiles + 1) / 2 : tiles;
    a.blocks = a.cut.padded / STREAM_BLOCK;
    a.slice_blocks = tsr_smaller(a.cut.columns / STREAM_BLOCK, a.blocks);
    a.rows_bytes = tsr_smaller(t->rows, t->together) * row_bytes(t->in);
    return a;
}

/* A launch, without what depends on others. */
typedef struct stream_plan {
    stream_args a;
    known_rows rows;
    stream_cut cut;
    int32_t spans;
    bool scaled;
    bool teamed;
} stream_plan;

static stream_plan plan_of(const tsr_cuda_device *cuda, const tsr_cuda_tiles *t)
{
    stream_plan p = {args_of(cuda, t),
                     known_rows_of(t->activation),
                     {},
                     2,
                     product_is_scaled(t->format, t->activation),
                     false};
    const int32_t ring_bytes = STREAM_RING / stream_codes(t->format) *
                               (stream_codes(t->format) + stream_scales(t->format));

    if (tsr_smaller(t->rows, t->together) <= PRODUCT_COLUMNS)
        p.spans = 1;
    p.teamed = p.spans == 1 && p.a.cut.slices > 1 && p.a.cut.slices <= FEW_WARPS &&
               t->density <= TEAM_DENSITY;
    p.cut = cut_of(&cuda->gemm, p.a.rows_bytes, ring_bytes, p.teamed, t->density <= PAIR_DENSITY);
    p.a.teams = p.teamed ? p.cut.warps / p.a.cut.slices : p.cut.warps;
    p.a.rounds = (p.a.groups + p.a.teams - 1) / p.a.teams;
    return p;
}

static tsr_cuda_launch_shape shape_of(const tsr_cuda_device *cuda, const stream_plan *p,
                                      cudaStream_t stream)
{
    tsr_cuda_launch_shape at = {};

    at.threads =
        (unsigned)((p->teamed ? p->a.teams * p->a.cut.slices : p->cut.warps) * TSR_CUDA_LANES);
    at.shared = p->cut.shared;
    at.stream = stream;
    at.grid.x = (unsigned)(p->cut.ctas * cuda->gemm.processors);
    return at;
}

/* How long a launch takes that has so many warps a CTA, in items one behind the other of all of them. */
static int32_t turns_of(const stream_plan *p, int32_t tiles, int32_t ctas, int32_t teams)
{
    const int32_t rounds = (p->a.groups + teams - 1) / teams * tiles;

    return (rounds + ctas - 1) / ctas * teams;
}

/* Fewer warps of a CTA multiply, where tiles of pairs are so few that CTAs would have nothing to do: that
 * takes a tenth less at least, or it is left as it is. */
static void spread(const tsr_cuda_device *cuda, stream_plan *p)
{
    const tsr_cuda_tiles *t = &p->a.t;
    const int32_t ctas = p->cut.ctas * cuda->gemm.processors;
    const int32_t pairs = tsr_larger(t->density / 8, 1); /* of an expert */
    const int32_t tiles = t->pairs.local * ((pairs + t->together - 1) / t->together);
    const int32_t usual = p->a.teams;

    for (int32_t teams = usual - 1; !p->teamed && teams >= FEW_WARPS; teams--) {
        if (10 * turns_of(p, tiles, ctas, teams) <= 9 * turns_of(p, tiles, ctas, usual) &&
            turns_of(p, tiles, ctas, teams) < turns_of(p, tiles, ctas, p->a.teams))
            p->a.teams = teams;
    }
    p->a.rounds = (p->a.groups + p->a.teams - 1) / p->a.teams;
}

tsr_status tsr_cuda_stream_tiles(tsr_cuda_device *cuda, const tsr_cuda_tiles *t,
                                 cudaStream_t stream)
{
    stream_plan p = plan_of(cuda, t);
    const stream_kernel_of kernel = find_kernel(t->format, p.rows, p.scaled, p.spans, p.teamed);

    spread(cuda, &p);
    return tsr_cuda_launch(shape_of(cuda, &p, stream), kernel, p.a, cuda->faults);
}

static known_rows rows_of_both(const stream_plan *first, const stream_plan *then)
{
    return first->rows == then->rows ? first->rows : ANY_ROWS;
}

bool tsr_cuda_streams_both(const tsr_cuda_device *cuda, const tsr_cuda_tiles *wide,
                           const tsr_cuda_tiles *down, int32_t experts)
{
    const stream_plan first = plan_of(cuda, wide);
    const stream_plan then = plan_of(cuda, down);

    return wide->format == down->format && wide->x != NULL && down->x != NULL && !first.teamed &&
           !then.teamed && first.cut.ctas == 1 && then.cut.ctas == 1 &&
           first.scaled == then.scaled &&
           find_own(wide->format, rows_of_both(&first, &then), first.scaled, first.spans) != NULL &&
           first.a.rows_bytes >= then.a.rows_bytes && experts <= cuda->gemm.processors &&
           OWNED_OF * experts >= (OWNED_OF - 1) * cuda->gemm.processors;
}

tsr_status tsr_cuda_stream_both(tsr_cuda_device *cuda, const tsr_cuda_tiles *wide,
                                const tsr_cuda_tiles *down, cudaStream_t stream)
{
    stream_plan first = plan_of(cuda, wide);
    stream_plan then = plan_of(cuda, down);

    then.a.skips = true;
    first.a.down_groups = then.a.down_groups = then.a.groups;
    first.a.down_blocks = then.a.down_blocks = then.a.blocks;
    first.a.down_tiles = then.a.down_tiles = (int32_t)tsr_cuda_ceil(down->out, TSR_CUDA_TILE);
    const tsr_status st = tsr_cuda_launch(
        shape_of(cuda, &first, stream),
        find_own(wide->format, rows_of_both(&first, &then), first.scaled, first.spans), first.a,
        then.a, cuda->faults);
    return st == TSR_OK ? tsr_cuda_launch(
                              shape_of(cuda, &then, stream),
                              find_kernel(down->format, then.rows, then.scaled, then.spans, false),
                              then.a, cuda->faults)
                        : st;
}
