/*
 * Parts of the kernel that computes the experts of a single row at once (tiles_one_cuda.cu): what its slot
 * asks for, and what its warps order, make and multiply.
 */
#ifndef TSR_KERNELS_CUDA_EXPERTS_ONE_CUDA_CUH
#define TSR_KERNELS_CUDA_EXPERTS_ONE_CUDA_CUH

#include "kernels/cuda/device/async_cuda.cuh"
#include "kernels/cuda/device/told_cuda.cuh"
#include "kernels/cuda/experts/packets_cuda.cuh"
#include "kernels/cuda/experts/tiles_cuda.cuh"
#include "kernels/cuda/operands/stage_cuda.cuh"

enum {
    ONE_WARPS = 16,
    ONE_THREADS = ONE_WARPS * TSR_CUDA_LANES,
    ONE_CTAS = 2, /* of a processor: what registers are cut for, so that others have room beside */
    ONE_ORDERS = 4, /* in which a warp awaits its weights of gate and up */
    ONE_DOWN = 2,   /* that it has of down behind them */
    ONE_KEPT = 2,   /* fours of a row in a thread */
};

/* A product as it is cut. */
typedef struct one_product {
    product_cut cut;
    tsr_linear_kind kind;
    int32_t out;
    int32_t in;
    int32_t tiles;     /* of a CTA */
    int32_t of_slices; /* times 2^-16 instead of divided by slices */
} one_product;

/* Where what a CTA has stands in its dynamic shared memory, in bytes. */
typedef struct one_room {
    int32_t ring_bytes; /* of a warp; the first begins at 0 */
    int32_t scales;     /* of gate and up: one_scales_bytes of each warp */
    int32_t down_scales;
    int32_t row;
    int32_t wide;
    int32_t sums; /* one_sums of each warp */
    int32_t experts;
    int32_t local_of;
    int32_t end;
} one_room;

typedef struct one_args {
    pair_args pairs;
    const tsr_mlp *mlps;
    const float *x;
    float *y;
    uint64_t *wide;       /* [slots, I] */
    uint64_t *sent;       /* [slots, H] answers for who combines them, or NULL */
    uint32_t *number;     /* of the launch; behind it how many CTAs have seen it */
    const uint64_t *told; /* NULL: nobody tells */
    one_product up;       /* gate and up */
    one_product down;
    one_room room;
    int32_t late; /* quarters that are multiplied before down is ordered */
} one_args;

/* A warp's sums with the row. */
typedef float one_sums[2][TSR_CUDA_TILE];

typedef struct one_memory {
    uint32_t peak[2]; /* bits of the largest magnitude of a row */
    float scale[2];
    uint32_t number;
    int32_t told;   /* the slot's expert, likely; local, or -1 */
    int32_t expert; /* what it is; -1: there is nothing to do */
    int32_t answer;
    bool right; /* all that was told */
} one_memory;

static __host__ __device__ __forceinline__ constexpr int32_t
one_most_units(tsr_weight_format format)
{
    return TSR_CUDA_SLICE / tsr_packed_columns(format);
}

/* Units of a place of a ring: of a quarter of a slice of both gate and up, or of down. */
static __host__ __device__ __forceinline__ constexpr int32_t one_place(tsr_weight_format format)
{
    return 2 * one_most_units(format) / ONE_ORDERS;
}

/* Places of a ring: of NVFP4 all of gate and up, else what there is room for beside the kernel in front. */
static __host__ __device__ __forceinline__ constexpr int32_t one_places(tsr_weight_format format)
{
    return format == TSR_WEIGHT_NVFP4 ? ONE_ORDERS : ONE_ORDERS - 1;
}

/* Units of down that a warp orders. */
static __host__ __device__ __forceinline__ constexpr int32_t
one_down_units(tsr_weight_format format)
{
    return ONE_DOWN * one_place(format);
}

