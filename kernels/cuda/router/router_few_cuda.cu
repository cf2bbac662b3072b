/*
 * The router for few rows. A cluster takes up to 8 rows at a time, a CTA a part of the columns and a
 * warp 16 experts; a lane has two experts' weights of one slice in registers before the kernel in
 * front has ended, and rows pass by:
 *
 *   lane = 4 g + s   experts g and g + 8, slice s: 64 bytes of every unit (packed_cuda.cuh)
 *
 *   CTA 0   products, squares of part 0   --.             .-- choose row 0 | normed columns of part 0
 *   CTA 1   products, squares of part 1   --+-- cluster --+-- choose row 1 | normed columns of part 1
 *   ..                                      |             |   ..
 *
 * Products of row r go to CTA r, squares to all; both count at a barrier of who gets them, so that nobody
 * waits for anything else.
 *
 * All this runs once in a layer, so that its code is in no cache near: fetching it took as long as
 * everything else. CTAs of few rows go through it once, to no effect, while they wait for those.
 */
#include "kernels/cuda/router/router_cuda.cuh"

#include "kernels/cuda/device/async_cuda.cuh"
#include "kernels/cuda/operands/packed_cuda.cuh"

enum {
    ROWS = 8,         /* that pass together: one for each CTA to choose for */
    CLUSTERS = 24,    /* that find room at once, on processors of 132 */
    REHEARSED = 8,    /* clusters at most: more have no room beside the kernel in front */
    HELD = 16,        /* 16-byte words of weights in a lane's registers */
    PAD = 4,          /* floats behind a slice, against bank conflicts */
    CTAS = 2,         /* on a multiprocessor: what registers are cut for */
    SQUARE_LANES = 16 /* of a row: a four of columns of a slice each */
};

/* Steps of a slice whose weights a lane holds. */
static __device__ __forceinline__ constexpr int steps_held(tsr_weight_format format)
{
    return format == TSR_WEIGHT_F32 ? 2 : 4;
}

/* A CTA's memory, behind one another. */
typedef struct few_memory {
    float *x;        /* [ROWS, part] */
    float *scaled;   /* x * norm: [ROWS, ROUTE_SLICES, slice + PAD] */
    float *product;  /* [ROUTE_PARTS, experts] of the row that this CTA chooses for */
    float *square;   /* [ROUTE_PARTS, ROWS] */
    float *scratch;  /* [experts] */
    int32_t *tag_of; /* [experts], as is the next */
    float *bias;
    uint32_t came; /* barrier: all products and squares of rows */
} few_memory;

static size_t memory_bytes(const route_args *a)
{
    const size_t row = ROUTE_SLICES * (2 * (size_t)a->slice + PAD);
    const size_t experts = (size_t)route_experts(a->c.experts);

    return sizeof(float) * (ROWS * row + (ROUTE_PARTS + 3) * experts + (size_t)ROUTE_PARTS * ROWS) +
           sizeof(uint64_t);
}

static __device__ few_memory memory_of(const route_args &a, float *memory)
{
    const int32_t experts = route_experts(a.c.experts);
    few_memory m;

    m.x = memory;
    m.scaled = m.x + ROWS * ROUTE_SLICES * a.slice;
    m.product = m.scaled + ROWS * ROUTE_SLICES * (a.slice + PAD);
    m.square = m.product + ROUTE_PARTS * experts;
    m.scratch = m.square + ROUTE_PARTS * ROWS;
    m.tag_of = (int32_t *)(void *)(m.scratch + experts);
    m.bias = m.scratch + 2 * experts;
    m.came = async_address(m.scratch + 3 * experts);
    return m;
}

/* Which weights a lane deals with. */
typedef struct lane_place {
    int32_t part;
    int32_t g;
    int32_t s;
} lane_place;

static __device__ __forceinline__ lane_place place_of(void)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const lane_place at = {(int32_t)(blockIdx.x % ROUTE_PARTS), lane / 4, lane % 4};

    return at;
}

