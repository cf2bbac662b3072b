/*
 * The router for many rows, in two kernels. In the first a CTA takes 128 rows with 128 experts, and all
 * columns, or those of some parts where rows are fewer. Four of its warps bring 16 columns at a time to
 * shared memory, eight multiply them, a thread 8 rows by 8 experts; four norm rows, which takes memory
 * alone:
 *
 *   x * norm --registers--> rows    [16 columns][128] --.
 *   gate     --registers--> experts [16 columns][128] --+-- ring --> 64 chains a thread --> part --> total
 *
 *   x -----------registers, a warp a row: squares --> factor; x again * factor * norm --> what travels
 *
 * In the second a warp takes a row, and chooses.
 */
#include "kernels/cuda/router/router_cuda.cuh"

#include "kernels/cuda/device/async_cuda.cuh"
#include "kernels/cuda/operands/packed_cuda.cuh"
#include "kernels/cuda/router/router_norm_cuda.cuh"

enum {
    MULTIPLIERS = 8, /* warps that multiply */
    BRINGERS = 4,    /* that bring columns */
    NORMERS = 4,     /* that norm rows */
    THREADS = MULTIPLIERS * TSR_CUDA_LANES,
    BRINGING = BRINGERS * TSR_CUDA_LANES, /* threads */
    ALL_THREADS = (MULTIPLIERS + BRINGERS + NORMERS) * TSR_CUDA_LANES,
    ROWS = 128,     /* of a CTA */
    EXPERTS = 128,  /* likewise */
    HIGH = 8,       /* rows of a thread, in fours */
    WIDE = 8,       /* experts of a thread, likewise */
    WARP_ROWS = 32, /* of a warp that multiplies */
    WARP_EXPERTS = 64,
    HIGH_APART = WARP_ROWS / (HIGH / 4), /* rows from one four to the next */
    WIDE_APART = WARP_EXPERTS / (WIDE / 4),
    FOURS = HIGH * WIDE / 4, /* of a thread's sums */
    STRIDE = 132,            /* floats of a column: 128 and some against bank conflicts */
    PAD = 8,                 /* floats between columns 7 and 8, likewise */
    BUFFER = TSR_CUDA_STEP * STRIDE + PAD,
    SLOTS = 4, /* of the ring: 16 columns of rows and of experts */
    SLOT = 2 * BUFFER,
    FETCHED = ROWS * ROUTE_FOURS / BRINGING, /* fours of a row that a thread fetches of a step */
};

typedef struct many_memory {
    float *slots;   /* [SLOTS, SLOT]: rows, experts */
    float4 *part;   /* [FOURS, THREADS] */
    float4 *total;  /* likewise, where a CTA has several parts */
    uint32_t full;  /* barriers of slots: they have been brought */
    uint32_t empty; /* ... multiplied */
} many_memory;

static size_t memory_bytes(int32_t parts)
{
    return sizeof(float) * (SLOTS * (size_t)SLOT + (size_t)ROWS * EXPERTS * (parts > 1 ? 2 : 1));
}

/* Which part of the work a CTA does. */
typedef struct many_place {
    int32_t row;    /* the first */
    int32_t expert; /* the first */
    int32_t share;  /* of the tile's parts, and rows to norm */
    int32_t column; /* the first */
    int32_t steps;  /* of 16 columns */
} many_place;

static __device__ __forceinline__ many_place place_of(const route_args &a)
{
    const int32_t columns = ROUTE_PARTS / a.shares * ROUTE_SLICES * a.slice;
    many_place at;

    at.row = (int32_t)blockIdx.x / a.shares * ROWS;
    at.expert = (int32_t)blockIdx.y * EXPERTS;
    at.share = (int32_t)blockIdx.x % a.shares;
    at.column = at.share * columns;
    at.steps = max(0, min(columns, a.gate.in - at.column)) / TSR_CUDA_STEP;
    return at;
}