static __host__ __device__ __forceinline__ constexpr int32_t
one_scales_bytes(tsr_weight_format format)
{
    return format == TSR_WEIGHT_NVFP4 ? 2 * one_most_units(format) * PACKED_SCALES : 0;
}

/* Which part of a product a warp does. */
typedef struct one_part {
    int32_t tile; /* of the CTA's */
    int32_t slice;
    int32_t units; /* 0: nothing to do */
} one_part;

static __device__ __forceinline__ one_part part_of(const one_product &p)
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    one_part part;

    part.tile = warp * p.of_slices >> 16;
    part.slice = warp - part.tile * p.cut.slices;
    const int32_t tile = (int32_t)blockIdx.x * p.tiles + part.tile;
    part.units = part.tile < p.tiles && tile * TSR_CUDA_TILE < p.out
                     ? min(p.cut.units, p.cut.tile_units - part.slice * p.cut.units)
                     : 0;
    return part;
}

typedef struct one_kept {
    float4 four[ONE_KEPT];
} one_kept;

static __device__ __forceinline__ void keep_row(const one_args &a, one_kept *kept)
{
#pragma unroll
    for (int i = 0; i < ONE_KEPT; i++) {
        const int32_t c = i * ONE_THREADS + (int32_t)threadIdx.x;
        kept->four[i] = 4 * c < a.up.in ? __ldcg((const float4 *)(const void *)a.x + c)
                                        : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
}

/* What is told of the row and the slot's expert, before the kernel in front has ended. False: nobody was
 * in time. */
static __device__ __forceinline__ bool find_told(const one_args &a, const int32_t *local_of,
                                                 one_memory *m, one_kept *kept)
{
    const uint64_t *row = a.told + TSR_CUDA_TOLD;
    uint32_t value = 0;
    bool there = true;

    if (threadIdx.x == 0) {
        m->number = *(volatile uint32_t *)a.number + 1; /* never what nobody has written */
        there = packet_await(row, m->number, TOLD_PATIENCE, &value);
    }
    if (!__syncthreads_and(there))
        return false;
#pragma unroll
    for (int i = 0; i < ONE_KEPT; i++) {
        const int32_t c = i * ONE_THREADS + (int32_t)threadIdx.x;
        kept->four[i] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        if (4 * c < a.up.in)
            there =
                packet_await_four(row + 4 * c, m->number, TOLD_PATIENCE, &kept->four[i]) && there;
    }
    if (threadIdx.x == 0) {
        there = packet_await(a.told + blockIdx.y * TOLD_APART, m->number, TOLD_PATIENCE, &value) &&
                there;
        m->told = value < (uint32_t)a.pairs.experts ? local_of[value] : -1;
    }
    return __syncthreads_and(there) != 0;
}

/* What this CTA's slot asks for, found by one warp when the kernel in front has ended. */
static __device__ __forceinline__ void find_asked(const one_args &a, const int32_t *local_of,
                                                  int32_t told, one_memory *m,
                                                  tsr_cuda_faults faults)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const bool is_slot = lane < a.pairs.slots;
    const bool is_first = blockIdx.x == 0 && blockIdx.y == 0 && lane == 0;
    const int32_t *ids = (const int32_t *)(const void *)(a.pairs.rows + a.pairs.id_at);

    tsr_await_kernel();
    const int32_t id = is_slot ? ids[lane] : -1;
    const int32_t answer = is_slot ? a.pairs.answer_of[lane] : -1;
    const int32_t rows = *a.pairs.row_count;
    const bool is_faulty = tsr_is_faulty(faults);
    const uint32_t number = *(volatile uint32_t *)a.number + 1;
    const bool wanted = answer >= 0 && rows > 0;
    const int32_t local = wanted && id >= 0 && id < a.pairs.experts ? local_of[id] : -1;
    const bool wrong = __any_sync(TSR_ALL_LANES, wanted && local < 0);
    const bool too_many = rows < 0 || rows > a.pairs.max_rows;
    if (!is_faulty && (too_many || wrong) && is_first) {
        const tsr_fault fault = {TSR_FAULT_ROWS, 0, 0, rows, a.pairs.max_rows};
        packet_leave_fault(faults, too_many ? fault : first_fault(a.pairs, rows * a.pairs.slots));
    }
    if (lane == (int32_t)blockIdx.y) {
        m->expert = is_faulty || too_many || wrong ? -1 : local;
        m->answer = answer;
        m->right = local == told && m->number == number;
        m->number = number;
        if (!m->right)
            m->peak[0] = 0;
        packet_number_seen(a.number);
    }
}

