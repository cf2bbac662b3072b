/*
 * Few rows with a linear of many outputs. A processor has one CTA, all operand rows in its shared memory,
 * and beside them a ring for each of its warps; a warp multiplies whole tiles of 16 rows of the weight,
 * one behind the other, and goes from the end of one to the beginning of the next without a pause:
 *
 *   tile 0  | chunk | chunk | .. | -> sums -> y     tile 1 | chunk | ..
 *                       '-> the place in the ring goes to a chunk further on
 *
 * The first of them are on their way before the kernel in front has ended, and while operand rows are made,
 * as rows_cuda.cu does, bit by bit. Sums are those of product_cuda.cuh: a chain a slice, slices in order.
 *
 *   memory  | barriers | ring of each warp | operand rows |
 */
#include "kernels/cuda/linear/tall_cuda.cuh"

#include "kernels/cuda/linear/few_tile_cuda.cuh"
#include "kernels/cuda/linear/gemm_cuda.cuh"
#include "kernels/cuda/operands/rows_parts_cuda.cuh"
#include "kernels/cuda/operands/stage_cuda.cuh"

enum {
    TALL_THREADS = TSR_CUDA_THREADS, /* which add up squares as those of rows_cuda.cu do */
    TALL_WARPS = TALL_THREADS / TSR_CUDA_LANES,
    TALL_ROWS = PRODUCT_COLUMNS, /* most operand rows */
    TALL_RINGS = 192 * 1024,     /* most bytes of a CTA's rings */
    TALL_CHUNK = 4096,           /* bytes of codes that are ordered together */
    TALL_BARRIERS = 1024,        /* bytes: one for each place */
    TALL_DEPTH = TALL_BARRIERS / 8 / TALL_WARPS,
};

/* Where operand rows come from. */
typedef enum tall_source {
    TALL_STAGED, /* they stand in the workspace */
    TALL_ONE,    /* a single one is made here, of a row of x */
    TALL_MADE,   /* more are */
    TALL_SOURCES
} tall_source;

/* Pieces of 128 columns that are ordered together. Of NVFP4, whose scales stand behind each, one. */
static __host__ __device__ __forceinline__ constexpr int32_t tall_groups(tsr_weight_format format)
{
    return format == TSR_WEIGHT_NVFP4 ? 1 : TALL_CHUNK / few_codes(format);
}

/* Bytes of a place of a ring. */
static __host__ __device__ __forceinline__ constexpr int32_t tall_bytes(tsr_weight_format format)
{
    return tall_groups(format) * few_place(format);
}

/* What a warp orders, by one lane, and multiplies. */
typedef struct tall_warp {
    uint32_t barrier; /* of the ring's first place */
    uint32_t ring;
    int32_t place; /* that is ordered next */
    int32_t tile;  /* that is ordered next */
    int32_t left;  /* units of it */
    const unsigned char *codes;
    const unsigned char *scales;
} tall_warp;

static __device__ __forceinline__ int32_t tall_tiles(const few_args &a)
{
    return a.end[0];
}

/* From a tile of a warp to its next. */
static __device__ __forceinline__ int32_t tall_step(void)
{
    return (int32_t)gridDim.x * TALL_WARPS;
}

static __device__ __forceinline__ int32_t tall_first(void)
{
    return (int32_t)(threadIdx.x / TSR_CUDA_LANES * gridDim.x + blockIdx.x);
}

static __device__ __forceinline__ void tall_aim(const few_args &a, int32_t tile, tall_warp *w)
{
    const tsr_linear &l = a.p.linear[0];
    const int64_t unit = (int64_t)tile * a.cut.tile_units;

    w->tile = tile;
    w->left = tile < tall_tiles(a) ? a.cut.tile_units : 0;
    w->codes = (const unsigned char *)l.weight + unit * PACKED_UNIT;
    w->scales = (const unsigned char *)l.scales + unit * PACKED_SCALES;
}

