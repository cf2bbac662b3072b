/*
 * The router for many rows, in two kernels. In the first a CTA takes 128 rows, a part of the columns and
 * 128 experts: 16 columns at a time pass through shared memory, two buffers in turn, and each thread
 * multiplies 16 rows by 8 experts. When a slice of columns is through, its sums join the part's:
 *
 *   x * norm --registers--> rows    [2][16 columns][128] --.
 *   gate     --registers--> experts [2][16 columns][128] --+-- 128 chains a thread --> part
 *
 * In the second a warp takes a row: adds up the parts, writes the row down normed, and chooses.
 */
#include "kernels/cuda/router_cuda.cuh"

#include "kernels/cuda/packed_cuda.cuh"

enum {
    THREADS = 128,                  /* of the first kernel */
    ROWS = 128,                     /* of a CTA */
    EXPERTS = 128,                  /* likewise */
    HIGH = 16,                      /* rows of a thread, in fours */
    WIDE = 8,                       /* experts of a thread, likewise */
    WARP = 64,                      /* rows, and experts, of a warp */
    HIGH_APART = WARP / (HIGH / 4), /* rows from one four to the next */
    WIDE_APART = WARP / (WIDE / 4),
    STRIDE = 132, /* floats of a column: 128 and some against bank conflicts */
    PAD = 8,      /* floats between columns 7 and 8, likewise */
    BUFFER = TSR_CUDA_STEP * STRIDE + PAD,
    FETCHED = ROWS * ROUTE_FOURS / THREADS, /* fours of a row that a thread fetches of a step */
    CTAS = 2,                               /* on a multiprocessor: what registers are cut for */
};

typedef struct many_memory {
    float *rows;    /* [2, BUFFER] */
    float *experts; /* [2, BUFFER] */
    float *product; /* [ROWS, EXPERTS] */
    float *norm;    /* [part] */
} many_memory;

static size_t memory_bytes(const route_args *a)
{
    return sizeof(float) *
           (4 * (size_t)BUFFER + (size_t)ROWS * EXPERTS + (size_t)a->slice * ROUTE_SLICES);
}

static __device__ __forceinline__ many_memory memory_of(float *memory)
{
    many_memory m;

    m.rows = memory;
    m.experts = m.rows + 2 * BUFFER;
    m.product = m.experts + 2 * BUFFER;
    m.norm = m.product + ROWS * EXPERTS;
    return m;
}

/* Which part of the work a CTA does. */
typedef struct many_place {
    int32_t row; /* the first */
    int32_t part;
    int32_t expert; /* the first */
} many_place;

static __device__ __forceinline__ many_place place_of(void)
{
    const many_place at = {(int32_t)blockIdx.x / ROUTE_PARTS * ROWS,
                           (int32_t)blockIdx.x % ROUTE_PARTS, (int32_t)blockIdx.y * EXPERTS};

    return at;
}

/* What a thread fetches of a step: a four of columns of some rows, and 16 weights. */
typedef struct many_fetched {
    float4 x[FETCHED];
    uint4 gate[4]; /* packed: the first two alone */
} many_fetched;