/* ---- orders ---- */

/* What a warp orders; addresses are the lane's. */
typedef struct one_orders {
    const unsigned char *codes[2];
    const unsigned char *down;
    uint32_t ring;
    uint32_t down_to;
    int32_t units;
    int32_t down_units; /* left for this warp and those behind it */
} one_orders;

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ one_orders orders_of(const one_args &a, const packet_expert &e,
                                                       const one_part &p, uint32_t memory)
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t tile = (int32_t)blockIdx.x * a.up.tiles + p.tile;
    const int64_t unit = (int64_t)tile * a.up.cut.tile_units + p.slice * a.up.cut.units;
    const int32_t down_tile = (int32_t)blockIdx.x * a.down.tiles;
    const int32_t down_tiles =
        min(a.down.tiles, (a.down.out + TSR_CUDA_TILE - 1) / TSR_CUDA_TILE - down_tile);
    const int64_t down = (int64_t)down_tile * a.down.cut.tile_units + warp * one_down_units(FORMAT);
    const uint32_t scales = memory + (uint32_t)(a.room.scales + warp * one_scales_bytes(FORMAT));
    one_orders o;

    o.ring = memory + (uint32_t)(warp * a.room.ring_bytes + lane * 16);
    o.down_to =
        o.ring + (uint32_t)(ONE_ORDERS % one_places(FORMAT) * one_place(FORMAT) * PACKED_UNIT);
    o.codes[0] = e.codes[0] + unit * PACKED_UNIT + lane * 16;
    o.codes[1] = e.codes[1] + unit * PACKED_UNIT + lane * 16;
    o.down = e.codes[2] + down * PACKED_UNIT + lane * 16;
    o.units = p.units;
    o.down_units = p.tile < a.up.tiles
                       ? down_tiles * a.down.cut.tile_units - warp * one_down_units(FORMAT)
                       : 0;
    if (FORMAT == TSR_WEIGHT_NVFP4 && lane * 16 < p.units * PACKED_SCALES) {
#pragma unroll
        for (int side = 0; side < 2; side++)
            copy_16(scales + (uint32_t)(side * one_most_units(FORMAT) * PACKED_SCALES + lane * 16),
                    e.scales[side] + unit * PACKED_SCALES + lane * 16);
    }
    return o;
}

/* Units FIRST .. END of the two sides, from there on. */
template <int FIRST, int END>
static __device__ __forceinline__ void order_sides(uint32_t to, const one_orders &o)
{
    if constexpr (FIRST < END) {
        if (FIRST < o.units) {
            copy_16_behind<FIRST * PACKED_UNIT>(to, o.codes[0]);
            copy_16_behind<FIRST * PACKED_UNIT>(to + PACKED_UNIT, o.codes[1]);
        }
        order_sides<FIRST + 1, END>(to + 2 * PACKED_UNIT, o);
    }
}

/* A quarter of gate and up into its place. */
template <tsr_weight_format FORMAT, int WHICH>
static __device__ __forceinline__ void order_up(const one_orders &o)
{
    const int half = one_place(FORMAT) / 2;

    order_sides<WHICH * half, WHICH * half + half>(
        o.ring + WHICH % one_places(FORMAT) * one_place(FORMAT) * PACKED_UNIT, o);
}