/* What a thread fetches of a step: a four of columns of some rows, and 16 weights. */
typedef struct many_fetched {
    float4 x[FETCHED];
    float4 norm;
    uint4 gate[4]; /* packed: the first two alone */
} many_fetched;

/* Where a thread fetches. */
typedef struct many_source {
    const float *x;
    int32_t apart[FETCHED]; /* from the first row to each */
    const float *norm;      /* NULL: there is none */
    const uint4 *gate[2];   /* of the last where there are fewer experts; F32: the first alone */
} many_source;

static __device__ __forceinline__ int32_t bringer(void)
{
    return (int32_t)threadIdx.x - THREADS;
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ many_source source_of(const route_args &a, many_place p)
{
    const int32_t tid = bringer();
    const int32_t row = min(p.row + tid / ROUTE_FOURS, a.tokens - 1);
    const int32_t column = p.column + tid % ROUTE_FOURS * 4;
    many_source s;

    s.x = a.x + (int64_t)row * a.gate.in + column;
    for (int i = 0; i < FETCHED; i++)
        s.apart[i] = (min(row + ROWS / FETCHED * i, a.tokens - 1) - row) * a.gate.in;
    s.norm = a.norm != NULL ? a.norm + column : NULL;
    for (int i = 0; i < 2; i++) {
        if (FORMAT == TSR_WEIGHT_F32) {
            const int64_t e = min(p.expert + tid, a.gate.out - 1);
            s.gate[i] = (const uint4 *)((const float *)a.gate.weight + e * a.gate.in + p.column);
        } else {
            const int32_t last = (a.gate.out - 1) / TSR_CUDA_TILE;
            const int64_t tile =
                min(p.expert / TSR_CUDA_TILE + tid / TSR_CUDA_LANES + BRINGERS * i, last);
            const int64_t unit =
                tile * (tsr_cuda_padded(a.gate.in) / TSR_CUDA_STEP) + p.column / TSR_CUDA_STEP;
            s.gate[i] = (const uint4 *)a.gate.weight + unit * TSR_CUDA_LANES + tid % TSR_CUDA_LANES;
        }
    }
    return s;
}

/* The next step's. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ many_fetched fetch(many_source *s)
{
    many_fetched f;

    for (int i = 0; i < FETCHED; i++)
        f.x[i] = __ldcg((const float4 *)(const void *)(s->x + s->apart[i]));
    s->x += TSR_CUDA_STEP;
    f.norm = make_float4(1.0F, 1.0F, 1.0F, 1.0F);
    if (s->norm != NULL) {
        f.norm = __ldg((const float4 *)(const void *)s->norm);
        s->norm += TSR_CUDA_STEP;
    }
    if (FORMAT == TSR_WEIGHT_F32) {
        for (int i = 0; i < 4; i++)
            f.gate[i] = __ldg(s->gate[0] + i);
        s->gate[0] += TSR_CUDA_STEP / 4;
    } else {
        for (int i = 0; i < 2; i++) {
            f.gate[i] = __ldg(s->gate[i]);
            s->gate[i] += TSR_CUDA_LANES;
        }
    }
    return f;
}

/* Where column k begins in a buffer. */
static __device__ __forceinline__ constexpr int column_at(int k)
{
    return k * STRIDE + k / 8 * PAD;
}

static __device__ __forceinline__ void store_rows(const many_fetched &f, float *to)
{
    for (int i = 0; i < FETCHED; i++) {
        const float4 v = route_times(f.x[i], 1.0F, f.norm);
        float *at = to + ROWS / FETCHED * i;
        at[0] = v.x;
        at[STRIDE] = v.y;
        at[2 * STRIDE] = v.z;
        at[3 * STRIDE] = v.w;
    }
}

/* A lane's share of a unit: rows g and g + 8, columns 2t + 8 i and the next. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void store_unit(uint4 unit, float *at)
{
    const uint32_t word[4] = {unit.x, unit.y, unit.z, unit.w};

    for (int i = 0; i < 4; i++) {
        float low;
        float high;
        route_pair<FORMAT>(word[i], &low, &high);
        at[i / 2 * column_at(8) + i % 2 * 8] = low;
        at[i / 2 * column_at(8) + i % 2 * 8 + STRIDE] = high;
    }
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void store_experts(const many_fetched &f, float *to)
{
    for (int i = 0; FORMAT == TSR_WEIGHT_F32 && i < 4; i++) {
        to[column_at(4 * i)] = __uint_as_float(f.gate[i].x);
        to[column_at(4 * i + 1)] = __uint_as_float(f.gate[i].y);
        to[column_at(4 * i + 2)] = __uint_as_float(f.gate[i].z);
        to[column_at(4 * i + 3)] = __uint_as_float(f.gate[i].w);
    }
    for (int i = 0; FORMAT != TSR_WEIGHT_F32 && i < 2; i++)
        store_unit<FORMAT>(f.gate[i], to + BRINGERS * TSR_CUDA_TILE * i);
}

/* 16 columns after the other, as there is room for them. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void bring_all(const route_args &a, const many_memory &m,
                                                 many_place p)
{
    const int32_t tid = bringer();
    const int32_t lane = tid % TSR_CUDA_LANES;
    float *rows = m.slots + column_at(tid % ROUTE_FOURS * 4) + tid / ROUTE_FOURS;
    float *experts =
        m.slots + BUFFER +
        (FORMAT == TSR_WEIGHT_F32
             ? tid
             : column_at(lane % 4 * 2) + tid / TSR_CUDA_LANES * TSR_CUDA_TILE + lane / 4);
    many_source from = source_of<FORMAT>(a, p);
    many_fetched f = fetch<FORMAT>(&from);

#pragma unroll 1
    for (int32_t k = 0; k < p.steps; k++) {
        const int32_t slot = k % SLOTS;
        barrier_wait(m.empty + 8 * slot, (uint32_t)(k / SLOTS + 1) % 2);
        store_rows(f, rows + slot * SLOT);
        store_experts<FORMAT>(f, experts + slot * SLOT);
        __syncwarp();
        if (lane == 0)
            barrier_arrive(m.full + 8 * slot);
        if (k + 1 < p.steps)
            f = fetch<FORMAT>(&from);
    }
}

/* A thread's first row, and its first expert. */
static __device__ __forceinline__ int row_of_thread(void)
{
    return (int)(threadIdx.x / TSR_CUDA_LANES) % (ROWS / WARP_ROWS) * WARP_ROWS +
           (int)(threadIdx.x % TSR_CUDA_LANES) / 8 * 4;
}

static __device__ __forceinline__ int expert_of_thread(void)
{
    return (int)(threadIdx.x / TSR_CUDA_LANES) / (ROWS / WARP_ROWS) * WARP_EXPERTS +
           (int)(threadIdx.x % 8) * 4;
}

static __device__ __forceinline__ void load_four(const float *at, float v[4])
{
    const float4 four = *(const float4 *)(const void *)at;

    v[0] = four.x;
    v[1] = four.y;
    v[2] = four.z;
    v[3] = four.w;
}

/*
 * A step of 64 chains. Registers stand in two banks, even and odd ones, and a multiplication-addition that
 * reads two of one bank takes twice as long. So each takes one of its values from the one before it, for
 * which experts pass to and fro, and sums stand apart from weights (sums_at): the compiler finds such
 * registers where it is led so, and has to be looked after, since nothing else shows it.
 */
static __device__ __forceinline__ void multiply(const float *rows, const float *experts,
                                                float sum[HIGH][WIDE])
{
#pragma unroll 4
    for (int k = 0; k < TSR_CUDA_STEP; k++) {
        float x[HIGH];
        float w[WIDE];
        for (int i = 0; i < HIGH / 4; i++)
            load_four(rows + column_at(k) + i * HIGH_APART, x + 4 * i);
        for (int i = 0; i < WIDE / 4; i++)
            load_four(experts + column_at(k) + i * WIDE_APART, w + 4 * i);
        for (int i = 0; i < HIGH; i++) {
            for (int n = 0; n < WIDE; n++) {
                const int j = i % 2 == 0 ? n : WIDE - 1 - n;
                sum[i][j] = fmaf(x[i], w[j], sum[i][j]);
            }
        }
    }
}

/* Four sums as they are stored, turned by one from the weights that they meet, which are loaded by four
 * too: what moves by four stands in four registers in a row. */
static __device__ __forceinline__ float4 sums_at(const float sum[WIDE], int j)
{
    return make_float4(sum[j + 1], sum[j + 2], sum[j + 3], sum[j]);
}

/* A slice's sums join the part's, and begin anew. */
static __device__ __forceinline__ void end_slice(bool is_first, float4 *part, float sum[HIGH][WIDE])
{
#pragma unroll
    for (int i = 0; i < HIGH; i++) {
#pragma unroll
        for (int j = 0; j < WIDE; j += 4) {
            float4 *at = part + (i * (WIDE / 4) + j / 4) * THREADS + threadIdx.x;
            float4 v = sums_at(sum[i], j);
            *at = is_first ? v : route_sum(*at, v);
            for (int k = 0; k < 4; k++)
                sum[i][j + k] = 0.0F;
        }
    }
}

/* Where a part goes. */
typedef struct many_part {
    int32_t number; /* that is written down; -1: more are to be added */
    bool is_first;  /* of what is added */
} many_part;

/* A part's sums join those in front of them, or are written down. */
static __device__ __forceinline__ void end_part(const route_args &a, const many_memory &m,
                                                many_place p, many_part at)
{
    const int32_t experts = route_experts(a.c.experts);
    float *to = a.product + ((int64_t)max(at.number, 0) * a.tokens + p.row) * experts + p.expert;

#pragma unroll 4
    for (int n = 0; n < FOURS; n++) {
        const int i = n / (WIDE / 4);
        const int e = expert_of_thread() + n % (WIDE / 4) * WIDE_APART;
        const int row = row_of_thread() + i % 4 + i / 4 * HIGH_APART;
        float4 *so_far = m.total + n * THREADS + threadIdx.x;
        float4 v = m.part[n * THREADS + threadIdx.x];
        if (!at.is_first)
            v = route_sum(*so_far, v);
        if (at.number < 0)
            *so_far = v;
        else if (p.row + row < a.tokens && p.expert + e < experts)
            *(float4 *)(void *)(to + (int64_t)row * experts + e) = make_float4(v.w, v.x, v.y, v.z);
    }
}

/* Products of 128 rows with 128 experts, by those who multiply. */
static __device__ __forceinline__ void multiply_all(const route_args &a, const many_memory &m,
                                                    many_place p)
{
    const int32_t of_slice = a.slice / TSR_CUDA_STEP;
    const int32_t of_part = of_slice * ROUTE_SLICES;
    const int32_t parts = ROUTE_PARTS / a.shares;
    const float *rows = m.slots + row_of_thread();
    const float *experts = m.slots + BUFFER + expert_of_thread();
    float sum[HIGH][WIDE] = {};
    int32_t slice_end = of_slice;
    int32_t part_end = of_part;

#pragma unroll 1
    for (int32_t k = 1; k <= p.steps; k++) {
        const int32_t slot = (k - 1) % SLOTS;
        barrier_wait(m.full + 8 * slot, (uint32_t)((k - 1) / SLOTS) % 2);
        multiply(rows + slot * SLOT, experts + slot * SLOT, sum);
        __syncwarp();
        if (threadIdx.x % TSR_CUDA_LANES == 0)
            barrier_arrive(m.empty + 8 * slot);
        if (k < slice_end && k < p.steps)
            continue;
        end_slice(slice_end == part_end - of_part + of_slice, m.part, sum);
        slice_end += of_slice;
        if (k < part_end && k < p.steps)
            continue;
        const bool adds = parts == ROUTE_PARTS;
        const many_part at = {!adds         ? p.share * parts + part_end / of_part - 1
                              : k < p.steps ? -1
                                            : 0,
                              !adds || part_end == of_part};
        end_part(a, m, p, at);
        part_end += of_part;
    }
}

/* A CTA's share of its rows, by those who norm. */
static __device__ __forceinline__ void norm_rows(const route_args &a, many_place p)
{
    const int32_t count = ROWS / a.shares;
    const int32_t first = p.row + p.share * count;
    const int32_t end = min(first + count, a.tokens);

    for (int32_t row = first + (bringer() - BRINGING) / TSR_CUDA_LANES; row < end; row += NORMERS) {
        const float *x = a.x + (int64_t)row * a.gate.in;
        const float factor = route_norm_factor(a, (const float4 *)(const void *)x);
        route_leave_row(a, row, factor);
        if (threadIdx.x % TSR_CUDA_LANES == 0)
            a.factor[row] = factor;
    }
}

/* A CTA's memory, and its barriers, opened. */
static __device__ __forceinline__ many_memory memory_of(float *memory, uint64_t *barriers)
{
    many_memory m;

    m.slots = memory;
    m.part = (float4 *)(void *)(memory + SLOTS * SLOT);
    m.total = m.part + FOURS * THREADS;
    m.full = async_address(barriers);
    m.empty = m.full + 8 * SLOTS;
    if (threadIdx.x < SLOTS) {
        barrier_open(m.full + 8 * threadIdx.x, BRINGERS);
        barrier_open(m.empty + 8 * threadIdx.x, MULTIPLIERS);
        barriers_opened();
    }
    __syncthreads();
    return m;
}

template <tsr_weight_format FORMAT>
static __global__ void __launch_bounds__(ALL_THREADS, 1)
    products_kernel(const __grid_constant__ route_args a, tsr_cuda_faults faults)
{
    extern __shared__ float4 memory[];
    __shared__ uint64_t barriers[2 * SLOTS];
    const many_place p = place_of(a);
    const many_memory m = memory_of((float *)(void *)memory, barriers);

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    if (threadIdx.x < THREADS)
        multiply_all(a, m, p);
    else if (bringer() >= BRINGING && p.expert == 0 && a.norm != NULL)
        norm_rows(a, p);
    else if (bringer() < BRINGING && p.steps > 0)
        bring_all<FORMAT>(a, m, p);
}

template <int EACH>
static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    choose_kernel(const __grid_constant__ route_args a, tsr_cuda_faults faults)
{
    extern __shared__ float scratch[]; /* [TSR_CUDA_WARPS, experts] */
    __shared__ choose_slots slots[TSR_CUDA_WARPS];
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t mine = (int32_t)(threadIdx.x % TSR_CUDA_LANES) * EACH;
    const int32_t experts = route_experts(a.c.experts);
    const int64_t row = (int64_t)blockIdx.x * TSR_CUDA_WARPS + warp;
    float x[EACH];

    slots[warp].rehearses = false;
    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults) || row >= a.tokens)
        return;
    const float factor = a.norm != NULL ? __ldcg(a.factor + row) : 1.0F;
    for (int i = 0; i < EACH; i += 4) {
        const float *from = a.product + row * experts + min(mine + i, experts - 4);
        float4 sum = __ldcg((const float4 *)(const void *)from);
        for (int32_t p = 1; p < a.parts; p++) {
            from += (int64_t)a.tokens * experts;
            sum = route_sum(sum, __ldcg((const float4 *)(const void *)from));
        }
        x[i] = route_logit(a, sum.x, factor, mine + i);
        x[i + 1] = route_logit(a, sum.y, factor, mine + i + 1);
        x[i + 2] = route_logit(a, sum.z, factor, mine + i + 2);
        x[i + 3] = route_logit(a, sum.w, factor, mine + i + 3);
    }
    choose_row<EACH, true>(a.c, x, &slots[warp], scratch + warp * experts, row);
}