/* Where a thread fetches. */
typedef struct many_source {
    const float *x;
    int32_t apart[FETCHED]; /* from the first row to each */
    const uint4 *gate[2];   /* NULL: no such expert; F32: the first alone */
} many_source;

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ many_source source_of(const route_args &a, many_place p)
{
    const int32_t tid = (int32_t)threadIdx.x;
    const int32_t row = min(p.row + tid / ROUTE_FOURS, a.tokens - 1);
    const int32_t column = p.part * ROUTE_SLICES * a.slice;
    many_source s;

    s.x = a.x + (int64_t)row * a.gate.in + column + tid % ROUTE_FOURS * 4;
    for (int i = 0; i < FETCHED; i++)
        s.apart[i] = (min(row + ROWS / FETCHED * i, a.tokens - 1) - row) * a.gate.in;
    for (int i = 0; i < 2; i++) {
        if (FORMAT == TSR_WEIGHT_F32) {
            const int64_t e = p.expert + tid;
            s.gate[i] = e < a.gate.out
                            ? (const uint4 *)((const float *)a.gate.weight + e * a.gate.in + column)
                            : NULL;
        } else {
            const int64_t tile = p.expert / TSR_CUDA_TILE + tid / TSR_CUDA_LANES + 4 * i;
            const int64_t unit =
                tile * (tsr_cuda_padded(a.gate.in) / TSR_CUDA_STEP) + column / TSR_CUDA_STEP;
            s.gate[i] =
                tile * TSR_CUDA_TILE < a.gate.out
                    ? (const uint4 *)a.gate.weight + unit * TSR_CUDA_LANES + tid % TSR_CUDA_LANES
                    : NULL;
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
    for (int i = 0; i < 4; i++)
        f.gate[i] = make_uint4(0, 0, 0, 0);
    if (FORMAT == TSR_WEIGHT_F32 && s->gate[0] != NULL) {
        for (int i = 0; i < 4; i++)
            f.gate[i] = __ldg(s->gate[0] + i);
        s->gate[0] += TSR_CUDA_STEP / 4;
    }
    for (int i = 0; i < 2; i++) {
        if (FORMAT != TSR_WEIGHT_F32 && s->gate[i] != NULL) {
            f.gate[i] = __ldg(s->gate[i]);
            s->gate[i] += TSR_CUDA_LANES;
        }
    }
    s->x += TSR_CUDA_STEP;
    return f;
}

/* Where column k begins in a buffer. */
static __device__ __forceinline__ constexpr int column_at(int k)
{
    return k * STRIDE + k / 8 * PAD;
}

static __device__ __forceinline__ void store_rows(const many_fetched &f, const float *norm,
                                                  float *rows)
{
    const int tid = (int)threadIdx.x;
    const float4 w = *(const float4 *)(const void *)(norm + tid % ROUTE_FOURS * 4);

    for (int i = 0; i < FETCHED; i++) {
        const float4 v = route_times(f.x[i], 1.0F, w);
        float *at =
            rows + column_at(tid % ROUTE_FOURS * 4) + tid / ROUTE_FOURS + ROWS / FETCHED * i;
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
static __device__ __forceinline__ void store_experts(const many_fetched &f, float *experts)
{
    const int tid = (int)threadIdx.x;
    const int lane = tid % TSR_CUDA_LANES;

    if (FORMAT == TSR_WEIGHT_F32) {
        for (int i = 0; i < 4; i++) {
            experts[column_at(4 * i) + tid] = __uint_as_float(f.gate[i].x);
            experts[column_at(4 * i + 1) + tid] = __uint_as_float(f.gate[i].y);
            experts[column_at(4 * i + 2) + tid] = __uint_as_float(f.gate[i].z);
            experts[column_at(4 * i + 3) + tid] = __uint_as_float(f.gate[i].w);
        }
    } else {
        float *at =
            experts + column_at(lane % 4 * 2) + tid / TSR_CUDA_LANES * TSR_CUDA_TILE + lane / 4;
        store_unit<FORMAT>(f.gate[0], at);
        store_unit<FORMAT>(f.gate[1], at + 4 * TSR_CUDA_TILE);
    }
}

/* A thread's first row, and its first expert. */
static __device__ __forceinline__ int row_of_thread(void)
{
    return (int)(threadIdx.x / (2 * TSR_CUDA_LANES)) * WARP +
           (int)(threadIdx.x % TSR_CUDA_LANES) / 8 * 4;
}

static __device__ __forceinline__ int expert_of_thread(void)
{
    return (int)(threadIdx.x / TSR_CUDA_LANES) % 2 * WARP + (int)(threadIdx.x % 8) * 4;
}

static __device__ __forceinline__ void load_four(const float *at, float v[4])
{
    const float4 four = *(const float4 *)(const void *)at;

    v[0] = four.x;
    v[1] = four.y;
    v[2] = four.z;
    v[3] = four.w;
}

/* A step of 128 chains: 4 columns at a time, so that the loop stays where instructions are near. */
static __device__ __forceinline__ void multiply(const float *rows, const float *experts,
                                                float sum[HIGH][WIDE])
{
#pragma unroll 1
    for (int four = 0; four < ROUTE_FOURS; four++) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float x[HIGH];
            float w[WIDE];
            for (int i = 0; i < HIGH / 4; i++)
                load_four(rows + k * STRIDE + i * HIGH_APART, x + 4 * i);
            for (int i = 0; i < WIDE / 4; i++)
                load_four(experts + k * STRIDE + i * WIDE_APART, w + 4 * i);
            for (int i = 0; i < HIGH; i++) {
                for (int j = 0; j < WIDE; j++)
                    sum[i][j] = fmaf(x[i], w[j], sum[i][j]);
            }
        }
        const int next = four == 1 ? 4 * STRIDE + PAD : 4 * STRIDE;
        rows += next;
        experts += next;
    }
}

/* What a slice's sums join, and where that goes. */
typedef struct slice_end {
    bool is_first;
    bool is_last;
} slice_end;

/* A slice's sums join the part's, and begin anew; after the last the part is written down. */
static __device__ __forceinline__ void end_slice(const route_args &a, many_place p, float *product,
                                                 slice_end end, float sum[HIGH][WIDE])
{
    const int32_t experts = route_experts(a.c.experts);
    float *to = a.product + ((int64_t)p.part * a.tokens + p.row) * experts + p.expert;

#pragma unroll
    for (int i = 0; i < HIGH; i++) {
#pragma unroll
        for (int j = 0; j < WIDE; j += 4) {
            const int e = expert_of_thread() + j / 4 * WIDE_APART;
            const int row = row_of_thread() + i % 4 + i / 4 * HIGH_APART;
            float4 *at = (float4 *)(void *)(product + row * EXPERTS + e);
            float4 v = make_float4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]);
            if (!end.is_first)
                v = route_sum(*at, v);
            if (!end.is_last)
                *at = v;
            else if (p.row + row < a.tokens && p.expert + e < experts)
                *(float4 *)(void *)(to + (int64_t)row * experts + e) = v;
            for (int k = 0; k < 4; k++)
                sum[i][j + k] = 0.0F;
        }
    }
}

