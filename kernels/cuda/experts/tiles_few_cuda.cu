/*
 * Products of experts that few pairs ask for, where what counts is how soon memory is at work and how
 * little code runs before: a CTA has one product of a few rows of weights, orders all of them at once
 * and ends.
 *
 *   grid    slot 0: rows | rows | ..    slot 1: rows | rows | ..       the CTAs of a slot have its expert
 *   warps   gate: slice 0, 1, .. | up: slice 0, 1, ..                  of the same rows of both, or
 *           rows 0: slice 0, 1, .. | rows 1: slice 0, 1, ..            of neighbours, of down
 *
 * Nothing is sorted: the first of the slots that ask for an expert has those of all, up to so many;
 * the CTAs of the others end. What experts there are is near before it is known which are asked for.
 */
#include "kernels/cuda/device/async_cuda.cuh"
#include "kernels/cuda/experts/tiles_cuda.cuh"
#include "kernels/cuda/operands/stage_cuda.cuh"

enum {
    FEW_WARPS = 8,    /* of a CTA, most often */
    FEW_BOUND = 1024, /* threads of a multiprocessor: what registers are cut for */
    FEW_ORDERS = 4,   /* in which a warp awaits its weights */
    FEW_PITCH = 20,   /* words of a token's sums with a tile, against bank conflicts */
    FEW_KEPT = 2,     /* fours of a row in a thread that makes operands */
    FEW_TOGETHER = 4, /* pairs of an expert */
    FEW_SLICES = 8,   /* most of a row of gate and up, and of down */
    FEW_DOWN_SLICES = 4,
    FEW_SLOT_NONE = -1,  /* no answer is wanted */
    FEW_SLOT_WRONG = -2, /* its expert is not here */
};

typedef struct few_args {
    pair_args pairs;
    const tsr_mlp *mlps;
    const float *x;
    int64_t x_stride;
    float *y;
    product_cut cut;
    tsr_linear_kind kind;
    int32_t most; /* slots */
    int32_t out;
    int32_t in;
    int32_t beside;      /* tiles that a CTA has, of one side: a power of two */
    int32_t column_bits; /* so many bits count the rows of these */
    int32_t of_slices;   /* times 2^-16 instead of divided by slices, and by K */
    int32_t of_slots;
    int32_t ring_bytes; /* of a warp */
} few_args;

/* A warp's sums with its tile, where its weights were. */
typedef float few_sums[PRODUCT_COLUMNS][FEW_PITCH];

/* What is needed of an expert's linears before its weights are ordered. */
typedef struct few_expert {
    const unsigned char *codes[2]; /* of gate and up, or of down */
    const unsigned char *scales[2];
    const float4 *factor; /* of operand rows, or NULL */
    float input_scale;
} few_expert;

/* What a CTA keeps beside operand rows and weights. */
typedef struct few_memory {
    float scale[PRODUCT_COLUMNS];
    uint32_t peak[PRODUCT_COLUMNS]; /* bits of the largest magnitude of a row */
    int32_t slot[PRODUCT_COLUMNS];  /* of its pairs */
    int32_t answer[PRODUCT_COLUMNS];
} few_memory;

/*
 * Dynamic shared memory:
 *
 *   ring of warp 0 | ring of warp 1 | .. | operand rows | experts [local] | local_of [E] | id, answer [slots]
 */
typedef struct few_room {
    unsigned char *ring;
    unsigned char *rows;
    few_expert *experts;
    int32_t *local_of;
    int32_t *id; /* of each slot's expert, as is the next */
    int32_t *answer;
} few_room;

static __host__ __device__ __forceinline__ int32_t few_row_bytes(const few_args &a)
{
    return (a.cut.padded + PRODUCT_PAD) * (int32_t)sizeof(uint16_t);
}

static __device__ __forceinline__ few_room room_of(const few_args &a, unsigned char *memory)
{
    few_room r;

    r.ring = memory;
    r.rows = r.ring + (int32_t)(blockDim.x / TSR_CUDA_LANES) * a.ring_bytes;
    r.experts = (few_expert *)(void *)(r.rows + a.pairs.together * few_row_bytes(a));
    r.local_of = (int32_t *)(void *)(r.experts + a.pairs.local);
    r.id = r.local_of + a.pairs.experts;
    r.answer = r.id + a.most;
    return r;
}

