/*
 * Launches of products of some dozens of rows (split_tile_cuda.cuh).
 */
#include "kernels/cuda/linear/split_cuda.cuh"

#include "kernels/cuda/linear/gemm_cuda.cuh"
#include "kernels/cuda/linear/split_tile_cuda.cuh"

typedef void (*split_function)(split_args);

enum {
    SPLIT_DEPTHS = 3,     /* slices of a CTA, at most */
    SPLIT_KERNELS = 4,    /* of a kind */
    SPLIT_AHEAD = 3,      /* slots that do not wait for the kernel in front */
    SPLIT_LATE = 32,      /* rows up to which no slot does, if they come late */
    SPLIT_COST = 14,      /* of a wave, in slots */
    SPLIT_SYSTEM = 1024,  /* bytes of a CTA that are the system's */
    SPLIT_DRIVER = 12000, /* that describes tensors */
};

template <tsr_weight_format FORMAT, bool SCALED, int DEPTH>
static constexpr split_function split_small = split_kernel<FORMAT, SCALED, SPLIT_SMALL, DEPTH>;

template <tsr_weight_format FORMAT>
static constexpr split_function split_large = split_kernel<FORMAT, false, GEMM_TOKENS, 1>;

/* Up to 128 tokens; up to 64, where two CTAs share a processor unless 128 columns have a scale; with two
 * slices a CTA, and with three. */
static const split_function split_kernels[GEMM_KINDS][SPLIT_KERNELS] = {
    {split_large<TSR_WEIGHT_BF16>, split_small<TSR_WEIGHT_BF16, false, 1>,
     split_small<TSR_WEIGHT_BF16, false, 2>, split_small<TSR_WEIGHT_BF16, false, 3>},
    {split_large<TSR_WEIGHT_FP8>, split_small<TSR_WEIGHT_FP8, false, 1>,
     split_small<TSR_WEIGHT_FP8, false, 2>, split_small<TSR_WEIGHT_FP8, false, 3>},
    {NULL, split_small<TSR_WEIGHT_FP8, true, 1>, split_small<TSR_WEIGHT_FP8, true, 2>, NULL},
    {split_large<TSR_WEIGHT_NVFP4>, split_small<TSR_WEIGHT_NVFP4, false, 1>,
     split_small<TSR_WEIGHT_NVFP4, false, 2>, split_small<TSR_WEIGHT_NVFP4, false, 3>},
    {split_large<TSR_WEIGHT_F16>, split_small<TSR_WEIGHT_F16, false, 1>, NULL, NULL},
};

static split_function split_function_of(const split_args *a)
{
    const tsr_linear *l = &a->p.linear[0];
    const int kind = tsr_gemm_kind(l->format, product_is_scaled(l->format, l->activation));

    return split_kernels[kind][a->spans * SPLIT_SPAN <= SPLIT_SMALL ? a->depth : 0];
}

/* Bytes of a CTA. */
static size_t split_room(const tsr_gemm_card *card, int32_t ctas)
{
    const size_t part = card->shared_all / (size_t)ctas - SPLIT_SYSTEM;

    return part < card->shared ? part : card->shared;
}

/* Clusters of each size that the card holds at once. */
static tsr_status count_clusters(split_function kernel, int32_t ctas, const tsr_gemm_card *card,
                                 int32_t of_size[TSR_CUDA_CLUSTER + 1])
{
    tsr_status st = TSR_OK;

    for (unsigned n = 1; st == TSR_OK && n <= TSR_CUDA_CLUSTER; n++) {
        cudaLaunchAttribute attribute = {};
        cudaLaunchConfig_t config = {};
        int clusters = 0;
        attribute.id = cudaLaunchAttributeClusterDimension;
        attribute.val.clusterDim.x = n;
        attribute.val.clusterDim.y = 1;
        attribute.val.clusterDim.z = 1;
        config.gridDim = dim3(n);
        config.blockDim = dim3((unsigned)split_threads(ctas));
        config.dynamicSmemBytes = split_room(card, ctas);
        config.attrs = &attribute;
        config.numAttrs = 1;
        st = TSR_CUDA(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config));
        of_size[n] = clusters;
    }
    return st;
}

tsr_status tsr_split_prepare(tsr_gemm_card *card)
{
    cudaDriverEntryPointQueryResult found;
    void *function = NULL;
    tsr_status st = TSR_CUDA(cudaGetDriverEntryPointByVersion(
        "cuTensorMapEncodeTiled", &function, SPLIT_DRIVER, cudaEnableDefault, &found));

    for (int i = 0; st == TSR_OK && i < GEMM_KINDS * SPLIT_KERNELS; i++) {
        const split_function kernel = split_kernels[i / SPLIT_KERNELS][i % SPLIT_KERNELS];
        if (kernel != NULL)
            st = TSR_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               (int)card->shared));
    }
    if (st == TSR_OK)
        st = count_clusters(split_kernels[0][1], 2, card, card->clusters[1]);
    if (st == TSR_OK)
        st = count_clusters(split_kernels[0][0], 1, card, card->clusters[0]);
    if (st == TSR_OK && function == NULL) {
        tsr_log(TSR_LOG_ERROR, "cuda: the driver cannot describe tensors; update it");
        st = TSR_ERR_DEVICE;
    }
    card->encode = (PFN_cuTensorMapEncodeTiled_v12000)function;
    return st;
}

/* A launch. */
typedef struct split_plan {
    split_args a;
    int32_t ctas; /* of a processor */
    int32_t waves;
} split_plan;

static uint32_t aligned(uint32_t bytes)
{
    return (bytes + GEMM_ALIGNMENT - 1) / GEMM_ALIGNMENT * GEMM_ALIGNMENT;
}

