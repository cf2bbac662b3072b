/*
 * The sums of a few rows with a weight: up to 16 operand rows in shared memory meet tiles of 16 rows
 * of the weight, which come straight into registers (packed_cuda.cuh).
 *
 * The order of additions depends on the width alone, whoever computes them (a tile here, a large
 * product elsewhere): K is cut into slices of at most 512 columns, as equal as multiples of 128
 * allow. A slice is a chain of tensor-core steps of 16 columns in ascending order; slices are added
 * in ascending order:
 *
 *   768   | 384 | 384 |        1408   | 512 | 512 | 384 |        2048   | 512 | 512 | 512 | 512 |
 *
 * Where 128 columns share a scale, a chain ends after them: its sum times the scale joins the slice.
 *
 * A warp computes a slice of a tile. It keeps a few units of the weight on their way, and
 * goes from the end of one tile to the beginning of the next without a pause:
 *
 *   ring   | unit | unit | .. |    multiply the oldest, fetch another into its place
 */
#ifndef TSR_KERNELS_CUDA_OPERANDS_PRODUCT_CUDA_CUH
#define TSR_KERNELS_CUDA_OPERANDS_PRODUCT_CUDA_CUH

#include "kernels/cuda/device/block_cuda.cuh"
#include "kernels/cuda/operands/packed_cuda.cuh"
#include "kernels/cuda/operands/rows_cuda.cuh"

enum {
    PRODUCT_TOKENS = 16, /* most operand rows of a tile */
    PRODUCT_COLUMNS = 8, /* operand rows of one instruction */
    PRODUCT_PAD = 8, /* elements behind an operand row in shared memory, against bank conflicts */
    PRODUCT_ROOM = 160 * 1024, /* most shared memory for operand rows, bytes */
};

/* Operand rows that one CTA takes of so many: all, up to 16, that it has room for. */
static inline int32_t product_together(int32_t in, int32_t rows)
{
    int32_t most = PRODUCT_TOKENS;

    while (most > 1 && most * (tsr_cuda_padded(in) + PRODUCT_PAD) * 2 > PRODUCT_ROOM)
        most /= 2;
    return rows < most ? rows : most;
}

/* Sums of one warp, a word more a token against bank conflicts. */
typedef float product_token_sums[TSR_CUDA_TILE + 1]; /* of a token: [row of the tile] */

/* Bytes of a warp's sums with so many operand rows. */
static inline size_t product_sums_bytes(int32_t rows)
{
    const int32_t tokens = rows <= PRODUCT_COLUMNS ? PRODUCT_COLUMNS : PRODUCT_TOKENS;

    return (size_t)tokens * sizeof(product_token_sums);
}

/* How a row of so many columns is cut. */
static __host__ __device__ __forceinline__ int32_t tsr_slice_columns(int32_t in)
{
    const int32_t count = (in + TSR_CUDA_SLICE - 1) / TSR_CUDA_SLICE;
    const int32_t equal = (in + count - 1) / count;

    return (equal + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP * TSR_CUDA_GROUP;
}

static __host__ __device__ __forceinline__ int32_t tsr_slices_of(int32_t in)
{
    const int32_t columns = tsr_slice_columns(in);

    return (in + columns - 1) / columns;
}

/* The same, counted once by the host. */
typedef struct product_cut {
    int32_t slices;
    int32_t columns;    /* of a slice, but for the last */
    int32_t padded;     /* columns of a row */
    int32_t units;      /* of a slice, but for the last */
    int32_t tile_units; /* of a tile */
    int32_t groups;     /* of 128 columns in a row */
} product_cut;

static inline product_cut product_cut_of(tsr_weight_format format, int32_t in)
{
    product_cut c;

    c.slices = tsr_slices_of(in);
    c.columns = tsr_slice_columns(in);
    c.padded = tsr_cuda_padded(in);
    c.units = c.columns / tsr_packed_columns(format);
    c.tile_units = c.padded / tsr_packed_columns(format);
    c.groups = (in + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP;
    return c;
}

/* A tile of one of the linears of a product. */
typedef struct product_tile {
    int32_t linear;
    int32_t tile; /* of the linear */
} product_tile;

/* `end`: tiles up to and with each linear. */
static __device__ __forceinline__ product_tile
product_tile_of(const int32_t (&end)[TSR_MAX_LINEARS], int32_t linears, int32_t index)
{
    product_tile t = {0, index};

#pragma unroll
    for (int i = 1; i < TSR_MAX_LINEARS; i++) {
        if (i < linears && index >= end[i - 1]) {
            t.linear = i;
            t.tile = index - end[i - 1];
        }
    }
    return t;
}

/* Units on their way to a warp: what registers allow. */
static __device__ __forceinline__ constexpr int product_depth(tsr_weight_format format)
{
    return format == TSR_WEIGHT_NVFP4 ? 4 : 8;
}

/* A slice of a tile, as a lane reads it. */
typedef struct product_run {
    const unsigned char *codes;
    const unsigned char *scales;
    int32_t units; /* 0: nothing to do */
} product_run;

static __device__ __forceinline__ product_run product_run_of(const tsr_linear &l,
                                                             const product_cut &c, int32_t tile,
                                                             int32_t slice)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int64_t unit = (int64_t)tile * c.tile_units + slice * c.units;
    product_run run;

    run.codes = (const unsigned char *)l.weight + unit * PACKED_UNIT + lane * 16;
    run.scales = (const unsigned char *)l.scales + unit * PACKED_SCALES + lane / 4 * 8;
    run.units = min(c.units, c.tile_units - slice * c.units);
    return run;
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void product_fetch(const product_run &run, int32_t unit,
                                                     packed_unit *to)
{
    if (unit >= run.units)
        return;
    to->codes = packed_load(run.codes + (int64_t)unit * PACKED_UNIT);
    if (FORMAT == TSR_WEIGHT_NVFP4)
        to->scales = packed_load_scales(run.scales + (int64_t)unit * PACKED_SCALES);
}

/* The first units of a run into the ring. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void product_begin(const product_run &run, packed_unit *ring)
{
#pragma unroll
    for (int i = 0; i < product_depth(FORMAT); i++)
        product_fetch<FORMAT>(run, i, &ring[i]);
}

/* The B operands of one step of up to 16 operand rows. */
static __device__ __forceinline__ void product_rows(uint32_t at, int spans, uint32_t b[4])
{
    if (spans == 1)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                     : "=r"(b[0]), "=r"(b[1])
                     : "r"(at));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                     : "r"(at));
}