/* A slice's squares of a thread's rows join the part's. */
static __device__ __forceinline__ void end_squares(const route_args &a, many_place p, slice_end end,
                                                   float slice[FETCHED], float part[FETCHED])
{
    for (int i = 0; i < FETCHED; i++) {
        const int32_t row = p.row + (int32_t)threadIdx.x / ROUTE_FOURS + ROWS / FETCHED * i;
        const float sum = route_slice_squares(slice[i]);
        part[i] = end.is_first ? sum : part[i] + sum;
        slice[i] = 0.0F;
        if (end.is_last && threadIdx.x % ROUTE_FOURS == 0 && row < a.tokens && p.expert == 0)
            a.square[(int64_t)p.part * a.tokens + row] = part[i];
    }
}

/* A part's products of 128 rows with 128 experts, and its squares. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void multiply_part(const route_args &a, const many_memory &m,
                                                     many_place p)
{
    const int32_t steps = route_columns(a, p.part) / TSR_CUDA_STEP;
    const int32_t of_slice = a.slice / TSR_CUDA_STEP;
    many_source from = source_of<FORMAT>(a, p);
    float sum[HIGH][WIDE] = {};
    float slice[FETCHED] = {};
    float part[FETCHED] = {};
    many_fetched f = {};
    int32_t next = of_slice;

    if (steps > 0)
        f = fetch<FORMAT>(&from);
    for (int32_t k = 0; k < steps;) {
        float *rows = m.rows + k % 2 * BUFFER;
        float *weights = m.experts + k % 2 * BUFFER;
        store_rows(f, m.norm + k * TSR_CUDA_STEP, rows);
        store_experts<FORMAT>(f, weights);
        for (int i = 0; i < FETCHED; i++)
            slice[i] = route_squares(f.x[i], slice[i]);
        k++;
        if (k < steps)
            f = fetch<FORMAT>(&from);
        __syncthreads();
        multiply(rows + row_of_thread(), weights + expert_of_thread(), sum);
        if (k < next && k < steps)
            continue;
        const slice_end end = {k <= of_slice, k == steps};
        end_slice(a, p, m.product, end, sum);
        end_squares(a, p, end, slice, part);
        next += of_slice;
    }
    if (steps == 0) {
        const slice_end end = {true, true};
        end_slice(a, p, m.product, end, sum);
        end_squares(a, p, end, slice, part);
    }
}

/* The norm's weights of this part; ones where there are none. */
static __device__ __forceinline__ void enter_norm(const route_args &a, int32_t part, float *norm)
{
    const int32_t columns = route_columns(a, part);

#pragma unroll 1
    for (int32_t i = (int32_t)threadIdx.x; i < columns; i += THREADS)
        norm[i] = a.norm != NULL ? __ldg(a.norm + part * ROUTE_SLICES * a.slice + i) : 1.0F;
    __syncthreads();
}

template <tsr_weight_format FORMAT>
static __global__ void __launch_bounds__(THREADS, CTAS)
    parts_kernel(const __grid_constant__ route_args a, tsr_cuda_faults faults)
{
    extern __shared__ float4 memory[];
    const many_memory m = memory_of((float *)(void *)memory);
    const many_place p = place_of();

    enter_norm(a, p.part, m.norm);
    tsr_admit_kernel();
    tsr_await_kernel();
    if (!tsr_is_faulty(faults))
        multiply_part<FORMAT>(a, m, p);
}

/* A row of x, normed, by a warp. */
static __device__ __forceinline__ void leave_row(const route_args &a, int64_t row, float factor)
{
    const float4 *x = (const float4 *)(const void *)(a.x + row * a.gate.in);
    const float4 *norm = (const float4 *)(const void *)a.norm;
    float4 *to = (float4 *)(void *)(a.normed + row * a.normed_stride);

#pragma unroll 8
    for (int32_t i = (int32_t)(threadIdx.x % TSR_CUDA_LANES); i < a.gate.in / 4;
         i += TSR_CUDA_LANES)
        to[i] = route_times(__ldcg(x + i), factor, __ldg(norm + i));
}