template <int FIRST, int END>
static __device__ __forceinline__ void order_units(uint32_t to, const one_orders &o)
{
    if constexpr (FIRST < END) {
        if (FIRST < o.down_units)
            copy_16_behind<FIRST * PACKED_UNIT>(to + FIRST * PACKED_UNIT, o.down);
        order_units<FIRST + 1, END>(to, o);
    }
}

/* The next part of down. */
template <tsr_weight_format FORMAT> static __device__ __forceinline__ void order_down(one_orders *o)
{
    order_units<0, one_place(FORMAT)>(o->down_to, *o);
    o->down += one_place(FORMAT) * PACKED_UNIT;
    o->down_to += one_place(FORMAT) * PACKED_UNIT;
    o->down_units -= one_place(FORMAT);
}

/* Scales of down, which all threads order: they are few. */
static __device__ __forceinline__ void order_down_scales(const one_args &a, const packet_expert &e,
                                                         uint32_t memory)
{
    const int32_t tile = (int32_t)blockIdx.x * a.down.tiles;
    const int32_t tiles =
        min(a.down.tiles, (a.down.out + TSR_CUDA_TILE - 1) / TSR_CUDA_TILE - tile);
    const int32_t bytes = tiles * a.down.cut.tile_units * PACKED_SCALES;
    const unsigned char *from = e.scales[2] + (int64_t)tile * a.down.cut.tile_units * PACKED_SCALES;

#pragma unroll 1
    for (int32_t i = (int32_t)threadIdx.x * 16; i < bytes; i += ONE_THREADS * 16)
        copy_16(memory + (uint32_t)(a.room.down_scales + i), from + i);
}

/* ---- rows ---- */

/* Four columns of it. */
template <known_rows ROWS>
static __device__ __forceinline__ uint2 one_four(float4 v, float scale, tsr_divisor by,
                                                 bool quantizes)
{
    const float factor = packet_inverse(scale);

    if (ROWS == FP8_ROWS)
        return tsr_e4m3_four_near(v, by);
    if (ROWS == ANY_ROWS && quantizes)
        return tsr_e4m3_four_once(v, scale);
    return stage_f16(make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor));
}

/* A kept row becomes an operand row, as stage_cuda.cuh makes them; it stands when all have met. */
template <int SIDE, known_rows ROWS>
static __device__ __forceinline__ void make_row(const one_product &p, const packet_expert &e,
                                                one_kept *kept, unsigned char *row, one_memory *m)
{
    const tsr_activation activation = ROWS == PLAIN_ROWS ? TSR_ACTIVATION_NONE
                                      : ROWS == FP8_ROWS ? TSR_ACTIVATION_FP8
                                                         : p.kind.activation;
    float most = 0.0F;
    tsr_linear l = {};

#pragma unroll
    for (int i = 0; i < ONE_KEPT; i++) {
        const int32_t c = i * ONE_THREADS + (int32_t)threadIdx.x;
        if (e.factor[SIDE] != NULL && 4 * c < p.in) {
            const float4 f = __ldg(e.factor[SIDE] + c);
            float4 *v = &kept->four[i];
            *v = make_float4(v->x * f.x, v->y * f.y, v->z * f.z, v->w * f.w);
        }
        most = stage_most(most, kept->four[i]);
    }
    if (activation != TSR_ACTIVATION_FP8) { /* whose scale is known */
        const uint32_t bits = __reduce_max_sync(TSR_ALL_LANES, __float_as_uint(most));
        if (threadIdx.x % TSR_CUDA_LANES == 0 && bits != 0)
            atomicMax(&m->peak[SIDE], bits);
        __syncthreads();
    }
    const float most_of_all = __uint_as_float(m->peak[SIDE]);
    const bool quantizes = activation != TSR_ACTIVATION_NONE;
    const float scale = ROWS == FP8_ROWS ? e.input_scale[SIDE]
                        : quantizes ? packet_scale(activation, e.input_scale[SIDE], most_of_all)
                                    : stage_scale(l, most_of_all);
    const tsr_divisor by = tsr_divisor_of(ROWS == FP8_ROWS ? scale : 1.0F);
#pragma unroll
    for (int i = 0; i < ONE_KEPT; i++) {
        const int32_t c = i * ONE_THREADS + (int32_t)threadIdx.x;
        if (4 * c < p.cut.padded)
            ((uint2 *)(void *)row)[c] = one_four<ROWS>(kept->four[i], scale, by, quantizes);
    }
    if (threadIdx.x == 0)
        m->scale[SIDE] = scale != 0.0F ? scale : 1.0F;
}