/* Operand rows in shared memory. */
typedef struct product_operand {
    const uint16_t *rows;     /* [count], pitch elements apart */
    const float *group_scale; /* of the first row, groups apart; NULL: there are none */
    int32_t count;            /* 1..PRODUCT_TOKENS */
    int32_t pitch;
} product_operand;

/* Where a lane reads its operands, of the first step. Rows beyond the last are read as the last;
 * their sums are never looked at. */
static __device__ __forceinline__ uint32_t product_rows_at(const product_operand &o)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t row = min(lane / 16 * PRODUCT_COLUMNS + lane % 8, o.count - 1);
    const uint16_t *from = o.rows + row * o.pitch + lane / 8 % 2 * 8;

    return (uint32_t)__cvta_generic_to_shared(from);
}

/* The end of 128 columns: part times their scales joins the sums. */
template <int SPANS>
static __device__ __forceinline__ void
product_join(const tsr_linear &l, const product_cut &c, const product_operand &o, int32_t tile,
             int32_t group, float part[SPANS][4], float sum[SPANS][4])
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int64_t block = (int64_t)(tile * TSR_CUDA_TILE / TSR_CUDA_GROUP) * c.groups + group;
    const float of_weight =
        l.format == TSR_WEIGHT_FP8_BLOCK ? ((const float *)l.scales)[block] : 1.0F;

    for (int j = 0; j < SPANS; j++) {
        for (int i = 0; i < 4; i++) {
            const int32_t token = min(j * PRODUCT_COLUMNS + 2 * (lane % 4) + i % 2, o.count - 1);
            const float of_row =
                o.group_scale != NULL ? o.group_scale[(int64_t)token * c.groups + group] : 1.0F;
            sum[j][i] = fmaf(part[j][i], of_weight * of_row, sum[j][i]);
            part[j][i] = 0.0F;
        }
    }
}

/* What a warp multiplies now, and what it fetches meanwhile. */
typedef struct product_task {
    product_run run;
    product_run next;
    int32_t tile;
    int32_t slice;
} product_task;

/* One unit of the ring with the operand rows at `at`, which moves on. */
template <tsr_weight_format FORMAT, int SPANS>
static __device__ __forceinline__ void product_unit(const packed_unit &unit, uint32_t *at,
                                                    float sum[SPANS][4])
{
#pragma unroll
    for (int step = 0; step < tsr_packed_columns(FORMAT) / TSR_CUDA_STEP; step++) {
        uint32_t a[4];
        uint32_t b[4];
        packed_operand<FORMAT>(unit, step, a);
        product_rows(*at + (uint32_t)(step * TSR_CUDA_STEP * 2), SPANS, b);
        for (int j = 0; j < SPANS; j++)
            packed_multiply<FORMAT>(sum[j], a, b[2 * j], b[2 * j + 1]);
    }
    *at += (uint32_t)tsr_packed_columns(FORMAT) * 2;
}