typedef void many_kernel_type(const route_args, tsr_cuda_faults);

static many_kernel_type *products_kernel_of(tsr_weight_format format)
{
    return format == TSR_WEIGHT_F32   ? products_kernel<TSR_WEIGHT_F32>
           : format == TSR_WEIGHT_F16 ? products_kernel<TSR_WEIGHT_F16>
                                      : products_kernel<TSR_WEIGHT_BF16>;
}

static many_kernel_type *choose_kernel_of(int32_t experts)
{
    return experts <= CHOOSE_FEW * TSR_CUDA_LANES ? choose_kernel<CHOOSE_FEW>
                                                  : choose_kernel<CHOOSE_MORE>;
}

tsr_status tsr_route_prepare_many(void)
{
    static const tsr_weight_format formats[] = {TSR_WEIGHT_F32, TSR_WEIGHT_F16, TSR_WEIGHT_BF16};
    tsr_status st = TSR_OK;

    for (int i = 0; i < 3 && st == TSR_OK; i++)
        st = TSR_CUDA(cudaFuncSetAttribute(products_kernel_of(formats[i]),
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           TSR_CUDA_SHARED));
    return st;
}

size_t tsr_route_many_bytes(const route_args *a)
{
    if (a->c.experts > CHOOSE_MORE * TSR_CUDA_LANES)
        return SIZE_MAX;
    return (size_t)a->tokens * ((size_t)route_experts(a->c.experts) * ROUTE_PARTS + 1) *
           sizeof(float);
}

