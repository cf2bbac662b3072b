/*
 * Few rows with linears that share them (few_tile_cuda.cuh): who multiplies what, and how sums become
 * values. Each warp stores its sums where the CTA is that finishes their token, which adds the slices
 * up in order.
 */
#include "kernels/cuda/linear/few_cuda.cuh"

#include "kernels/cuda/linear/few_rows_cuda.cuh"
#include "kernels/cuda/linear/gemm_cuda.cuh"

/* A tile with a span of operand rows: an item, which CTA item % cluster finishes. The sums of its
 * slices, one behind the other: [row of the tile][operand row of the span]. */
static __device__ __forceinline__ uint32_t few_sums_at(const few_args &a, uint32_t memory,
                                                       int32_t item, int32_t slice)
{
    const int32_t place = few_divide(item, a.of_cluster) * a.cut.slices + slice;

    return memory + (uint32_t)(a.sums_at + place * FEW_ITEM_BYTES);
}

/* Pairs of operand rows of a span that there are. */
static __device__ __forceinline__ int32_t few_pairs(const few_args &a, int32_t span)
{
    return min((a.p.rows - span * PRODUCT_COLUMNS + 1) / 2, PRODUCT_COLUMNS / 2);
}

/* By one thread: bytes of sums, and of what is told of rows, that come to this CTA. */
template <int SPANS, few_source SOURCE>
static __device__ __forceinline__ void few_expect(const few_args &a, uint32_t memory)
{
    const int32_t tiles = min(a.group, a.end[a.p.count - 1] - cluster_index() * a.group);
    int32_t pairs = 0;

    for (int32_t item = cluster_cta(); item < tiles * SPANS; item += a.cluster)
        pairs += max(few_pairs(a, item % SPANS), 0);
    barrier_open(memory + FEW_MET, 1);
    barrier_open(memory + FEW_TOLD, 1);
    barriers_opened();
    if (SOURCE == FEW_FILLED)
        barrier_expect(memory + FEW_TOLD, (uint32_t)(a.p.rows * (int32_t)sizeof(few_norm)));
    barrier_expect(memory + FEW_MET, (uint32_t)(pairs * a.cut.slices * TSR_CUDA_TILE * 8));
}

/* Where a warp's sums of a span go: pairs of rows to the lane's place in a CTA. */
typedef struct few_way {
    uint32_t to;
    uint32_t cta;
} few_way;

template <int SPANS>
static __device__ __forceinline__ few_way few_way_of(const few_args &a, const few_warp &w,
                                                     uint32_t memory, int32_t span)
{
    const int32_t item = w.tile * SPANS + span;
    few_way way;

    way.to = few_sums_at(a, memory, item, w.slice) + threadIdx.x % TSR_CUDA_LANES * 8;
    way.cta = (uint32_t)(item - few_divide(item, a.of_cluster) * a.cluster);
    return way;
}

/* A warp's sums to the CTAs that finish them. A CTA that is no cluster has nobody to send them to. */
template <int SPANS>
static __device__ __forceinline__ void few_hand_over(const few_args &a, const few_warp &w,
                                                     uint32_t memory, const few_way way[SPANS],
                                                     const float sum[SPANS][4])
{
    const int32_t pair = (int32_t)(threadIdx.x % 4);

    if (w.run.units == 0)
        return;
#pragma unroll
    for (int j = 0; j < SPANS; j++) {
        if (pair >= few_pairs(a, j))
            continue;
        if (a.cluster == 1) {
            shared_store_pair(way[j].to, sum[j][0], sum[j][1]);
            shared_store_pair(way[j].to + FEW_ITEM_BYTES / 2, sum[j][2], sum[j][3]);
            continue;
        }
        cluster_send_8(way[j].to, memory + FEW_MET, way[j].cta, sum[j][0], sum[j][1]);
        cluster_send_8(way[j].to + FEW_ITEM_BYTES / 2, memory + FEW_MET, way[j].cta, sum[j][2],
                       sum[j][3]);
    }
}

/* A value to finish: what is known before the kernel in front has ended, and what comes then. */
typedef struct few_value {
    uint32_t sums; /* where they lie */
    int32_t token; /* -1: none */
    float *y;      /* where it goes */
    float factor;  /* of the linear's row */
    float bias;
    bool has_bias;
    bool is_added; /* to what stands */
    float scale;   /* of the operand row */
    float add;
} few_value;

/* Whether it is a single row that operand rows come from. */
static __host__ __device__ __forceinline__ constexpr bool few_is_single(few_source source)
{
    return source == FEW_ONE || few_left_width(source) > 0;
}

