/*
 * Few rows with linears that share them: a warp multiplies a slice of a tile of 16 rows of the weight
 * with all operand rows, from shared memory, where one lane has ordered the slice in bulk before the
 * kernel in front ended.
 *
 *   cluster      | CTA: slices 0 .. | CTA: the next .. | ..       the same few tiles
 *   CTA          | warp: tile 0, slice 0 | warp: tile 1, slice 0 | ..
 *   memory       | barriers | ring of each warp | operand rows, the CTA's columns | sums
 *                | norms | the norm's weights, the CTA's columns |
 *
 * Sums are those of product_cuda.cuh.
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_FEW_TILE_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_FEW_TILE_CUDA_CUH

#include "kernels/cuda/device/async_cuda.cuh"
#include "kernels/cuda/linear/linear_cuda.cuh"
#include "kernels/cuda/operands/product_cuda.cuh"

enum {
    FEW_WARPS = 12,        /* most of a CTA */
    FEW_CTAS = 4,          /* most that are wanted of a processor */
    FEW_CHUNK = 128,       /* columns that are ordered together */
    FEW_DEPTH = 4,         /* most chunks of a ring: a slice */
    FEW_RINGS = 84 * 1024, /* most bytes of a CTA's rings: room for the next kernel's stays */
    FEW_ROWS = 32,         /* most operand rows */
    FEW_SYSTEM = 1024,     /* bytes of a CTA that are the system's */
    FEW_STATIC = 1024,     /* and that the compiler lays out */
    FEW_MET = FEW_WARPS * FEW_DEPTH * 8, /* behind the rings' barriers: that sums have come, .. */
    FEW_TOLD = FEW_MET + 8,              /* .. and what others have seen of rows */
    FEW_BARRIERS = FEW_MET + 128,
    FEW_ITEM_BYTES = TSR_CUDA_TILE * PRODUCT_COLUMNS * 4, /* sums of an instruction */
    FEW_MADE = 8,                                  /* most operand rows that are made here .. */
    FEW_MADE_QUANTIZED = 2,                        /* .. with quantization .. */
    FEW_MADE_ELEMENTS = 16 * 1024,                 /* .. and of all of them */
    FEW_PARTS = TSR_CUDA_THREADS / TSR_CUDA_LANES, /* of such a row: warps of rows_cuda.cu */
    FEW_TOGETHER = 4,                              /* fours of columns on their way to a lane */
    FEW_KEPT = 5, /* fours of columns of a single row that a thread keeps */
};

/* Where operand rows come from: what is short is fast, so that each has kernels of its own. */
typedef enum few_source {
    FEW_STAGED,  /* they stand in the workspace */
    FEW_FILLED,  /* they are made here, of f32 rows */
    FEW_ONE,     /* the same of a single row */
    FEW_LEFT_64, /* of what attention has left of a single row, by the width of its heads */
    FEW_LEFT_128,
    FEW_LEFT_256,
    FEW_SOURCES
} few_source;

/* 0: attention has left nothing. */
static __host__ __device__ __forceinline__ constexpr int few_left_width(few_source source)
{
    return source == FEW_LEFT_64    ? 64
           : source == FEW_LEFT_128 ? 128
           : source == FEW_LEFT_256 ? 256
                                    : 0;
}

/* What is left of a row's making when its columns are looked at. */
typedef struct few_norm {
    float factor;
    float scale;
} few_norm;

typedef struct few_args {
    tsr_cuda_product p;
    tsr_cuda_source from; /* x not NULL: operand rows are made here */
    product_cut cut;
    int32_t end[TSR_MAX_LINEARS]; /* tiles up to and with each linear */
    int32_t group;                /* tiles of a cluster */
    int32_t slices;               /* of a CTA */
    int32_t cluster;              /* CTAs */
    int32_t of_group;             /* 2^16 divided by them, rounded up */
    int32_t of_cluster;
    int32_t depth;   /* chunks of a ring */
    int32_t pitch;   /* elements of an operand row in shared memory */
    int32_t rows_at; /* bytes in front of them */
    int32_t sums_at;
    int32_t norms_at;   /* few_norm [FEW_MADE] */
    int32_t weights_at; /* floats of the norm: the CTA's columns */
} few_args;

static __host__ __device__ __forceinline__ constexpr int32_t few_units(tsr_weight_format format)
{
    return FEW_CHUNK / tsr_packed_columns(format);
}

static __host__ __device__ __forceinline__ constexpr int32_t few_codes(tsr_weight_format format)
{
    return few_units(format) * PACKED_UNIT;
}

/* Bytes of a place of a ring. */
static __host__ __device__ __forceinline__ constexpr int32_t few_place(tsr_weight_format format)
{
    return few_codes(format) + (format == TSR_WEIGHT_NVFP4 ? few_units(format) * PACKED_SCALES : 0);
}