/* Lays a CTA's memory out, with as many slots as there is room for. Whether it is enough. */
static bool lay_out(split_plan *s, tsr_weight_format format, uint32_t room)
{
    split_args *a = &s->a;
    gemm_shape *shape = &a->shape;
    const uint32_t tiles = (uint32_t)a->group;
    const uint32_t tokens = tsr_cuda_ceil(a->spans, 2) * 2 * SPLIT_SPAN; /* an instruction's */
    const uint32_t sums = tiles * (uint32_t)(a->most_spans * a->slices) * SPLIT_ITEM_BYTES;
    const uint32_t front = SPLIT_FRONT + GEMM_ALIGNMENT;
    const int32_t slots = a->depth * tsr_slice_columns(a->p.linear[0].in) / GEMM_COLUMNS;
    const int32_t most = tsr_smaller(slots, GEMM_MAX_SLOTS);

    shape->scales_at = tiles * gemm_code_bytes(format);
    shape->tokens_at = aligned(shape->scales_at + tiles * gemm_scale_bytes(format));
    shape->slot_bytes = shape->tokens_at + tokens * GEMM_TOKEN_BYTES;
    if (front + sums > room)
        return false;
    shape->slots = tsr_smaller((int32_t)((room - front) / shape->slot_bytes), most);
    const uint32_t ring = (uint32_t)shape->slots * shape->slot_bytes;
    a->ahead = a->p.late && a->p.rows <= SPLIT_LATE ? shape->slots
                                                    : tsr_smaller(SPLIT_AHEAD, shape->slots);
    shape->bytes = front + (sums > ring ? sums : ring);
    return shape->slots >= tsr_smaller(gemm_least_slots(format), most);
}

static bool make_plan(const tsr_gemm_card *card, const tsr_cuda_product *p, split_plan *s)
{
    const tsr_linear *l = &p->linear[0];
    const bool scaled = product_is_scaled(l->format, l->activation);
    split_args *a = &s->a;
    int32_t tiles = 0;

    *s = {};
    a->p = *p;
    for (int32_t i = 0; i < p->count; i++)
        a->end[i] = tiles += (int32_t)tsr_cuda_ceil(p->linear[i].out, TSR_CUDA_TILE);
    a->slices = tsr_slices_of(l->in);
    a->depth = (int32_t)tsr_cuda_ceil(a->slices, TSR_CUDA_CLUSTER);
    a->cluster = (int32_t)tsr_cuda_ceil(a->slices, a->depth);
    if (a->slices < 2 || a->depth > SPLIT_DEPTHS)
        return false;
    a->blocks =
        (int32_t)tsr_cuda_ceil(p->rows, a->depth > 1 ? SPLIT_SMALL : gemm_most_tokens(scaled));
    a->spans = (int32_t)tsr_cuda_ceil(tsr_cuda_ceil(p->rows, a->blocks), SPLIT_SPAN);
    a->most_spans = (int32_t)tsr_cuda_ceil(a->spans, a->cluster);
    s->ctas = split_ctas(scaled, a->spans * SPLIT_SPAN, a->depth);
    const int32_t clusters = card->clusters[s->ctas - 1][a->cluster];
    const int32_t most = split_groups(s->ctas) * GEMM_HALF_TILES;
    if (clusters == 0 || split_function_of(a) == NULL)
        return false;
    s->waves = (int32_t)tsr_cuda_ceil(tiles * a->blocks, clusters * most);
    a->group = (int32_t)tsr_cuda_ceil(tiles * a->blocks, clusters * s->waves);
    while (a->group < most &&
           (int32_t)tsr_cuda_ceil(tiles, a->group) * a->blocks > clusters * s->waves)
        a->group++;
    return lay_out(s, l->format, (uint32_t)split_room(card, s->ctas));
}

/* Counted in slots that a processor takes one behind the other. */
bool tsr_split_takes(const tsr_gemm_card *card, const tsr_cuda_product *p)
{
    const tsr_linear *l = &p->linear[0];
    const int32_t most = gemm_most_tokens(product_is_scaled(l->format, l->activation));
    const int32_t slots = tsr_slice_columns(l->in) / GEMM_COLUMNS; /* of a slice */
    int64_t tiles = 0;
    split_plan s;

    for (int32_t i = 0; i < p->count; i++)
        tiles += tsr_cuda_ceil(p->linear[i].out, GEMM_ROWS);
    tiles *= tsr_cuda_ceil(p->rows, most);
    const int64_t whole =
        tsr_cuda_ceil(tiles, card->processors) * (tsr_cuda_padded(l->in) / GEMM_COLUMNS);
    return make_plan(card, p, &s) && s.waves * (s.a.depth * slots + SPLIT_COST) < whole;
}

tsr_status tsr_split_multiply(const tsr_gemm_card *card, const tsr_cuda_product *p,
                              cudaStream_t stream)
{
    split_plan s;

    if (p->rows == 0)
        return TSR_OK;
    if (!make_plan(card, p, &s))
        return TSR_ERR_ARG;
    const tsr_status st = tsr_gemm_describe(card, p->x.rows, tsr_cuda_padded(p->linear[0].in),
                                            p->rows, s.a.spans * SPLIT_SPAN, &s.a.rows);
    if (st != TSR_OK)
        return st;
    const split_args &a = s.a;
    const unsigned groups = tsr_cuda_ceil(a.group, GEMM_HALF_TILES);
    const tsr_cuda_launch_shape at = {
        dim3(tsr_cuda_ceil(a.end[p->count - 1], a.group) * (unsigned)(a.blocks * a.cluster)),
        (groups + 1) * GEMM_GROUP,
        a.shape.bytes,
        stream,
        (unsigned)a.cluster,
    };
    return tsr_cuda_launch(at, split_function_of(&a), a);
}