static size_t room_bytes(const few_args &a, int32_t warps)
{
    const size_t words = (size_t)a.pairs.experts + 2 * (size_t)a.most;

    return (size_t)(warps * a.ring_bytes + a.pairs.together * few_row_bytes(a)) +
           (size_t)a.pairs.local * sizeof(few_expert) + words * sizeof(int32_t);
}

/* A small number over another, of which `of` is 2^16 over it, rounded up. */
static __device__ __forceinline__ int32_t few_times(int32_t number, int32_t of)
{
    return number * of >> 16;
}

/* Which part of the CTA's work a warp does. */
typedef struct few_part {
    int32_t side;
    int32_t tile; /* of the weight */
    int32_t slice;
} few_part;

template <bool DOWN> static __device__ __forceinline__ few_part place_of(const few_args &a)
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t which = few_times(warp, a.of_slices);
    few_part p;

    p.slice = warp - which * a.cut.slices;
    p.side = DOWN ? 0 : which;
    p.tile = DOWN ? (int32_t)blockIdx.x * a.beside + which : (int32_t)blockIdx.x;
    return p;
}

/* Tables, which no kernel in front writes. */
template <bool DOWN>
static __device__ __forceinline__ void tables_near(const few_args &a, const few_room &r,
                                                   few_memory *m)
{
#pragma unroll 1
    for (int32_t e = (int32_t)threadIdx.x; e < a.pairs.local; e += (int32_t)blockDim.x) {
        const tsr_mlp &mlp = a.mlps[e];
        const tsr_linear &first = DOWN ? mlp.down : mlp.gate;
        few_expert near;
        near.codes[0] = (const unsigned char *)first.weight;
        near.scales[0] = (const unsigned char *)first.scales;
        near.codes[1] = (const unsigned char *)mlp.up.weight;
        near.scales[1] = (const unsigned char *)mlp.up.scales;
        near.factor = (const float4 *)(const void *)first.pre_quant_scale;
        near.input_scale = first.input_scale;
        r.experts[e] = near;
    }
#pragma unroll 1
    for (int32_t e = (int32_t)threadIdx.x; e < a.pairs.experts; e += (int32_t)blockDim.x)
        r.local_of[e] = a.pairs.local_of[e];
    if (threadIdx.x < PRODUCT_COLUMNS)
        m->peak[threadIdx.x] = 0;
}

/* What each slot asks for. Returns whether there are as many rows as there may be. */
static __device__ __forceinline__ bool find_slots(const few_args &a, const few_room &r,
                                                  tsr_cuda_faults faults, bool leaves)
{
    const bool is_faulty = tsr_is_faulty(faults);
    const int32_t rows = *a.pairs.row_count;

#pragma unroll 1
    for (int32_t i = (int32_t)threadIdx.x; i < a.most; i += (int32_t)blockDim.x) {
        const int32_t answer = a.pairs.answer_of[i];
        const int32_t row = few_times(i, a.of_slots);
        const unsigned char *ids = a.pairs.rows + row * a.pairs.row_bytes + a.pairs.id_at;
        const int32_t id = ((const int32_t *)(const void *)ids)[i - row * a.pairs.slots];
        const bool wanted = answer >= 0 && i < rows * a.pairs.slots;
        const bool is = id >= 0 && id < a.pairs.experts;
        r.id[i] = !wanted ? FEW_SLOT_NONE : is ? id : FEW_SLOT_WRONG;
        r.answer[i] = answer;
    }
    if (!is_faulty && rows >= 0 && rows <= a.pairs.max_rows)
        return true;
    if (!is_faulty && leaves && threadIdx.x == 0) {
        const tsr_fault too_many = {TSR_FAULT_ROWS, 0, 0, rows, a.pairs.max_rows};
        tsr_leave_fault(faults, too_many);
    }
    return false;
}

/* The pairs of this CTA, whose slot asks for `mine`; every warp counts them. */
typedef struct few_found {
    int32_t count; /* 0: nothing to do */
    bool wrong;    /* some slot asks for an expert that is not here */
} few_found;