/* The next chunk into its place, if there is one. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void tall_order(const few_args &a, tall_warp *w)
{
    const bool scales = FORMAT == TSR_WEIGHT_NVFP4;
    const int32_t units = min(tall_groups(FORMAT) * few_units(FORMAT), w->left);
    const uint32_t barrier = w->barrier + (uint32_t)w->place * 8;
    const uint32_t to = w->ring + (uint32_t)(w->place * tall_bytes(FORMAT));

    if (units == 0)
        return;
    barrier_expect(barrier, (uint32_t)(units * (PACKED_UNIT + (scales ? PACKED_SCALES : 0))));
    copy_bulk_once(to, w->codes, (uint32_t)(units * PACKED_UNIT), barrier);
    if (scales)
        copy_bulk_once(to + (uint32_t)few_codes(FORMAT), w->scales,
                       (uint32_t)(units * PACKED_SCALES), barrier);
    w->codes += units * PACKED_UNIT;
    w->scales += units * PACKED_SCALES;
    w->left -= units;
    w->place = w->place + 1 < a.depth ? w->place + 1 : 0;
    if (w->left == 0)
        tall_aim(a, w->tile + tall_step(), w);
}

/* What no kernel in front of this one writes. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ tall_warp tall_begin(const few_args &a, uint32_t memory)
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    tall_warp w;

    w.barrier = memory + (uint32_t)(warp * a.depth * 8);
    w.ring = memory + TALL_BARRIERS + (uint32_t)(warp * a.depth * tall_bytes(FORMAT));
    w.place = 0;
    tall_aim(a, tall_first(), &w);
    if (threadIdx.x % TSR_CUDA_LANES == 0) {
        for (int32_t i = 0; i < a.depth; i++)
            barrier_open(w.barrier + (uint32_t)i * 8, 1);
        barriers_opened();
        for (int32_t i = 0; i < a.depth; i++)
            tall_order<FORMAT>(a, &w);
    }
    __syncwarp();
    return w;
}

/* Where the warp reads. */
typedef struct tall_place {
    int32_t place;
    uint32_t parity;
} tall_place;

/* A piece of a chunk, from unit `unit` of the tile on. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void tall_multiply(const few_args &a, uint32_t from,
                                                     uint32_t rows, int32_t unit, float sum[1][4])
{
    const int steps = FEW_CHUNK / TSR_CUDA_STEP;
    const uint32_t at = rows + (uint32_t)(unit * tsr_packed_columns(FORMAT) * 2);

    if (a.cut.tile_units - unit >= few_units(FORMAT))
        few_multiply<FORMAT, 1, steps>(a, from, at, sum);
    else
        few_multiply<FORMAT, 1, steps / 2>(a, from, at, sum);
}

/* A tile's sums with the operand rows. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void tall_sum(const few_args &a, uint32_t rows, tall_warp *w,
                                                tall_place *p, float total[4])
{
    float sum[1][4] = {};
    int32_t of_slice = 0;

#pragma unroll
    for (int n = 0; n < 4; n++)
        total[n] = -0.0F; /* to which anything is added unchanged */
#pragma unroll 1
    for (int32_t unit = 0; unit < a.cut.tile_units;) {
        const uint32_t from = w->ring + (uint32_t)(p->place * tall_bytes(FORMAT));
        barrier_wait(w->barrier + (uint32_t)p->place * 8, p->parity);
#pragma unroll
        for (int g = 0; g < tall_groups(FORMAT) && unit < a.cut.tile_units; g++) {
            tall_multiply<FORMAT>(a, from + (uint32_t)(g * few_place(FORMAT)), rows, unit, sum);
            unit += few_units(FORMAT);
            of_slice += few_units(FORMAT);
            if (of_slice < a.cut.units && unit < a.cut.tile_units)
                continue;
            of_slice = 0;
#pragma unroll
            for (int n = 0; n < 4; n++) {
                total[n] = __fadd_rn(total[n], sum[0][n]);
                sum[0][n] = 0.0F;
            }
        }
        __syncwarp();
        if (threadIdx.x % TSR_CUDA_LANES == 0)
            tall_order<FORMAT>(a, w);
        p->place++;
        if (p->place == a.depth) {
            p->place = 0;
            p->parity ^= 1;
        }
    }
}

static __device__ __forceinline__ void tall_store(const few_args &a, int32_t tile,
                                                  const float scale[TALL_ROWS], const float sum[4])
{
    const tsr_linear &l = a.p.linear[0];
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);

#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int32_t token = lane % 4 * 2 + i % 2;
        const int32_t out = tile * TSR_CUDA_TILE + lane / 4 + i / 2 * 8;
        if (token >= a.p.rows || out >= l.out)
            continue;
        const int64_t at = token * a.p.y_stride[0] + out;
        const float of_token = scale[token] != 0.0F ? scale[token] : 1.0F;
        float value = product_value(l, sum[i], out, of_token);
        if (a.p.add != NULL)
            value = __fadd_rn(value, a.p.add[at]);
        a.p.y[0][at] = value;
    }
}