static __device__ __forceinline__ void fetch_wide(const one_args &a, uint32_t number,
                                                  one_kept *kept, tsr_cuda_faults faults)
{
    const uint64_t *from = a.wide + (int64_t)blockIdx.y * a.down.in;
    bool there = true;

#pragma unroll
    for (int i = 0; i < ONE_KEPT; i++)
        kept->four[i] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
#pragma unroll
    for (int i = 0; i < ONE_KEPT; i++) {
        const int32_t c = i * ONE_THREADS + (int32_t)threadIdx.x;
        if (4 * c < a.down.in)
            there = packet_await_four(from + 4 * c, number, PACKET_SECONDS * 1000000000ULL,
                                      &kept->four[i]) &&
                    there;
    }
    if (!there) {
        const tsr_fault fault = {TSR_FAULT_WIDE, 0, (int32_t)blockIdx.y, 0, PACKET_SECONDS};
        packet_leave_fault(faults, fault);
    }
}

/* ---- products ---- */

/* A warp's slice of gate and up. Into places that become free goes what it has not ordered yet. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void multiply_up(const one_args &a, one_orders o, uint32_t memory,
                                                   uint32_t operand, float sum[2][1][4])
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int steps = tsr_packed_columns(FORMAT) / TSR_CUDA_STEP; /* of a unit */
    const int32_t half = one_place(FORMAT) / 2;
    uint32_t scales = memory + (uint32_t)(a.room.scales + warp * one_scales_bytes(FORMAT)) +
                      (uint32_t)(lane / 4 * 8);

#pragma unroll 1
    for (int32_t which = 0; which < ONE_ORDERS; which++) {
        uint32_t at =
            o.ring + (uint32_t)(which % one_places(FORMAT) * one_place(FORMAT) * PACKED_UNIT);
        const int32_t end = min(half, o.units - which * half);
        copies_wait<one_places(FORMAT) - 1>();
        __syncwarp();
#pragma unroll 1
        for (int32_t i = 0; i < end; i++) {
            packed_unit unit[2];
#pragma unroll
            for (int side = 0; side < 2; side++) {
                unit[side].codes = shared_load_16(at + side * PACKED_UNIT);
                if (FORMAT == TSR_WEIGHT_NVFP4)
                    unit[side].scales =
                        shared_load_8(scales + side * one_most_units(FORMAT) * PACKED_SCALES);
            }
#pragma unroll
            for (int step = 0; step < steps; step++) {
                uint32_t b[4];
                product_rows(operand + (uint32_t)(step * TSR_CUDA_STEP * 2), 1, b);
#pragma unroll
                for (int side = 0; side < 2; side++) {
                    uint32_t of_weight[4];
                    packed_operand<FORMAT>(unit[side], step, of_weight);
                    packed_multiply<FORMAT>(sum[side][0], of_weight, b[0], b[1]);
                }
            }
            at += 2 * PACKED_UNIT;
            scales += PACKED_SCALES;
            operand += (uint32_t)tsr_packed_columns(FORMAT) * 2;
        }
        __syncwarp();
        if (which + one_places(FORMAT) < ONE_ORDERS)
            order_up<FORMAT, ONE_ORDERS - 1>(o);
        else if (which >= a.late && which < a.late + ONE_DOWN)
            order_down<FORMAT>(&o);
        copies_end();
    }
}