/* Values of a thread whose operands are brought before: most often all. */
static __host__ __device__ __forceinline__ constexpr int few_values(int spans, few_source source)
{
    return few_is_single(source) ? 1 : spans == 1 ? 2 : spans;
}

/* Operand rows of an item that are looked at. */
template <few_source SOURCE> static __device__ __forceinline__ int32_t few_tokens(const few_args &a)
{
    if (few_is_single(SOURCE))
        return 1;
    return min(a.p.rows, (int32_t)PRODUCT_COLUMNS);
}

/* The n-th value of this thread. */
template <int SPANS, few_source SOURCE>
static __device__ __forceinline__ few_value few_value_of(const few_args &a, uint32_t memory,
                                                         int32_t n)
{
    const int32_t i = n * (int32_t)blockDim.x + (int32_t)threadIdx.x;
    const int32_t row = i % TSR_CUDA_TILE;
    const int32_t local = i / TSR_CUDA_TILE / few_tokens<SOURCE>(a);
    const int32_t within = i / TSR_CUDA_TILE - local * few_tokens<SOURCE>(a);
    const int32_t item = local * a.cluster + cluster_cta();
    const int32_t index = cluster_index() * a.group + item / SPANS;
    const product_tile at = product_tile_of(a.end, a.p.count, index);
    const tsr_linear &l = a.p.linear[at.linear];
    const int32_t out = at.tile * TSR_CUDA_TILE + row;
    few_value v = {};

    v.token = item % SPANS * PRODUCT_COLUMNS + within;
    if (item >= a.group * SPANS || v.token >= a.p.rows || index >= a.end[a.p.count - 1] ||
        out >= l.out) {
        v.token = -1;
        return v;
    }
    v.sums = few_sums_at(a, memory, item, 0) + (uint32_t)(row * PRODUCT_COLUMNS + within) * 4;
    v.y = a.p.y[at.linear] + v.token * a.p.y_stride[at.linear] + out;
    v.factor = product_row_scale(l, out);
    v.has_bias = l.bias != NULL;
    if (v.has_bias)
        v.bias = l.bias[out];
    v.is_added = a.p.add != NULL && at.linear == 0;
    return v;
}

template <few_source SOURCE>
static __device__ __forceinline__ void few_value_load(const few_args &a, few_value *v)
{
    if (v->token < 0)
        return;
    if (SOURCE == FEW_STAGED)
        v->scale = __ldcg(a.p.x.scale + v->token);
    if (v->is_added)
        v->add = __ldcg(a.p.add + (v->y - a.p.y[0]));
}

/* What an operand row that was made here is multiplied with. */
static __device__ __forceinline__ float few_scale(const few_args &a, uint32_t memory, int32_t token)
{
    const float scale =
        shared_load(memory + (uint32_t)(a.norms_at + token * (int32_t)sizeof(few_norm)) + 4);

    return scale != 0.0F ? scale : 1.0F;
}

template <few_source SOURCE>
static __device__ __forceinline__ void few_finish(const few_args &a, uint32_t memory,
                                                  const few_value &v)
{
    if (v.token < 0)
        return;
    float sum = shared_load(v.sums);
    float part[TSR_CUDA_CLUSTER]; /* on their way: those of most widths */
#pragma unroll
    for (int32_t s = 1; s < TSR_CUDA_CLUSTER; s++) {
        if (s < a.cut.slices)
            part[s] = shared_load(v.sums + (uint32_t)(s * FEW_ITEM_BYTES));
    }
#pragma unroll
    for (int32_t s = 1; s < TSR_CUDA_CLUSTER; s++)
        sum = s < a.cut.slices ? __fadd_rn(sum, part[s]) : sum;
#pragma unroll 1
    for (int32_t s = TSR_CUDA_CLUSTER; s < a.cut.slices; s++)
        sum = __fadd_rn(sum, shared_load(v.sums + (uint32_t)(s * FEW_ITEM_BYTES)));
    const float scale = SOURCE == FEW_STAGED ? v.scale : few_scale(a, memory, v.token);
    float value = __fmul_rn(sum, __fmul_rn(scale, v.factor)); /* as product_value */
    if (v.has_bias)
        value = __fadd_rn(value, v.bias);
    if (v.is_added)
        value = __fadd_rn(value, v.add);
    __stcg(v.y, value);
}