static __device__ __forceinline__ few_found find_pairs(const few_args &a, const few_room &r,
                                                       int32_t slot, few_memory *m)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const uint32_t before = (1U << lane) - 1;
    const int32_t mine = r.id[slot];
    few_found f = {0, false};
    int32_t rank = 0; /* of this CTA's slot */
    int32_t all = 0;

#pragma unroll 1
    for (int32_t first = 0; first < a.most; first += TSR_CUDA_LANES) {
        const int32_t i = first + lane;
        const int32_t id = i < a.most ? r.id[i] : (int32_t)FEW_SLOT_NONE;
        const bool wrong = id == FEW_SLOT_WRONG || (id >= 0 && r.local_of[id] < 0);
        const uint32_t alike = __ballot_sync(TSR_ALL_LANES, id == mine);
        f.wrong = f.wrong || __any_sync(TSR_ALL_LANES, wrong);
        if (first <= slot)
            rank =
                all + __popc(alike & (slot - first >= TSR_CUDA_LANES ? TSR_ALL_LANES
                                                                     : (1U << (slot - first)) - 1));
        const int32_t at = all + __popc(alike & before) - rank;
        /* Lanes behind the last slot are as those that want nothing. */
        if (threadIdx.x < TSR_CUDA_LANES && id >= 0 && id == mine && i >= slot &&
            at < a.pairs.together) {
            m->slot[at] = i;
            m->answer[at] = r.answer[i];
        }
        all += __popc(alike);
    }
    if (mine >= 0 && rank % a.pairs.together == 0)
        f.count = min(all - rank, a.pairs.together);
    return f;
}

static __device__ __forceinline__ constexpr int32_t few_most_units(tsr_weight_format format)
{
    return TSR_CUDA_SLICE / tsr_packed_columns(format);
}