/* A warp's slice of a tile of down, whose units several warps have ordered. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void multiply_down(const one_args &a, const one_part &p,
                                                     uint32_t memory, uint32_t operand,
                                                     float sum[1][4])
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t each = one_down_units(FORMAT);
    const int32_t front = ONE_ORDERS % one_places(FORMAT) * one_place(FORMAT);
    const int32_t first = p.tile * a.down.cut.tile_units + p.slice * a.down.cut.units;

#pragma unroll 1
    for (int32_t n = first; n < first + p.units; n++) {
        packed_unit unit = {};
        unit.codes =
            shared_load_16(memory + (uint32_t)(n / each * a.room.ring_bytes +
                                               (front + n % each) * PACKED_UNIT + lane * 16));
        if (FORMAT == TSR_WEIGHT_NVFP4)
            unit.scales = shared_load_8(
                memory + (uint32_t)(a.room.down_scales + n * PACKED_SCALES + lane / 4 * 8));
        product_unit<FORMAT, 1>(unit, &operand, sum);
    }
}

/* All operand rows of a product are the same one. */
static __device__ __forceinline__ uint32_t operand_at(const one_product &p, const one_part &part,
                                                      const unsigned char *row)
{
    product_operand o = {};

    o.rows = (const uint16_t *)(const void *)row;
    o.count = 1;
    return product_rows_at(o) + (uint32_t)(part.slice * p.cut.columns) * 2;
}

static __device__ __forceinline__ void keep_sums(const float sum[4], float *to)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);

    if (lane % 4 == 0) { /* those with operand row 0 */
        to[lane / 4] = sum[0];
        to[lane / 4 + 8] = sum[2];
    }
}

/* What a thread's sums become values by: of a row of gate and of up, or of down. */
typedef struct one_ends {
    float scale[2];
    float bias[2];
    int32_t row; /* of the weight; -1: the thread has none */
} one_ends;

template <int FIRST, int SIDES>
static __device__ __forceinline__ one_ends ends_of(const one_product &p, const packet_expert &e)
{
    const int32_t mine = (int32_t)threadIdx.x;
    const int32_t row = (int32_t)blockIdx.x * p.tiles * TSR_CUDA_TILE + mine;
    one_ends ends;

    ends.row = mine < p.tiles * TSR_CUDA_TILE && row < p.out ? row : -1;
#pragma unroll
    for (int side = 0; side < SIDES; side++) {
        const float *bias = e.bias[FIRST + side];
        const bool channel = ends.row >= 0 && p.kind.format == TSR_WEIGHT_FP8_CHANNEL;
        const float by = channel ? ((const float *)(const void *)e.scales[FIRST + side])[row]
                                 : packed_left(p.kind.format);
        ends.scale[side] = by * e.weight_scale[FIRST + side];
        ends.bias[side] = ends.row >= 0 && bias != NULL ? bias[row] : -0.0F;
    }
    return ends;
}

/* Sums of slices in order, then a value. Nothing changes by adding -0. */
static __device__ __forceinline__ float value_of(const one_product &p, const one_ends &e, int side,
                                                 float scale, const one_sums *sums)
{
    const int32_t tile = (int32_t)threadIdx.x / TSR_CUDA_TILE;
    const one_sums *of = sums + tile * p.cut.slices;
    float y = of[0][side][threadIdx.x % TSR_CUDA_TILE];

#pragma unroll 1
    for (int32_t s = 1; s < p.cut.slices; s++)
        y += of[s][side][threadIdx.x % TSR_CUDA_TILE];
    return __fadd_rn(__fmul_rn(y, __fmul_rn(scale, e.scale[side])), e.bias[side]);
}

#endif