/* As many units of a run, from `first` on, as there are places, into the ring. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void product_refill(const product_run &run, int32_t first, int i,
                                                      bool is_full, packed_unit *to)
{
    if (is_full || first + i < run.units) {
        to->codes = packed_load(run.codes + (int64_t)first * PACKED_UNIT + i * PACKED_UNIT);
        if (FORMAT == TSR_WEIGHT_NVFP4)
            to->scales =
                packed_load_scales(run.scales + (int64_t)first * PACKED_SCALES + i * PACKED_SCALES);
    }
}

/* Multiplies a run out of the ring, whose places go to the units of the next as they become free. A
 * lane gets what it holds of the instruction's result: of rows g and g + 8 of the tile with operand
 * rows 2 t and 2 t + 1, and so on eight further. */
template <tsr_weight_format FORMAT, int SPANS, bool SCALED>
static __device__ __forceinline__ void
product_chain(const tsr_linear &l, const product_cut &c, const product_operand &o,
              const product_task &task, packed_unit *ring, float total[SPANS][4])
{
    const int depth = product_depth(FORMAT);
    const int group_units = TSR_CUDA_GROUP / tsr_packed_columns(FORMAT);
    const int32_t first_group = task.slice * c.columns / TSR_CUDA_GROUP;
    const int32_t units = task.run.units;
    uint32_t at = product_rows_at(o) + (uint32_t)(task.slice * c.columns) * 2;
    float sum[SPANS][4] = {};

    for (int j = 0; j < SPANS; j++) {
        for (int k = 0; k < 4; k++)
            total[j][k] = 0.0F;
    }
    if (units == 0)
        product_begin<FORMAT>(task.next, ring);
    for (int32_t first = 0; first < units; first += depth) {
        const bool is_last = first + depth >= units;
        product_run from; /* chosen field by field: it stays in registers */
        from.codes = is_last ? task.next.codes : task.run.codes;
        from.scales = is_last ? task.next.scales : task.run.scales;
        from.units = is_last ? task.next.units : task.run.units;
        const int32_t fetched = is_last ? 0 : first + depth;
        const bool is_full = fetched + depth <= from.units;
        if (!SCALED && first + depth <= units) {
#pragma unroll
            for (int i = 0; i < depth; i++) {
                product_unit<FORMAT, SPANS>(ring[i], &at, sum);
                product_refill<FORMAT>(from, fetched, i, is_full, &ring[i]);
            }
            continue;
        }
#pragma unroll
        for (int i = 0; i < depth; i++) {
            if (first + i < units) {
                product_unit<FORMAT, SPANS>(ring[i], &at, sum);
                if (SCALED && ((i + 1) % group_units == 0 || first + i + 1 == units))
                    product_join<SPANS>(l, c, o, task.tile, first_group + (first + i) / group_units,
                                        sum, total);
            }
            product_refill<FORMAT>(from, fetched, i, is_full, &ring[i]);
        }
    }
    for (int j = 0; j < SPANS; j++) {
        for (int k = 0; k < 4; k++)
            total[j][k] = SCALED ? total[j][k] : sum[j][k];
    }
}

/* A run's sums into shared memory. */
template <int SPANS>
static __device__ __forceinline__ void product_keep(const float sum[SPANS][4],
                                                    product_token_sums *sums)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);

    for (int j = 0; j < SPANS; j++) {
        for (int i = 0; i < 4; i++)
            sums[j * PRODUCT_COLUMNS + 2 * (lane % 4) + i % 2][lane / 4 + 8 * (i / 2)] = sum[j][i];
    }
}

/* What the sum of a row of the weight is multiplied with, beside the operand row's scale. */
static __device__ __forceinline__ float product_row_scale(const tsr_linear &l, int32_t row)
{
    return l.format == TSR_WEIGHT_FP8_CHANNEL ? ((const float *)l.scales)[row] * l.weight_scale
                                              : l.weight_scale * packed_left(l.format);
}

/* From a whole sum to a value: scales, bias. */
static __device__ __forceinline__ float product_value(const tsr_linear &l, float sum, int32_t row,
                                                      float of_token)
{
    sum = __fmul_rn(sum, __fmul_rn(of_token, product_row_scale(l, row)));
    return l.bias != NULL ? __fadd_rn(sum, l.bias[row]) : sum;
}

/* The same of sums of slices, added in order. `sums` are those of a token with the first slice of a
 * tile, those with the next `apart` further on. */
static __device__ __forceinline__ float product_finish(const tsr_linear &l,
                                                       const product_token_sums *sums,
                                                       int32_t apart, int32_t slices, int32_t tile,
                                                       int32_t row, float of_token)
{
    float sum = sums[0][row];

    for (int32_t s = 1; s < slices; s++)
        sum += sums[s * apart][row];
    return product_value(l, sum, tile * TSR_CUDA_TILE + row, of_token);
}

/* Whether 128 columns share a scale. */
static __host__ __device__ __forceinline__ bool product_is_scaled(tsr_weight_format format,
                                                                  tsr_activation activation)
{
    return format == TSR_WEIGHT_FP8_BLOCK || tsr_cuda_has_groups(format, activation);
}

#endif