/* ---- operand rows ---- */

/* What is known of rows before they are made. */
typedef struct tall_rows {
    int32_t picked[TALL_ROWS]; /* of x */
    float part[TALL_ROWS][TALL_WARPS];
    float factor[TALL_ROWS]; /* of the norm */
    float scale[TALL_ROWS];
} tall_rows;

/* Which rows of x are meant, by the first warp: one that is not there is a fault, and the first instead.
 * Returns the lanes whose row is none. */
static __device__ __forceinline__ uint32_t tall_pick(const few_args &a, int32_t x_rows,
                                                     tall_rows *rows)
{
    const int32_t i = (int32_t)threadIdx.x;
    const int32_t row = a.from.row != NULL && i < a.p.rows ? __ldcg(a.from.row + i) : i;
    const bool is = i >= a.p.rows || (row >= 0 && row < x_rows);

    if (i < TALL_ROWS)
        rows->picked[i] = is ? row : 0;
    return __ballot_sync(TSR_ALL_LANES, !is);
}

/* The rows' fours of columns; zeros where there are none. */
template <int ROWS>
static __device__ __forceinline__ void tall_fetch(const few_args &a, const tall_rows *rows,
                                                  int32_t four, float4 v[ROWS])
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float *row = a.from.x + rows->picked[r] * a.from.x_stride;
        v[r] = r < a.p.rows && 4 * four < a.p.linear[0].in
                   ? __ldcg((const float4 *)(const void *)row + four)
                   : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
}

/* The same on their way to operand rows. */
template <int ROWS>
static __device__ __forceinline__ void tall_refine(const few_args &a, const tall_rows *rows,
                                                   int32_t four, float4 v[ROWS])
{
    const bool is = a.from.norm != NULL && 4 * four < a.p.linear[0].in;

    tall_fetch<ROWS>(a, rows, four, v);
    const float4 w = is ? __ldg((const float4 *)(const void *)a.from.norm + four)
                        : make_float4(1.0F, 1.0F, 1.0F, 1.0F);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float f = rows->factor[r];
        if (is)
            v[r] =
                make_float4(v[r].x * f * w.x, v[r].y * f * w.y, v[r].z * f * w.z, v[r].w * f * w.w);
        v[r] = stage_times(a.p.linear[0], v[r], four);
    }
}

/* The warps' parts, one row a thread: their sum, or the largest. */
static __device__ __forceinline__ float tall_join(const tall_rows *rows, bool adds)
{
    float result = 0.0F;

    for (int w = 0; w < TALL_WARPS; w++) {
        const float part = rows->part[threadIdx.x][w];
        result = adds ? result + part : fmaxf(result, part);
    }
    return result;
}