/* All values of the thread whose operands were not brought before. */
template <int SPANS, few_source SOURCE>
static __device__ __forceinline__ void few_finish_rest(const few_args &a, uint32_t memory)
{
    const int32_t locals = (a.group * SPANS + a.cluster - 1) / a.cluster;
    const int32_t values = locals * few_tokens<SOURCE>(a) * TSR_CUDA_TILE;

#pragma unroll 1
    for (int32_t n = few_values(SPANS, SOURCE); n * (int32_t)blockDim.x < values; n++) {
        few_value v = few_value_of<SPANS, SOURCE>(a, memory, n);
        few_value_load<SOURCE>(a, &v);
        few_finish<SOURCE>(a, memory, v);
    }
}

/* The CTA's columns of all operand rows. */
template <tsr_weight_format FORMAT, few_source SOURCE, bool KNOWN>
static __device__ __forceinline__ void few_enter(const few_args &a, unsigned char *memory,
                                                 tsr_divisor by, const tsr_left &left)
{
    if (SOURCE == FEW_STAGED)
        few_stage(a, async_address(memory));
    else if (SOURCE == FEW_FILLED)
        few_make(a, memory);
    else if (SOURCE == FEW_ONE)
        few_make_one<FORMAT, KNOWN>(a, memory, by);
    else
        few_add_up<FORMAT, KNOWN, few_left_width(SOURCE)>(a, memory, by, left);
}

template <tsr_weight_format FORMAT, int SPANS, bool SCALED, few_source SOURCE, bool KNOWN>
static __global__ void __launch_bounds__(FEW_WARPS *TSR_CUDA_LANES, SPANS == 1 ? 2 : 1)
    few_kernel(const __grid_constant__ few_args a)
{
    extern __shared__ __align__(128) unsigned char shared[];
    const uint32_t memory = async_address(shared);
    const few_warp w = few_warp_of<SPANS>(a, memory, few_place(FORMAT));
    constexpr int values = few_values(SPANS, SOURCE);
    few_value value[values];
    const tsr_divisor by = few_divisor<KNOWN>(a);
    tsr_left left = {};
    few_way way[SPANS];
    float sum[SPANS][4];

    tsr_admit_kernel();
    few_begin<FORMAT>(a, w);
    if (threadIdx.x == 0)
        few_expect<SPANS, SOURCE>(a, memory);
    cluster_arrive_relaxed(); /* the barriers' opening is all that others have to see */
#pragma unroll
    for (int n = 0; n < values; n++)
        value[n] = few_value_of<SPANS, SOURCE>(a, memory, n);
#pragma unroll
    for (int j = 0; j < SPANS; j++)
        way[j] = few_way_of<SPANS>(a, w, memory, j);
    if (SOURCE == FEW_FILLED || SOURCE == FEW_ONE)
        few_weights_near(a, memory);
    if (few_left_width(SOURCE) > 0)
        left = few_left_of(a, (int32_t)threadIdx.x);
    cluster_await();
    tsr_await_kernel();
    few_enter<FORMAT, SOURCE, KNOWN>(a, shared, by, left);
#pragma unroll
    for (int n = 0; n < values; n++)
        few_value_load<SOURCE>(a, &value[n]);
    if (SOURCE == FEW_STAGED)
        copies_wait<0>();
    __syncthreads();
    few_slice<FORMAT, SPANS, SCALED>(a, w, sum);
    few_hand_over<SPANS>(a, w, memory, way, sum);
    few_await(a, memory + FEW_MET);
#pragma unroll
    for (int n = 0; n < values; n++)
        few_finish<SOURCE>(a, memory, value[n]);
    if (SOURCE == FEW_STAGED || SOURCE == FEW_FILLED)
        few_finish_rest<SPANS, SOURCE>(a, memory);
}

/* ---- launches ---- */

typedef void (*few_function)(few_args);

enum {
    FEW_KNOWN = GEMM_KINDS,
    FEW_KINDS,
    FEW_WIDTHS = 3,
    FEW_FORMS = FEW_SOURCES - 1 + FEW_WIDTHS
};

/* Of a single row a scale that is known is worth kernels of its own. */
#define FEW_KERNELS(format, scaled, known)                                                         \
    {                                                                                              \
        few_kernel<format, 1, scaled, FEW_STAGED, false>,                                          \
            few_kernel<format, 2, scaled, FEW_STAGED, false>,                                      \
            few_kernel<format, 4, scaled, FEW_STAGED, false>,                                      \
            few_kernel<format, 1, scaled, FEW_FILLED, false>,                                      \
            few_kernel<format, 1, scaled, FEW_ONE, known>,                                         \
            few_kernel<format, 1, scaled, FEW_LEFT_64, known>,                                     \
            few_kernel<format, 1, scaled, FEW_LEFT_128, known>,                                    \
            few_kernel<format, 1, scaled, FEW_LEFT_256, known>,                                    \
    }