/* Among how many CTAs the parts of a tile are shared out: as few rounds of CTAs, times parts of each,
 * as can be. */
static int32_t shares_of(int64_t tiles, int32_t processors)
{
    int64_t least = INT64_MAX;
    int32_t shares = 1;

    for (int32_t s = 1; s <= ROUTE_PARTS; s *= 2) {
        const int64_t rounds = (tiles * s + processors - 1) / processors;
        if (rounds * (ROUTE_PARTS / s) < least) {
            least = rounds * (ROUTE_PARTS / s);
            shares = s;
        }
    }
    return shares;
}

tsr_status tsr_route_many(const route_args *given, void *memory, int32_t processors,
                          tsr_cuda_faults faults, cudaStream_t stream)
{
    const int32_t experts = route_experts(given->c.experts);
    const int32_t of_part = ROUTE_SLICES * given->slice;
    route_args a = *given;
    tsr_cuda_launch_shape at = {};

    at.grid.x = tsr_cuda_ceil(a.tokens, ROWS);
    at.grid.y = tsr_cuda_ceil(experts, EXPERTS);
    a.shares = shares_of((int64_t)at.grid.x * at.grid.y, processors);
    a.parts = a.shares > 1 ? (int32_t)tsr_cuda_ceil(a.gate.in, of_part) : 1;
    a.product = (float *)memory;
    a.factor = a.product + (size_t)a.parts * (size_t)a.tokens * (size_t)experts;
    at.grid.x *= (unsigned)a.shares;
    at.threads = ALL_THREADS;
    at.shared = memory_bytes(ROUTE_PARTS / a.shares);
    at.stream = stream;
    const tsr_status st = tsr_cuda_launch(at, products_kernel_of(a.gate.format), a, faults);
    if (st != TSR_OK)
        return st;
    at.grid = dim3(tsr_cuda_ceil(a.tokens, TSR_CUDA_WARPS));
    at.threads = TSR_CUDA_THREADS;
    at.shared = TSR_CUDA_WARPS * (size_t)experts * sizeof(float);
    return tsr_cuda_launch(at, choose_kernel_of(a.c.experts), a, faults);
}