template <int ROWS>
static __device__ __forceinline__ void tall_norm(const few_args &a, tall_rows *rows)
{
    const int32_t in = a.p.linear[0].in;
    float sum[ROWS] = {};

    for (int32_t four = (int32_t)threadIdx.x; four < in / 4; four += TALL_THREADS) {
        float4 v[ROWS];
        tall_fetch<ROWS>(a, rows, four, v);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] = squares(v[r], sum[r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sum[r] = tsr_warp_sum(sum[r]);
        if (threadIdx.x % TSR_CUDA_LANES == 0)
            rows->part[r][threadIdx.x / TSR_CUDA_LANES] = sum[r];
    }
    __syncthreads();
    if (threadIdx.x < ROWS)
        rows->factor[threadIdx.x] = 1.0F / sqrtf(tall_join(rows, true) / (float)in + a.from.eps);
    __syncthreads();
}

/* The largest magnitudes, which decide what rows are divided by. */
template <int ROWS>
static __device__ __forceinline__ void tall_look(const few_args &a, tall_rows *rows)
{
    float most[ROWS] = {};

    for (int32_t four = (int32_t)threadIdx.x; four < a.p.linear[0].in / 4; four += TALL_THREADS) {
        float4 v[ROWS];
        tall_refine<ROWS>(a, rows, four, v);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            most[r] = stage_most(most[r], v[r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        most[r] = tsr_warp_max(most[r]);
        if (threadIdx.x % TSR_CUDA_LANES == 0)
            rows->part[r][threadIdx.x / TSR_CUDA_LANES] = most[r];
    }
    __syncthreads();
}

/* Operand rows, of rows of x. */
template <tsr_weight_format FORMAT, int ROWS>
static __device__ __forceinline__ void tall_make(const few_args &a, unsigned char *memory,
                                                 tall_rows *rows)
{
    const tsr_linear &l = a.p.linear[0];
    const bool plain = FORMAT == TSR_WEIGHT_BF16 && l.activation == TSR_ACTIVATION_NONE;
    const bool looks = !plain && l.activation != TSR_ACTIVATION_FP8;
    uint16_t *to = (uint16_t *)(void *)(memory + a.rows_at);

    if (a.from.norm != NULL)
        tall_norm<ROWS>(a, rows);
    if (looks)
        tall_look<ROWS>(a, rows);
    if (threadIdx.x < ROWS)
        rows->scale[threadIdx.x] = stage_scale(l, looks ? tall_join(rows, false) : 0.0F);
    __syncthreads();
    for (int32_t four = (int32_t)threadIdx.x; four < a.cut.padded / 4; four += TALL_THREADS) {
        float4 v[ROWS];
        tall_refine<ROWS>(a, rows, four, v);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            uint16_t *row = to + r * a.pitch;
            if (r >= a.p.rows)
                break;
            if (plain)
                ((uint2 *)(void *)row)[four] = stage_bf16(v[r]);
            else
                stage_store(l, v[r], rows->scale[r], row, four);
        }
    }
    __syncthreads();
}

/* Operand rows that stand in the workspace. */
static __device__ __forceinline__ void tall_stage(const few_args &a, uint32_t memory,
                                                  tall_rows *rows)
{
    const int32_t pieces = a.cut.padded / 8;

    for (int32_t t = 0; t < a.p.rows; t++) {
        for (int32_t i = (int32_t)threadIdx.x; i < pieces; i += TALL_THREADS)
            copy_16(memory + (uint32_t)(a.rows_at + (t * a.pitch + i * 8) * 2),
                    a.p.x.rows + (int64_t)t * a.cut.padded + i * 8);
    }
    if ((int32_t)threadIdx.x < a.p.rows)
        rows->scale[threadIdx.x] = __ldcg(a.p.x.scale + threadIdx.x);
    copies_end();
    copies_wait<0>();
    __syncthreads();
}

/* ---- the kernel ---- */

template <tsr_weight_format FORMAT, tall_source SOURCE>
static __global__ void __launch_bounds__(TALL_THREADS, 1)
    tall_kernel(const __grid_constant__ few_args a, int32_t x_rows, tsr_cuda_faults faults)
{
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ tall_rows rows;
    const uint32_t memory = async_address(shared);
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t row = min(lane % 8, a.p.rows - 1); /* sums beyond are never looked at */
    const uint32_t at = memory + (uint32_t)(a.rows_at + (row * a.pitch + lane / 8 * 8) * 2);
    tall_place place = {0, 0};
    uint32_t wrong = 0;

    tsr_admit_kernel();
    tall_warp w = tall_begin<FORMAT>(a, memory);
    if (SOURCE != TALL_STAGED) {
        call_for(a.from.norm, a.p.linear[0].in);
        if (threadIdx.x < TSR_CUDA_LANES)
            wrong = tall_pick(a, x_rows, &rows);
        __syncthreads();
    }
    tsr_await_kernel();
    if (wrong != 0 && blockIdx.x == 0 && threadIdx.x == 0) {
        const int32_t first = __ffs((int)wrong) - 1;
        tsr_leave_fault(faults, {TSR_FAULT_X_ROW, first, 0, a.from.row[first], x_rows});
    }
    if (SOURCE == TALL_STAGED)
        tall_stage(a, memory, &rows);
    else
        tall_make<FORMAT, SOURCE == TALL_ONE ? 1 : TALL_ROWS>(a, shared, &rows);
    for (int32_t tile = tall_first(); tile < tall_tiles(a); tile += tall_step()) {
        float sum[4];
        tall_sum<FORMAT>(a, at, &w, &place, sum);
        tall_store(a, tile, rows.scale, sum);
    }
}

/* ---- launches ---- */

typedef void (*tall_function)(few_args, int32_t, tsr_cuda_faults);

#define TALL_KERNELS(format)                                                                       \
    {                                                                                              \
        tall_kernel<format, TALL_STAGED>, tall_kernel<format, TALL_ONE>,                           \
            tall_kernel<format, TALL_MADE>,                                                        \
    }

/* None where 128 columns have a scale. */
static const tall_function tall_kernels[GEMM_KINDS][TALL_SOURCES] = {
    TALL_KERNELS(TSR_WEIGHT_BF16),  TALL_KERNELS(TSR_WEIGHT_FP8), {NULL},
    TALL_KERNELS(TSR_WEIGHT_NVFP4), TALL_KERNELS(TSR_WEIGHT_F16),
};

static int32_t place_of(tsr_weight_format format)
{
    switch (format) {
    case TSR_WEIGHT_BF16:
        return tall_bytes(TSR_WEIGHT_BF16);
    case TSR_WEIGHT_F16:
        return tall_bytes(TSR_WEIGHT_F16);
    case TSR_WEIGHT_NVFP4:
        return tall_bytes(TSR_WEIGHT_NVFP4);
    default:
        return tall_bytes(TSR_WEIGHT_FP8);
    }
}

static int kind_of(const tsr_linear *l)
{
    return tsr_gemm_kind(l->format, product_is_scaled(l->format, l->activation));
}

/* The CTA's memory, with rings as deep as they go. Returns its bytes; 0: there is no room. */
static size_t lay_out(const tsr_gemm_card *card, few_args *a)
{
    const int32_t ring = TALL_WARPS * place_of(a->p.linear[0].format);

    a->pitch = a->cut.padded + PRODUCT_PAD;
    const int32_t rows = a->p.rows * a->pitch * 2;
    const int32_t left = (int32_t)card->shared - FEW_STATIC - TALL_BARRIERS - rows;
    const int32_t most = (left < TALL_RINGS ? left : TALL_RINGS) / ring;
    a->depth = most < TALL_DEPTH ? most : TALL_DEPTH;
    a->rows_at = TALL_BARRIERS + a->depth * ring;
    return left > 0 && a->depth > 1 ? (size_t)(a->rows_at + rows) : 0;
}

static size_t make_plan(const tsr_gemm_card *card, const tsr_cuda_product *p,
                        const tsr_cuda_source *from, few_args *a)
{
    const tsr_linear *l = &p->linear[0];

    *a = {};
    a->p = *p;
    if (from != NULL)
        a->from = *from;
    a->cut = product_cut_of(l->format, l->in);
    a->end[0] = (int32_t)tsr_cuda_ceil(l->out, TSR_CUDA_TILE);
    return lay_out(card, a);
}

tsr_status tsr_tall_prepare(const tsr_gemm_card *card)
{
    tsr_status st = TSR_OK;

    for (int i = 0; st == TSR_OK && i < GEMM_KINDS * TALL_SOURCES; i++) {
        const tall_function kernel = tall_kernels[i / TALL_SOURCES][i % TALL_SOURCES];
        if (kernel != NULL)
            st = TSR_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               (int)card->shared - FEW_STATIC));
    }
    return st;
}