/* Whether 128 columns of an operand row have a scale of their own. */
static __host__ __device__ __forceinline__ bool few_groups(const few_args &a)
{
    return tsr_cuda_has_groups(a.p.linear[0].format, a.p.linear[0].activation);
}

/* What a warp multiplies. */
typedef struct few_warp {
    product_tile at;
    int32_t tile;  /* of the cluster's */
    int32_t slice; /* of the row */
    product_run run;
    uint32_t barrier;
    uint32_t ring;
    uint32_t rows; /* this lane's operand row, where the slice begins */
} few_warp;

/* By what the host has of a divisor, exact for what is counted here. */
static __device__ __forceinline__ int32_t few_divide(int32_t count, int32_t of)
{
    return count * of >> 16;
}

template <int SPANS>
static __device__ __forceinline__ few_warp few_warp_of(const few_args &a, uint32_t memory,
                                                       int32_t place)
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t row = (SPANS > 1 ? lane / 16 * PRODUCT_COLUMNS : 0) + lane % 8;
    const int32_t within = lane / 8 % (SPANS > 1 ? 2 : 4) * 8;
    few_warp w;

    const int32_t turn = few_divide(warp, a.of_group);

    w.tile = warp - turn * a.group;
    w.slice = cluster_cta() * a.slices + turn;
    const int32_t index = cluster_index() * a.group + w.tile;
    w.at = product_tile_of(a.end, a.p.count, index);
    w.rows = memory + (uint32_t)(a.rows_at + (row * a.pitch + turn * a.cut.columns + within) * 2);
    w.run.units = 0;
    w.barrier = memory + (uint32_t)(warp * FEW_DEPTH * 8);
    w.ring = memory + FEW_BARRIERS + (uint32_t)(warp * a.depth * place);
    if (index < a.end[a.p.count - 1] && w.slice < a.cut.slices) {
        const tsr_linear &l = a.p.linear[w.at.linear];
        const int64_t unit = (int64_t)w.at.tile * a.cut.tile_units + w.slice * a.cut.units;
        w.run.codes = (const unsigned char *)l.weight + unit * PACKED_UNIT;
        w.run.scales = (const unsigned char *)l.scales + unit * PACKED_SCALES;
        w.run.units = min(a.cut.units, a.cut.tile_units - w.slice * a.cut.units);
    }
    tsr_hold(&w.rows);
    return w;
}

/* By all threads: until what the cluster's CTAs send has come. A CTA that is no cluster sends nothing. */
static __device__ __forceinline__ void few_await(const few_args &a, uint32_t barrier)
{
    if (a.cluster == 1)
        __syncthreads();
    else
        barrier_wait_cluster(barrier, 0);
}

/* By one lane: the slice's chunk into a place of the ring, if there is such a chunk. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void few_order(const few_warp &w, int32_t chunk, int32_t place)
{
    const int32_t first = chunk * few_units(FORMAT);
    const int32_t units = min(few_units(FORMAT), w.run.units - first);
    const uint32_t barrier = w.barrier + (uint32_t)place * 8;
    const uint32_t to = w.ring + (uint32_t)(place * few_place(FORMAT));
    const bool scales = FORMAT == TSR_WEIGHT_NVFP4;

    if (units <= 0)
        return;
    barrier_expect(barrier, (uint32_t)(units * (PACKED_UNIT + (scales ? PACKED_SCALES : 0))));
    copy_bulk_once(to, w.run.codes + (int64_t)first * PACKED_UNIT, (uint32_t)(units * PACKED_UNIT),
                   barrier);
    if (scales)
        copy_bulk_once(to + (uint32_t)few_codes(FORMAT),
                       w.run.scales + (int64_t)first * PACKED_SCALES,
                       (uint32_t)(units * PACKED_SCALES), barrier);
}

/* What no kernel in front of this one writes. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void few_begin(const few_args &a, const few_warp &w)
{
    if (threadIdx.x % TSR_CUDA_LANES == 0) {
#pragma unroll 1
        for (int32_t i = 0; i < a.depth; i++)
            barrier_open(w.barrier + (uint32_t)i * 8, 1);
        barriers_opened();
#pragma unroll 1
        for (int32_t i = 0; i < a.depth; i++)
            few_order<FORMAT>(w, i, i);
    }
    __syncwarp();
}

static __device__ __forceinline__ void few_load(uint32_t at, uint32_t &b0, uint32_t &b1,
                                                uint32_t &b2, uint32_t &b3)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b0), "=r"(b1), "=r"(b2), "=r"(b3)
                 : "r"(at));
}

/* Steps of 16 columns whose operands of rows are loaded together: what registers allow. */
static __host__ __device__ __forceinline__ constexpr int few_batch(int spans)
{
    return spans <= 2 ? 8 : 4;
}