/* All weights of a warp. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void order(const few_args &a, const few_expert &e,
                                             const few_part &p, int32_t units, uint32_t ring)
{
    const int most = few_most_units(FORMAT);
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int64_t unit = (int64_t)p.tile * a.cut.tile_units + p.slice * a.cut.units;
    const unsigned char *codes = e.codes[p.side] + unit * PACKED_UNIT + lane * 16;

    if (FORMAT == TSR_WEIGHT_NVFP4 && lane * 16 < units * PACKED_SCALES)
        copy_16_once(ring + (uint32_t)(most * PACKED_UNIT + lane * 16),
                     e.scales[p.side] + unit * PACKED_SCALES + lane * 16);
#pragma unroll
    for (int u = 0; u < most; u++) {
        if (u < units)
            copy_16_once(ring + (uint32_t)(u * PACKED_UNIT + lane * 16), codes + u * PACKED_UNIT);
        if ((u + 1) % (most / FEW_ORDERS) == 0)
            copies_end();
    }
}

/* Until the weights of that order are there. */
static __device__ __forceinline__ void await_order(int32_t which)
{
    if (which == 0)
        copies_wait<3>();
    else if (which == 1)
        copies_wait<2>();
    else if (which == 2)
        copies_wait<1>();
    else
        copies_wait<0>();
    __syncwarp();
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void multiply(int32_t units, uint32_t ring, uint32_t operand,
                                                float sum[1][4])
{
    const int most = few_most_units(FORMAT);
    const uint32_t lane = threadIdx.x % TSR_CUDA_LANES;

#pragma unroll 1
    for (int32_t u = 0; u < units; u++) {
        packed_unit unit = {};
        if (u % (most / FEW_ORDERS) == 0)
            await_order(u / (most / FEW_ORDERS));
        unit.codes = shared_load_16(ring + (uint32_t)u * PACKED_UNIT + lane * 16);
        if (FORMAT == TSR_WEIGHT_NVFP4)
            unit.scales = shared_load_8(ring + (uint32_t)(most * PACKED_UNIT) +
                                        (uint32_t)u * PACKED_SCALES + lane / 4 * 8);
        product_unit<FORMAT, 1>(unit, &operand, sum);
    }
}

typedef struct few_kept {
    float4 four[FEW_KEPT];
} few_kept;

/* The row of a slot, as it is. */
template <bool DOWN>
static __device__ __forceinline__ void fetch_row(const few_args &a, int32_t slot, few_kept *kept)
{
    const int64_t at = (DOWN ? slot : few_times(slot, a.of_slots)) * a.x_stride;
    const float4 *row = (const float4 *)(const void *)(a.x + at);

#pragma unroll
    for (int i = 0; i < FEW_KEPT; i++) {
        const int32_t c = i * (int32_t)blockDim.x + (int32_t)threadIdx.x;
        kept->four[i] = 4 * c < a.in ? __ldcg(row + c) : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
}

/* As stage_cuda.cuh makes rows, of one row that is kept. */
static __device__ __forceinline__ void make_row(const few_args &a, few_memory *m, int32_t pair,
                                                const few_expert &by, few_kept *kept,
                                                unsigned char *rows)
{
    uint2 *to = (uint2 *)(void *)(rows + pair * few_row_bytes(a)) + threadIdx.x;
    float most = 0.0F;

#pragma unroll
    for (int i = 0; i < FEW_KEPT; i++) {
        const int32_t c = i * (int32_t)blockDim.x + (int32_t)threadIdx.x;
        if (by.factor != NULL && 4 * c < a.in) {
            const float4 f = __ldg(by.factor + c);
            float4 *v = &kept->four[i];
            *v = make_float4(v->x * f.x, v->y * f.y, v->z * f.z, v->w * f.w);
        }
        most = stage_most(most, kept->four[i]);
    }
    const uint32_t bits = __reduce_max_sync(TSR_ALL_LANES, __float_as_uint(most));
    if (threadIdx.x % TSR_CUDA_LANES == 0)
        atomicMax(&m->peak[pair], bits);
    __syncthreads();
    tsr_linear l = {};
    l.format = a.kind.format;
    l.activation = a.kind.activation;
    l.input_scale = by.input_scale;
    const float scale = stage_scale(l, __uint_as_float(m->peak[pair]));
    const float factor = scale != 0.0F ? 1.0F / scale : 0.0F;
#pragma unroll
    for (int i = 0; i < FEW_KEPT; i++) {
        const int32_t c = i * (int32_t)blockDim.x + (int32_t)threadIdx.x;
        const float4 v = kept->four[i];
        if (4 * c >= a.cut.padded)
            continue;
        if (a.kind.activation == TSR_ACTIVATION_NONE || scale == 0.0F)
            to[i * blockDim.x] =
                stage_f16(make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor));
        else
            to[i * blockDim.x] = tsr_e4m3_four_once(v, scale);
    }
    if (threadIdx.x == 0)
        m->scale[pair] = scale != 0.0F ? scale : 1.0F;
}

/* Operand rows of all pairs, of which the first has been fetched; seldom there is another. */
template <bool DOWN>
static __device__ __forceinline__ void make_rows(const few_args &a, few_memory *m, int32_t count,
                                                 const few_expert &by, few_kept *kept,
                                                 unsigned char *rows)
{
#pragma unroll 1
    for (int32_t pair = 0; pair < count; pair++) {
        if (pair > 0)
            fetch_row<DOWN>(a, m->slot[pair], kept);
        make_row(a, m, pair, by, kept, rows);
    }
}

/* What sums with a row of the weights become values by; a thread's row is always the same. */
typedef struct few_ends {
    float scale[2];
    float bias[2];
    int32_t column; /* of the CTA */
    int32_t row;    /* of the weight */
} few_ends;

/* What is needed of them after. */
typedef struct few_linears {
    const float *scales[2]; /* of channels */
    const float *bias[2];
    float weight_scale[2];
} few_linears;

template <bool DOWN>
static __device__ __forceinline__ few_linears linears_of(const few_args &a, int32_t expert)
{
    const tsr_mlp &mlp = a.mlps[expert];
    const tsr_linear &first = DOWN ? mlp.down : mlp.gate;
    few_linears l;

#pragma unroll
    for (int side = 0; side < (DOWN ? 1 : 2); side++) {
        const tsr_linear &of = side == 0 ? first : mlp.up;
        l.scales[side] = (const float *)of.scales;
        l.bias[side] = of.bias;
        l.weight_scale[side] = of.weight_scale;
    }
    return l;
}

template <bool DOWN>
static __device__ __forceinline__ few_ends ends_of(const few_args &a, const few_linears &l)
{
    const int32_t columns = a.beside * TSR_CUDA_TILE;
    few_ends e;

    e.column = (int32_t)threadIdx.x & (columns - 1);
    e.row = (int32_t)blockIdx.x * columns + e.column;
#pragma unroll
    for (int side = 0; side < (DOWN ? 1 : 2); side++) {
        const bool is = e.row < a.out;
        const bool channel = is && a.kind.format == TSR_WEIGHT_FP8_CHANNEL;
        const float by = channel ? l.scales[side][e.row] : packed_left(a.kind.format);
        e.scale[side] = by * l.weight_scale[side];
        e.bias[side] = is && l.bias[side] != NULL ? l.bias[side][e.row] : -0.0F;
    }
    return e;
}

/* Sums of slices in order, then values. Nothing changes by adding -0. */
template <bool DOWN>
static __device__ __forceinline__ void finish(const few_args &a, const few_memory &m,
                                              const few_ends &e, int32_t count,
                                              const unsigned char *ring)
{
    const int32_t columns = a.beside * TSR_CUDA_TILE;

    if (e.row >= a.out)
        return;
    for (int32_t i = (int32_t)threadIdx.x; i < columns * count; i += (int32_t)blockDim.x) {
        const int32_t token = i >> a.column_bits;
        float y[2] = {};
#pragma unroll
        for (int side = 0; side < (DOWN ? 1 : 2); side++) {
            const int32_t warp = (DOWN ? e.column / TSR_CUDA_TILE : side) * a.cut.slices;
#pragma unroll 1
            for (int32_t s = 0; s < a.cut.slices; s++) {
                const few_sums *sums =
                    (const few_sums *)(const void *)(ring + (warp + s) * a.ring_bytes);
                const float sum = (*sums)[token][e.column % TSR_CUDA_TILE];
                y[side] = s == 0 ? sum : y[side] + sum;
            }
            y[side] = __fadd_rn(__fmul_rn(y[side], __fmul_rn(m.scale[token], e.scale[side])),
                                e.bias[side]);
        }
        float *to = DOWN ? tsr_cuda_row(a.pairs.into, a.y, m.answer[token], a.out)
                         : a.y + (int64_t)m.slot[token] * a.out;
        to[e.row] = DOWN ? y[0] : __fmul_rn(tsr_silu(y[0]), y[1]);
    }
}

template <tsr_weight_format FORMAT, bool DOWN>
static __global__ void __launch_bounds__(FEW_BOUND)
    few_kernel(const __grid_constant__ few_args a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(128) unsigned char memory[];
    __shared__ few_memory m;
    const few_room r = room_of(a, memory);
    const few_part p = place_of<DOWN>(a);
    const int32_t slot = (int32_t)blockIdx.y;
    const bool leaves = !DOWN && blockIdx.x == 0 && blockIdx.y == 0;
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const uint32_t ring = async_address(r.ring) + (uint32_t)(warp * a.ring_bytes);
    const int32_t units = p.tile * TSR_CUDA_TILE < a.out
                              ? min(a.cut.units, a.cut.tile_units - p.slice * a.cut.units)
                              : 0;
    product_operand o = {};
    few_kept kept;
    float sum[1][4] = {};

    tables_near<DOWN>(a, r, &m);
    /* Who comes after gate and up begins when all before them has been seen. */
    if (!DOWN)
        tsr_await_kernel();
    tsr_admit_kernel();
    if (!DOWN) /* what comes behind weights would be late */
        fetch_row<DOWN>(a, slot, &kept);
    if (!find_slots(a, r, faults, leaves))
        return;
    __syncthreads();
    const few_found found = find_pairs(a, r, slot, &m);
    if (found.wrong) {
        if (leaves && threadIdx.x == 0)
            tsr_leave_fault(faults, first_fault(a.pairs, *a.pairs.row_count * a.pairs.slots));
        return;
    }
    if (found.count == 0)
        return;
    const int32_t expert = r.local_of[r.id[slot]];
    const few_linears linears = linears_of<DOWN>(a, expert);
    __syncwarp(); /* else the compiler puts these loads behind weights, where they come late */
    order<FORMAT>(a, r.experts[expert], p, units, ring);
    if (DOWN) {
        tsr_await_kernel();
        fetch_row<DOWN>(a, slot, &kept);
    }
    make_rows<DOWN>(a, &m, found.count, r.experts[expert], &kept, r.rows);
    const few_ends ends = ends_of<DOWN>(a, linears);
    __syncthreads();
    o.rows = (const uint16_t *)(const void *)r.rows;
    o.count = found.count;
    o.pitch = a.cut.padded + PRODUCT_PAD;
    multiply<FORMAT>(units, ring, product_rows_at(o) + (uint32_t)(p.slice * a.cut.columns) * 2,
                     sum);
    __syncwarp();
    few_sums *sums = (few_sums *)(void *)(r.ring + warp * a.ring_bytes);
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
#pragma unroll
    for (int i = 0; i < 4; i++)
        (*sums)[2 * (lane % 4) + i % 2][lane / 4 + i / 2 * 8] = sum[0][i];
    __syncthreads();
    finish<DOWN>(a, m, ends, found.count, r.ring);
}

typedef void (*few_kernel_of)(const few_args a, tsr_cuda_faults faults);

static few_kernel_of kernel_for(tsr_weight_format format, bool down)
{
    if (format == TSR_WEIGHT_NVFP4)
        return down ? few_kernel<TSR_WEIGHT_NVFP4, true> : few_kernel<TSR_WEIGHT_NVFP4, false>;
    return down ? few_kernel<TSR_WEIGHT_FP8, true> : few_kernel<TSR_WEIGHT_FP8, false>;
}

tsr_status tsr_cuda_prepare_few(void)
{
    static const tsr_weight_format formats[] = {TSR_WEIGHT_NVFP4, TSR_WEIGHT_FP8};
    tsr_status st = TSR_OK;

    for (int i = 0; i < 4 && st == TSR_OK; i++)
        st = TSR_CUDA(cudaFuncSetAttribute(kernel_for(formats[i / 2], i % 2 == 1),
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           TSR_CUDA_SHARED));
    return st;
}

bool tsr_cuda_takes_few(const tsr_linear_kind *kind, int32_t in, bool down)
{
    return (kind->format == TSR_WEIGHT_NVFP4 || kind->format == TSR_WEIGHT_FP8 ||
            kind->format == TSR_WEIGHT_FP8_CHANNEL) &&
           tsr_cuda_stages(kind) && tsr_slices_of(in) <= (down ? FEW_DOWN_SLICES : FEW_SLICES);
}

static few_args args_of(const tsr_cuda_tiles *t)
{
    const bool down = t->mode == TSR_CUDA_TILES_DOWN;
    const bool nvfp4 = t->format == TSR_WEIGHT_NVFP4;
    few_args a = {};

    a.pairs = t->pairs;
    a.mlps = t->mlps;
    a.x = t->x;
    a.x_stride = t->x_stride;
    a.y = t->y;
    a.cut = product_cut_of(t->format, t->in);
    a.kind.format = t->format;
    a.kind.activation = t->activation;
    a.most = t->pairs.max_rows * t->pairs.slots;
    a.out = t->out;
    a.in = t->in;
    a.beside = 1;
    while (down && 2 * a.beside * a.cut.slices <= FEW_WARPS)
        a.beside *= 2;
    while (1 << a.column_bits < a.beside * TSR_CUDA_TILE)
        a.column_bits++;
    a.of_slices = (1 << 16) / a.cut.slices + 1;
    a.of_slots = (1 << 16) / a.pairs.slots + 1;
    a.ring_bytes = (nvfp4 ? 8 : 16) * PACKED_UNIT + (nvfp4 ? 8 * PACKED_SCALES : 0);
    return a;
}

tsr_status tsr_cuda_multiply_few(tsr_cuda_device *cuda, const tsr_cuda_tiles *t,
                                 cudaStream_t stream)
{
    const bool down = t->mode == TSR_CUDA_TILES_DOWN;
    few_args a = args_of(t);
    const int32_t warps = a.cut.slices * (down ? a.beside : 2);
    tsr_cuda_launch_shape at = {};

    a.pairs.together = tsr_smaller(a.pairs.max_rows, FEW_TOGETHER);
    at.grid = dim3(tsr_cuda_ceil(a.out, a.beside * TSR_CUDA_TILE), (unsigned)a.most);
    at.threads = (unsigned)(warps * TSR_CUDA_LANES);
    at.shared = room_bytes(a, warps);
    at.stream = stream;
    return tsr_cuda_launch(at, kernel_for(t->format, down), a, cuda->faults);
}