template <int EACH>
static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    rows_kernel(const __grid_constant__ route_args a, tsr_cuda_faults faults)
{
    extern __shared__ float scratch[]; /* [TSR_CUDA_WARPS, experts] */
    __shared__ choose_slots slots[TSR_CUDA_WARPS];
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t mine = (int32_t)(threadIdx.x % TSR_CUDA_LANES) * EACH;
    const int32_t experts = route_experts(a.c.experts);
    const int64_t row = (int64_t)blockIdx.x * TSR_CUDA_WARPS + warp;
    float square[ROUTE_PARTS];
    float x[EACH];

    slots[warp].rehearses = false;
    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults) || row >= a.tokens)
        return;
    for (int p = 0; p < ROUTE_PARTS; p++)
        square[p] = __ldcg(a.square + (int64_t)p * a.tokens + row);
    const float factor = route_factor(a, square);
    for (int i = 0; i < EACH; i += 4) {
        const float *from = a.product + row * experts + min(mine + i, experts - 4);
        float4 sum = __ldcg((const float4 *)(const void *)from);
#pragma unroll
        for (int p = 1; p < ROUTE_PARTS; p++) {
            from += (int64_t)a.tokens * experts;
            sum = route_sum(sum, __ldcg((const float4 *)(const void *)from));
        }
        x[i] = route_logit(a, sum.x, factor, mine + i);
        x[i + 1] = route_logit(a, sum.y, factor, mine + i + 1);
        x[i + 2] = route_logit(a, sum.z, factor, mine + i + 2);
        x[i + 3] = route_logit(a, sum.w, factor, mine + i + 3);
    }
    if (a.norm != NULL)
        leave_row(a, row, factor);
    choose_row<EACH>(a.c, x, &slots[warp], scratch + warp * experts, row);
}

typedef void many_kernel_type(const route_args, tsr_cuda_faults);

static many_kernel_type *parts_kernel_of(tsr_weight_format format)
{
    return format == TSR_WEIGHT_F32   ? parts_kernel<TSR_WEIGHT_F32>
           : format == TSR_WEIGHT_F16 ? parts_kernel<TSR_WEIGHT_F16>
                                      : parts_kernel<TSR_WEIGHT_BF16>;
}

static many_kernel_type *rows_kernel_of(int32_t experts)
{
    return experts <= CHOOSE_FEW * TSR_CUDA_LANES ? rows_kernel<CHOOSE_FEW>
                                                  : rows_kernel<CHOOSE_MORE>;
}

tsr_status tsr_route_prepare_many(void)
{
    static const tsr_weight_format formats[] = {TSR_WEIGHT_F32, TSR_WEIGHT_F16, TSR_WEIGHT_BF16};
    tsr_status st = TSR_OK;

    for (int i = 0; i < 3 && st == TSR_OK; i++)
        st = TSR_CUDA(cudaFuncSetAttribute(parts_kernel_of(formats[i]),
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           TSR_CUDA_SHARED));
    return st;
}

size_t tsr_route_many_bytes(const route_args *a)
{
    if (a->c.experts > CHOOSE_MORE * TSR_CUDA_LANES || memory_bytes(a) > TSR_CUDA_SHARED)
        return SIZE_MAX;
    return (size_t)a->tokens * ((size_t)route_experts(a->c.experts) + 1) * ROUTE_PARTS *
           sizeof(float);
}

tsr_status tsr_route_many(const route_args *given, void *memory, tsr_cuda_faults faults,
                          cudaStream_t stream)
{
    const int32_t experts = route_experts(given->c.experts);
    route_args a = *given;
    tsr_cuda_launch_shape at = {};

    a.product = (float *)memory;
    a.square = a.product + (size_t)ROUTE_PARTS * (size_t)a.tokens * (size_t)experts;
    at.grid.x = tsr_cuda_ceil(a.tokens, ROWS) * ROUTE_PARTS;
    at.grid.y = tsr_cuda_ceil(experts, EXPERTS);
    at.threads = THREADS;
    at.shared = memory_bytes(&a);
    at.stream = stream;
    const tsr_status st = tsr_cuda_launch(at, parts_kernel_of(a.gate.format), a, faults);
    if (st != TSR_OK)
        return st;
    at.grid = dim3(tsr_cuda_ceil(a.tokens, TSR_CUDA_WARPS));
    at.threads = TSR_CUDA_THREADS;
    at.shared = TSR_CUDA_WARPS * (size_t)experts * sizeof(float);
    return tsr_cuda_launch(at, rows_kernel_of(a.c.experts), a, faults);
}