/* The operands of rows of STEPS steps from `at` on; a load has two steps, or two spans. */
template <int SPANS, int STEPS>
static __device__ __forceinline__ void few_rows(const few_args &a, uint32_t at,
                                                uint32_t b[STEPS][2 * SPANS])
{
#pragma unroll
    for (int s = 0; s < STEPS; s += SPANS == 1 ? 2 : 1) {
        const uint32_t from = at + (uint32_t)(s * TSR_CUDA_STEP * 2);
        if constexpr (SPANS == 1) {
            few_load(from, b[s][0], b[s][1], b[s + 1][0], b[s + 1][1]);
        } else {
#pragma unroll
            for (int j = 0; j < SPANS; j += 2)
                few_load(from + (uint32_t)(j * PRODUCT_COLUMNS * a.pitch * 2), b[s][2 * j],
                         b[s][2 * j + 1], b[s][2 * j + 2], b[s][2 * j + 3]);
        }
    }
}

/* STEPS of a slice, from `place`, with the operand rows at `at`. */
template <tsr_weight_format FORMAT, int SPANS, int STEPS>
static __device__ __forceinline__ void few_multiply(const few_args &a, uint32_t place, uint32_t at,
                                                    float sum[SPANS][4])
{
    constexpr int each = tsr_packed_columns(FORMAT) / TSR_CUDA_STEP; /* steps of a unit */
    constexpr int batch = few_batch(SPANS) < STEPS ? few_batch(SPANS) : STEPS;
    const uint32_t lane = threadIdx.x % TSR_CUDA_LANES;
    packed_unit unit[STEPS / each];

#pragma unroll
    for (int u = 0; u < STEPS / each; u++) {
        unit[u].codes = shared_load_16(place + lane * 16 + u * PACKED_UNIT);
        if (FORMAT == TSR_WEIGHT_NVFP4)
            unit[u].scales = shared_load_8(place + (uint32_t)few_codes(FORMAT) + lane / 4 * 8 +
                                           u * PACKED_SCALES);
    }
#pragma unroll
    for (int first = 0; first < STEPS; first += batch) {
        uint32_t b[batch][2 * SPANS];
        few_rows<SPANS, batch>(a, at + (uint32_t)(first * TSR_CUDA_STEP * 2), b);
#pragma unroll
        for (int s = 0; s < batch; s++) {
            uint32_t of_weight[4];
            packed_operand<FORMAT>(unit[(first + s) / each], (first + s) % each, of_weight);
#pragma unroll
            for (int j = 0; j < SPANS; j++)
                packed_multiply<FORMAT>(sum[j], of_weight, b[s][2 * j], b[s][2 * j + 1]);
        }
    }
}

/* The warp's slice. */
template <tsr_weight_format FORMAT, int SPANS, bool SCALED>
static __device__ __forceinline__ void few_slice(const few_args &a, const few_warp &w,
                                                 float total[SPANS][4])
{
    const int units = few_units(FORMAT);
    const int steps = FEW_CHUNK / TSR_CUDA_STEP;
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t group = w.slice * a.cut.columns / TSR_CUDA_GROUP;
    const product_operand o = {NULL, few_groups(a) ? a.p.x.group_scale : NULL, a.p.rows, 0};
    uint32_t at = w.rows;
    float sum[SPANS][4] = {};
    int32_t place = 0;
    uint32_t parity = 0;

#pragma unroll
    for (int i = 0; i < SPANS * 4; i++)
        total[i / 4][i % 4] = 0.0F;
#pragma unroll 1
    for (int32_t i = 0; i * units < w.run.units; i++) {
        const uint32_t from = w.ring + (uint32_t)(place * few_place(FORMAT));
        barrier_wait(w.barrier + (uint32_t)place * 8, parity);
        if (w.run.units - i * units >= units)
            few_multiply<FORMAT, SPANS, steps>(a, from, at, sum);
        else
            few_multiply<FORMAT, SPANS, steps / 2>(a, from, at, sum);
        if (SCALED)
            product_join<SPANS>(a.p.linear[w.at.linear], a.cut, o, w.at.tile, group + i, sum,
                                total);
        at += FEW_CHUNK * 2;
        if (a.depth < FEW_DEPTH) {
            __syncwarp();
            if (lane == 0)
                few_order<FORMAT>(w, i + a.depth, place);
        }
        if (++place == a.depth) {
            place = 0;
            parity ^= 1;
        }
    }
    if (!SCALED) {
#pragma unroll
        for (int i = 0; i < SPANS * 4; i++)
            total[i / 4][i % 4] = sum[i / 4][i % 4];
    }
}

#endif