/*
 * A lane's weights of some steps of its slice, from `first` on; zeros where there are none.
 *   packed   word 4 i + j of step i: lane 4 g + j's of the unit
 *   F32      words 8 i + 4 r + j of step i: columns 4 j .. of expert g + 8 r
 */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void hold(const route_args &a, lane_place at, int32_t tile,
                                            int32_t first, uint4 held[HELD])
{
    const int32_t column = (at.part * ROUTE_SLICES + at.s) * a.slice + first * TSR_CUDA_STEP;
    const int32_t units = tsr_cuda_padded(a.gate.in) / TSR_CUDA_STEP;

    for (int i = 0; i < steps_held(FORMAT); i++) {
        const int32_t c = column + i * TSR_CUDA_STEP;
        const bool is = c < a.gate.in && (first + i) * TSR_CUDA_STEP < a.slice;
        const int n = HELD / steps_held(FORMAT);
        for (int j = 0; j < n; j++) {
            const uint4 *from;
            if (FORMAT == TSR_WEIGHT_F32) {
                const int64_t row = min(tile * TSR_CUDA_TILE + at.g + j / 4 * 8, a.gate.out - 1);
                from = (const uint4 *)((const float *)a.gate.weight + row * a.gate.in + c) + j % 4;
            } else {
                from = (const uint4 *)a.gate.weight +
                       ((int64_t)tile * units + c / TSR_CUDA_STEP) * TSR_CUDA_LANES + 4 * at.g + j;
            }
            held[i * n + j] = is ? __ldg(from) : make_uint4(0, 0, 0, 0);
        }
    }
}

/* Four columns, from 4 q on, of step i: of the lane's two experts. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void weights_of(const uint4 held[HELD], int i, int q,
                                                  float w[2][4])
{
    if (FORMAT == TSR_WEIGHT_F32) {
        for (int r = 0; r < 2; r++) {
            const uint4 v = held[8 * i + 4 * r + q];
            w[r][0] = __uint_as_float(v.x);
            w[r][1] = __uint_as_float(v.y);
            w[r][2] = __uint_as_float(v.z);
            w[r][3] = __uint_as_float(v.w);
        }
    } else {
        for (int j = 0; j < 2; j++) {
            const uint4 v = held[4 * i + q % 2 * 2 + j];
            route_pair<FORMAT>(q < 2 ? v.x : v.z, &w[0][2 * j], &w[0][2 * j + 1]);
            route_pair<FORMAT>(q < 2 ? v.y : v.w, &w[1][2 * j], &w[1][2 * j + 1]);
        }
    }
}

/* Products of held weights join the chains of COUNT rows. */
template <tsr_weight_format FORMAT, int COUNT>
static __device__ __forceinline__ void add_held(const uint4 held[HELD], int32_t steps,
                                                const float *at, int32_t stride,
                                                float sum[COUNT][2])
{
#pragma unroll
    for (int i = 0; i < steps_held(FORMAT); i++) {
        if (i >= steps)
            break;
#pragma unroll
        for (int q = 0; q < ROUTE_FOURS; q++) {
            float w[2][4];
            weights_of<FORMAT>(held, i, q, w);
#pragma unroll
            for (int j = 0; j < COUNT; j++) {
                const float4 v =
                    *(const float4 *)(const void *)(at + j * stride + i * TSR_CUDA_STEP + 4 * q);
                for (int r = 0; r < 2; r++) {
                    sum[j][r] = fmaf(v.x, w[r][0], sum[j][r]);
                    sum[j][r] = fmaf(v.y, w[r][1], sum[j][r]);
                    sum[j][r] = fmaf(v.z, w[r][2], sum[j][r]);
                    sum[j][r] = fmaf(v.w, w[r][3], sum[j][r]);
                }
            }
        }
    }
}

/* A part's sum in the lane of its first slice. */
static __device__ __forceinline__ float add_slices(float v, int apart)
{
    const float second = __shfl_down_sync(TSR_ALL_LANES, v, apart);
    const float third = __shfl_down_sync(TSR_ALL_LANES, v, 2 * apart);
    const float fourth = __shfl_down_sync(TSR_ALL_LANES, v, 3 * apart);

    return v + second + third + fourth;
}