/* Staged rows by their number, then the other sources. */
static const few_function few_kernels[FEW_KINDS][FEW_FORMS] = {
    FEW_KERNELS(TSR_WEIGHT_BF16, false, false), FEW_KERNELS(TSR_WEIGHT_FP8, false, false),
    FEW_KERNELS(TSR_WEIGHT_FP8, true, false),   FEW_KERNELS(TSR_WEIGHT_NVFP4, false, false),
    FEW_KERNELS(TSR_WEIGHT_F16, false, false),  FEW_KERNELS(TSR_WEIGHT_FP8, false, true),
};

/* Which of them: those of gemm_cuda.cu, and one more. */
static int kind_of(const tsr_linear *l)
{
    const int kind = tsr_gemm_kind(l->format, product_is_scaled(l->format, l->activation));

    return kind == tsr_gemm_kind(TSR_WEIGHT_FP8, false) && l->activation == TSR_ACTIVATION_FP8
               ? FEW_KNOWN
               : kind;
}

static const int32_t few_widths[FEW_WIDTHS] = {8, 16, 32}; /* operand rows */

static int width_of(int32_t rows)
{
    int i = 0;

    while (few_widths[i] < rows)
        i++;
    return i;
}

static int32_t place_of(tsr_weight_format format)
{
    switch (format) {
    case TSR_WEIGHT_BF16:
        return few_place(TSR_WEIGHT_BF16);
    case TSR_WEIGHT_F16:
        return few_place(TSR_WEIGHT_F16);
    case TSR_WEIGHT_NVFP4:
        return few_place(TSR_WEIGHT_NVFP4);
    default:
        return few_place(TSR_WEIGHT_FP8);
    }
}

/* A launch. */
typedef struct few_plan {
    few_args a;
    size_t bytes; /* of a CTA */
    int32_t ctas;
} few_plan;

/* Lays a CTA's memory out in `room` bytes, with rings as deep as they go. Whether there is room. */
static bool lay_out(few_plan *f, int32_t width, int32_t room)
{
    few_args *a = &f->a;
    const int32_t chunks = (int32_t)tsr_cuda_ceil(a->cut.columns, FEW_CHUNK);
    const int32_t ring = a->group * a->slices * place_of(a->p.linear[0].format);
    const int32_t items = a->group * width / PRODUCT_COLUMNS;
    const int32_t sums = (int32_t)tsr_cuda_ceil(items, a->cluster) * a->cut.slices * FEW_ITEM_BYTES;
    const int32_t norms = FEW_MADE * (int32_t)sizeof(few_norm);
    const int32_t weights = a->slices * a->cut.columns * (int32_t)sizeof(float);

    a->of_group = (1 << 16) / a->group + 1;
    a->of_cluster = (1 << 16) / a->cluster + 1;
    a->pitch = a->slices * a->cut.columns + PRODUCT_PAD;
    const int32_t rows = width * a->pitch * 2;
    const int32_t left = room - FEW_BARRIERS - rows - sums - norms - weights;
    const int32_t most = (left < FEW_RINGS ? left : FEW_RINGS) / ring;
    a->depth = most < chunks ? most : chunks;
    a->rows_at = FEW_BARRIERS + a->depth * ring;
    a->sums_at = a->rows_at + rows;
    a->norms_at = a->sums_at + sums;
    a->weights_at = a->norms_at + norms;
    f->bytes = (size_t)(a->weights_at + weights);
    return left > 0 && a->depth > 0;
}

/* As many tiles a cluster as leave each processor so many CTAs; at once, unless there may be more. */
static bool cut_for(const tsr_gemm_card *card, int32_t ctas, bool at_once, few_plan *f)
{
    few_args *a = &f->a;
    const int32_t tiles = a->end[a->p.count - 1];
    const int32_t clusters = card->processors * ctas / a->cluster;
    const size_t part = card->shared_all / (size_t)ctas - FEW_SYSTEM;
    const size_t room = part < card->shared ? part : card->shared;

    const int32_t most = FEW_WARPS / a->slices;
    const int32_t even = (int32_t)tsr_cuda_ceil(tiles, clusters);

    if (most == 0 || (at_once && even > most))
        return false;
    a->group = even < most ? even : most;
    f->ctas = (int32_t)tsr_cuda_ceil(tiles, a->group) * a->cluster;
    return lay_out(f, few_widths[width_of(a->p.rows)], (int32_t)room - FEW_STATIC);
}