bool tsr_tall_takes(const tsr_gemm_card *card, const tsr_cuda_product *p,
                    const tsr_cuda_source *from)
{
    const tsr_linear *l = &p->linear[0];
    few_args a;

    return p->count == 1 && p->rows <= TALL_ROWS && tall_kernels[kind_of(l)][0] != NULL &&
           l->out > card->processors * TALL_WARPS * TSR_CUDA_TILE &&
           make_plan(card, p, from, &a) > 0;
}

tsr_status tsr_tall_multiply(tsr_cuda_device *cuda, const tsr_cuda_product *p,
                             const tsr_cuda_source *from, cudaStream_t stream)
{
    const tsr_gemm_card *card = &cuda->gemm;
    few_args a;
    const size_t bytes = make_plan(card, p, from, &a);
    const tall_source source = from == NULL ? TALL_STAGED : p->rows == 1 ? TALL_ONE : TALL_MADE;

    if (p->rows == 0)
        return TSR_OK;
    if (bytes == 0)
        return TSR_ERR_ARG;
    const tsr_cuda_launch_shape at = {dim3((unsigned)card->processors), TALL_THREADS, bytes, stream,
                                      0};
    return tsr_cuda_launch(at, tall_kernels[kind_of(&p->linear[0])][source], a,
                           cuda->base.shape.max_tokens, cuda->faults);
}