/* What rows a cluster works on, and whether a lane's first weights are still held. */
typedef struct few_rows {
    int32_t first;
    int32_t count;
    bool held;
    uint32_t turn; /* of the barrier at which sums come */
} few_rows;

/* A part of the products of up to COUNT rows, to the CTAs that choose for them. */
template <tsr_weight_format FORMAT, int COUNT>
static __device__ __forceinline__ void share_products(const route_args &a, const few_memory &m,
                                                      few_rows rows, uint4 held[HELD])
{
    const lane_place at = place_of();
    const int32_t warps = (int32_t)blockDim.x / TSR_CUDA_LANES;
    const int32_t steps = a.slice / TSR_CUDA_STEP;
    const int32_t stride = ROUTE_SLICES * (a.slice + PAD);

    for (int32_t tile = (int32_t)threadIdx.x / TSR_CUDA_LANES; tile * TSR_CUDA_TILE < a.c.experts;
         tile += warps) {
        float sum[COUNT][2] = {};
        for (int32_t k = 0; k < steps; k += steps_held(FORMAT)) {
            if (!rows.held)
                hold<FORMAT>(a, at, tile, k, held);
            rows.held = false;
            add_held<FORMAT, COUNT>(held, steps - k,
                                    m.scaled + at.s * (a.slice + PAD) + k * TSR_CUDA_STEP, stride,
                                    sum);
        }
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            for (int r = 0; r < 2; r++) {
                const int32_t e = tile * TSR_CUDA_TILE + at.g + 8 * r;
                const float v = add_slices(sum[j][r], 1);
                if (at.s == 0 && j < rows.count && e < a.c.experts)
                    cluster_send_4(
                        async_address(m.product + at.part * route_experts(a.c.experts) + e), m.came,
                        (uint32_t)j, v);
            }
        }
    }
}

/* A part of the squares of all rows, to all CTAs. */
static __device__ void share_squares(const route_args &a, const few_memory &m, int32_t rows)
{
    const int32_t lane = (int32_t)threadIdx.x % SQUARE_LANES;
    const int32_t row = (int32_t)threadIdx.x / SQUARE_LANES;
    const float *x = m.x + (row * ROUTE_SLICES + lane / 4) * a.slice + lane % 4 * ROUTE_FOURS;
    float sum = 0.0F;

    if (row / 2 * 2 >= rows) /* as whole warps */
        return;
    for (int32_t k = 0; k < a.slice; k += TSR_CUDA_STEP)
        sum = route_squares(*(const float4 *)(const void *)(x + k), sum);
    sum = add_slices(route_slice_squares(sum), 4);
    sum = __shfl_sync(TSR_ALL_LANES, sum, 0, SQUARE_LANES);
    if (lane < ROUTE_PARTS && row < rows)
        cluster_send_4(async_address(m.square + place_of().part * ROWS + row), m.came,
                       (uint32_t)lane, sum);
}

/* This part of the rows, as they are and times the norm's weights; zeros beyond the last column. */
static __device__ void enter_rows(const route_args &a, const few_memory &m, few_rows rows)
{
    const int32_t part = place_of().part;
    const int32_t columns = route_columns(a, part);
    const int32_t fours = a.slice; /* of a part */

    for (int32_t i = (int32_t)threadIdx.x; i < rows.count * fours; i += (int32_t)blockDim.x) {
        const int32_t row = i / fours;
        const int32_t c = i % fours * 4;
        const int32_t column = part * ROUTE_SLICES * a.slice + c;
        float4 v = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        if (c < columns)
            v = __ldcg((const float4 *)(const void *)(a.x +
                                                      (int64_t)(rows.first + row) * a.gate.in +
                                                      column));
        *(float4 *)(void *)(m.x + row * ROUTE_SLICES * a.slice + c) = v;
        if (a.norm != NULL && c < columns)
            v = route_times(v, 1.0F, __ldg((const float4 *)(const void *)(a.norm + column)));
        *(float4 *)(void *)(m.scaled + (row * ROUTE_SLICES + c / a.slice) * (a.slice + PAD) +
                            c % a.slice) = v;
    }
}