/* As few CTAs of a processor as are enough: what they leave free is where the next kernel begins. Wide
 * rows, which gemm_cuda.cu cannot cut into their slices, may take several turns. */
static bool make_plan(const tsr_gemm_card *card, const tsr_cuda_product *p,
                      const tsr_cuda_source *from, few_plan *f)
{
    const tsr_linear *l = &p->linear[0];
    int32_t tiles = 0;

    *f = {};
    f->a.p = *p;
    if (from != NULL)
        f->a.from = *from;
    f->a.cut = product_cut_of(l->format, l->in);
    for (int32_t i = 0; i < p->count; i++)
        f->a.end[i] = tiles += (int32_t)tsr_cuda_ceil(p->linear[i].out, TSR_CUDA_TILE);
    f->a.cluster = f->a.cut.slices < TSR_CUDA_CLUSTER ? f->a.cut.slices : TSR_CUDA_CLUSTER;
    f->a.slices = (int32_t)tsr_cuda_ceil(f->a.cut.slices, f->a.cluster);
    for (int32_t ctas = 1; ctas <= FEW_CTAS; ctas++) {
        if (cut_for(card, ctas, true, f))
            return true;
    }
    return f->a.cut.slices > TSR_CUDA_CLUSTER &&
           (cut_for(card, 2, false, f) || cut_for(card, 1, false, f));
}

tsr_status tsr_few_prepare(const tsr_gemm_card *card)
{
    tsr_status st = TSR_OK;

    for (int i = 0; st == TSR_OK && i < FEW_KINDS * FEW_FORMS; i++)
        st = TSR_CUDA(cudaFuncSetAttribute(few_kernels[i / FEW_FORMS][i % FEW_FORMS],
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           (int)card->shared - FEW_STATIC));
    return st;
}

bool tsr_few_takes(const tsr_gemm_card *card, const tsr_cuda_product *p,
                   const tsr_cuda_source *from)
{
    few_plan f;

    return p->rows <=
               (tsr_slices_of(p->linear[0].in) > TSR_CUDA_CLUSTER ? FEW_ROWS : FEW_ROWS / 2) &&
           make_plan(card, p, from, &f);
}

/* As many as every cluster makes sooner than a kernel of their own does. */
bool tsr_few_makes(const tsr_linear *linear, int32_t rows)
{
    const int32_t most = linear->activation == TSR_ACTIVATION_NONE ? FEW_MADE : FEW_MADE_QUANTIZED;

    return rows <= most && rows * linear->in <= FEW_MADE_ELEMENTS &&
           tsr_cuda_is_packed(linear->format) && stage_makes(linear->activation);
}

static few_source source_of(const few_args *a, int32_t threads)
{
    const bool one = a->p.rows == 1 && threads >= TSR_CUDA_THREADS &&
                     a->p.linear[0].in <= FEW_KEPT * TSR_CUDA_THREADS * 4 &&
                     a->slices * a->cut.columns <= TSR_CUDA_THREADS * 4;

    if (a->from.left.sums != NULL)
        return a->from.left.width == 64    ? FEW_LEFT_64
               : a->from.left.width == 128 ? FEW_LEFT_128
                                           : FEW_LEFT_256;
    if (a->from.x == NULL)
        return FEW_STAGED;
    return one ? FEW_ONE : FEW_FILLED;
}

tsr_status tsr_few_multiply(const tsr_gemm_card *card, const tsr_cuda_product *p,
                            const tsr_cuda_source *from, cudaStream_t stream)
{
    few_plan f;

    if (p->rows == 0)
        return TSR_OK;
    if (!make_plan(card, p, from, &f))
        return TSR_ERR_ARG;
    const tsr_cuda_launch_shape at = {
        dim3((unsigned)f.ctas),
        (unsigned)(f.a.group * f.a.slices * TSR_CUDA_LANES),
        f.bytes,
        stream,
        f.a.cluster > 1 ? (unsigned)f.a.cluster : 0,
    };
    const few_source source = source_of(&f.a, (int32_t)at.threads);
    const int form = source == FEW_STAGED ? width_of(p->rows) : FEW_WIDTHS - 1 + (int)source;
    return tsr_cuda_launch(at, few_kernels[kind_of(&p->linear[0])][form], f.a);
}