static __device__ __forceinline__ float factor_of(const route_args &a, const few_memory &m,
                                                  int32_t row)
{
    float square[ROUTE_PARTS];

    for (int p = 0; p < ROUTE_PARTS; p++)
        square[p] = m.square[p * ROWS + row];
    return route_factor(a, square);
}

/* This part of the normed rows, by all warps but the last. */
static __device__ void leave_rows(const route_args &a, const few_memory &m, few_rows rows,
                                  const choose_slots *slots)
{
    const int32_t part = place_of().part;
    const int32_t columns = route_columns(a, part);
    const int32_t fours = a.slice;

    if (a.norm == NULL)
        return;
    for (int32_t i = (int32_t)threadIdx.x; i < rows.count * fours;
         i += (int32_t)blockDim.x - TSR_CUDA_LANES) {
        const int32_t row = i / fours;
        const int32_t c = i % fours * 4;
        const int32_t column = part * ROUTE_SLICES * a.slice + c;
        if (c >= columns)
            continue;
        const float4 v = *(const float4 *)(const void *)(m.x + row * ROUTE_SLICES * a.slice + c);
        const float4 w = __ldg((const float4 *)(const void *)(a.norm + column));
        const float4 normed = route_times(v, factor_of(a, m, row), w);
        if (!slots->rehearses)
            *(float4 *)(void *)(a.normed + (rows.first + row) * a.normed_stride + column) = normed;
        tell_four(a.c.told, column, normed, slots->number, a.c.told != NULL && !slots->rehearses);
    }
}

/* The CTA's products have been looked at: others' next ones may come. Of one row there are none but
 * those of a rehearsal, where it does not matter what is read. */
template <int MOST> static __device__ __forceinline__ void let_come(void)
{
    if (MOST == 1)
        cluster_arrive_relaxed();
    else
        cluster_arrive();
}

/* The last warp's work: the row of this CTA. */
template <int EACH, int MOST, bool GROUPED>
static __device__ void choose_one(const route_args &a, const few_memory &m, int32_t first,
                                  choose_slots *slots)
{
    const int32_t mine = (int32_t)(threadIdx.x % TSR_CUDA_LANES) * EACH;
    const int32_t row = place_of().part;
    const int32_t experts = route_experts(a.c.experts);
    const float factor = factor_of(a, m, row);
    float x[EACH];

#pragma unroll(CHOOSE_MORE / 4)
    for (int i = 0; i < EACH; i += 4) {
        const int32_t e = min(mine + i, experts - 4);
        float4 sum = *(const float4 *)(const void *)(m.product + e);
#pragma unroll
        for (int p = 1; p < ROUTE_PARTS; p++)
            sum = route_sum(sum, *(const float4 *)(const void *)(m.product + p * experts + e));
        x[i] = route_logit(a, sum.x, factor, mine + i);
        x[i + 1] = route_logit(a, sum.y, factor, mine + i + 1);
        x[i + 2] = route_logit(a, sum.z, factor, mine + i + 2);
        x[i + 3] = route_logit(a, sum.w, factor, mine + i + 3);
    }
    let_come<MOST>();
    choose_row<EACH, GROUPED>(a.c, x, slots, m.scratch, first + row);
}

/* By one thread: the bytes that come of so many rows. */
static __device__ __forceinline__ void expect(const route_args &a, const few_memory &m,
                                              int32_t rows)
{
    const int32_t products = place_of().part < rows ? a.c.experts : 0;

    barrier_expect(m.came, (uint32_t)(ROUTE_PARTS * (rows + products)) * sizeof(float));
}

/* Rows that stand in shared memory: sums, then choices and normed rows. */
template <tsr_weight_format FORMAT, int EACH, int MOST, bool GROUPED>
static __device__ __forceinline__ void work_on_rows(const route_args &a, const few_memory &m,
                                                    few_rows rows, uint4 held[HELD],
                                                    choose_slots *slots)
{
    share_products<FORMAT, MOST>(a, m, rows, held);
    share_squares(a, m, rows.count);
    if (threadIdx.x == 0)
        expect(a, m, rows.count);
    barrier_wait_cluster(m.came, rows.turn);
    if (threadIdx.x / TSR_CUDA_LANES < blockDim.x / TSR_CUDA_LANES - 1) {
        leave_rows(a, m, rows, slots);
        let_come<MOST>();
    } else if (place_of().part < rows.count) {
        choose_one<EACH, MOST, GROUPED>(a, m, rows.first, slots);
    } else {
        let_come<MOST>();
    }
}

/* What choosing looks up, brought near while the kernel in front still works. */
static __device__ choose_args tables_near(const choose_args &c, const few_memory &m)
{
    choose_args near = c;

    for (int32_t e = (int32_t)threadIdx.x; e < c.experts; e += (int32_t)blockDim.x) {
        if (c.tag != NULL)
            m.tag_of[e] = __ldg(c.tag_of + e);
        if (c.bias != NULL)
            m.bias[e] = __ldg(c.bias + e);
    }
    near.tag_of = m.tag_of;
    near.bias = c.bias != NULL ? m.bias : NULL;
    return near;
}

template <tsr_weight_format FORMAT, int EACH, int MOST, bool GROUPED>
static __global__ void __launch_bounds__(TSR_CUDA_THREADS, CTAS)
    few_kernel(const __grid_constant__ route_args args, int32_t most, tsr_cuda_faults faults)
{
    extern __shared__ float4 memory[];
    __shared__ choose_slots slots;
    const few_memory m = memory_of(args, (float *)(void *)memory);
    const int32_t tile = (int32_t)threadIdx.x / TSR_CUDA_LANES;
    const int32_t steps = args.slice / TSR_CUDA_STEP;
    const int32_t clusters = (int32_t)gridDim.x / ROUTE_PARTS;
    /* All of a lane's weights. */
    const bool keeps = args.c.experts <= (int32_t)blockDim.x / TSR_CUDA_LANES * TSR_CUDA_TILE &&
                       steps <= steps_held(FORMAT);
    route_args a = args;
    uint4 held[HELD];
    few_rows rows = {(int32_t)blockIdx.x / ROUTE_PARTS * most, 0, true, 0};

    hold<FORMAT>(a, place_of(), min(tile, (args.c.experts - 1) / TSR_CUDA_TILE), 0, held);
    a.c = tables_near(args.c, m);
    if (threadIdx.x == 0) {
        slots.rehearses = keeps && clusters <= REHEARSED;
        barrier_open(m.came, 1);
        barriers_opened();
    }
    cluster_arrive_relaxed(); /* this CTA is there to be written to */
    tsr_admit_kernel();
    cluster_await();
    if (!keeps || clusters > REHEARSED)
        tsr_await_kernel();
#pragma unroll 1
    while (rows.first < a.tokens) {
        const bool is_faulty = tsr_is_faulty(faults);
        const bool tells = a.c.told != NULL && threadIdx.x == 0;
        const uint32_t number = tells ? *(const volatile uint32_t *)a.c.launches + 1 : 0;
        rows.count = min(a.tokens - rows.first, most);
        enter_rows(a, m, rows);
        if (tells)
            slots.number = number;
        __syncthreads();
        const bool rehearses = slots.rehearses;
        if (is_faulty && !rehearses) /* looked up while rows came */
            return;
        work_on_rows<FORMAT, EACH, MOST, GROUPED>(a, m, rows, held, &slots);
        rows.held = keeps;
        rows.turn ^= 1;
        cluster_await();
        if (!rehearses) {
            rows.first += clusters * most;
            continue;
        }
        __syncthreads(); /* all have seen that it was one */
        if (threadIdx.x == 0)
            slots.rehearses = false;
        tsr_await_kernel();
    }
}

typedef void few_kernel_type(const route_args, int32_t, tsr_cuda_faults);

/* A row has less code than rows, and what is not gone through is not fetched: kernels of their own; where
 * experts are grouped, which is seldom, as few as can be. */
template <tsr_weight_format FORMAT, int EACH>
static few_kernel_type *kernel_of_rows(int32_t most, bool grouped)
{
    if (grouped)
        return most == 1 ? few_kernel<FORMAT, EACH, 1, true> : few_kernel<FORMAT, EACH, ROWS, true>;
    return most == 1   ? few_kernel<FORMAT, EACH, 1, false>
           : most == 2 ? few_kernel<FORMAT, EACH, 2, false>
           : most == 4 ? few_kernel<FORMAT, EACH, 4, false>
                       : few_kernel<FORMAT, EACH, ROWS, false>;
}

template <tsr_weight_format FORMAT>
static few_kernel_type *kernel_of_experts(int32_t experts, int32_t most, bool grouped)
{
    return experts <= CHOOSE_FEW * TSR_CUDA_LANES
               ? kernel_of_rows<FORMAT, CHOOSE_FEW>(most, grouped)
           : experts <= CHOOSE_MORE * TSR_CUDA_LANES
               ? kernel_of_rows<FORMAT, CHOOSE_MORE>(most, grouped)
               : kernel_of_rows<FORMAT, CHOOSE_MOST>(most, grouped);
}

static few_kernel_type *kernel_of(tsr_weight_format format, int32_t experts, int32_t most,
                                  bool grouped)
{
    return format == TSR_WEIGHT_F32   ? kernel_of_experts<TSR_WEIGHT_F32>(experts, most, grouped)
           : format == TSR_WEIGHT_F16 ? kernel_of_experts<TSR_WEIGHT_F16>(experts, most, grouped)
                                      : kernel_of_experts<TSR_WEIGHT_BF16>(experts, most, grouped);
}

/* A multiprocessor with such a CTA has shared memory for one of experts beside it. */
static tsr_status prepare(few_kernel_type *kernel)
{
    const tsr_status st = TSR_CUDA(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, TSR_CUDA_SHARED));

    return st == TSR_OK
               ? TSR_CUDA(cudaFuncSetAttribute(kernel,
                                               cudaFuncAttributePreferredSharedMemoryCarveout,
                                               cudaSharedmemCarveoutMaxShared))
               : st;
}

static tsr_status prepare_for(tsr_weight_format format, int32_t experts)
{
    tsr_status st = TSR_OK;

    for (int32_t most = 1; most <= ROWS && st == TSR_OK; most *= 2) {
        st = prepare(kernel_of(format, experts, most, false));
        if (st == TSR_OK)
            st = prepare(kernel_of(format, experts, most, true));
    }
    return st;
}

tsr_status tsr_route_prepare_few(void)
{
    static const tsr_weight_format formats[] = {TSR_WEIGHT_F32, TSR_WEIGHT_F16, TSR_WEIGHT_BF16};
    static const int32_t each[] = {CHOOSE_FEW, CHOOSE_MORE, CHOOSE_MOST};
    tsr_status st = TSR_OK;

    for (int i = 0; i < 9 && st == TSR_OK; i++)
        st = prepare_for(formats[i / 3], each[i % 3] * TSR_CUDA_LANES);
    return st;
}

tsr_status tsr_route_few(const route_args *a, tsr_cuda_faults faults, cudaStream_t stream)
{
    tsr_cuda_launch_shape at = {};
    int32_t most = 1;

    while (most < ROWS && most * CLUSTERS < a->tokens)
        most *= 2;
    const int32_t clusters = tsr_smaller((a->tokens + most - 1) / most, CLUSTERS);
    at.grid.x = (unsigned)clusters * ROUTE_PARTS;
    at.threads = TSR_CUDA_THREADS;
    at.shared = memory_bytes(a);
    at.stream = stream;
    at.cluster = ROUTE_PARTS;
    if (at.shared > TSR_CUDA_SHARED) {
        tsr_log(TSR_LOG_ERROR, "cuda: a router over %d experts and rows of %d is not built for",
                (int)a->c.experts, (int)a->gate.in);
        return TSR_ERR_DEVICE;
    }
    return tsr_cuda_launch(at,
                           kernel_of(a->gate.format, a->c.experts, most, choose_is_grouped(a->c)),
                           *a, most, faults);
}
