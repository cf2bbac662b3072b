/*
 * The router: norm, logits by the gate in f32, then K of E experts for each row, as router_cpu.c has
 * it:
 *
 *   softmax   choice = p
 *             weight = p, divided by the sum of the chosen where normalised
 *   sigmoid   choice = s + bias, -inf outside the best groups
 *             weight = s, / (sum + 1e-20) where normalised, * routed_scale
 *
 * Sums over the chosen are in slot order. Equal choices go to the lower id.
 *
 * A cluster of CTAs takes four rows at a time; each CTA norms them and computes the logits of its
 * share of the experts, 16 by 16, its warps an eighth of the columns each. The logits meet in the
 * first CTA, where a warp chooses for each row:
 *
 *   CTA 0   norm | logits 0..15   --.               .-- choose row 0, row 1, row 2, row 3
 *   CTA 1   norm | logits 16..31  --+-- cluster --- '
 *   ..                              |                next four rows: the other half of the logits
 */
#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"
#include "kernels/cuda/packed_cuda.cuh"
#include "kernels/cuda/router_cuda.cuh"

#include <cooperative_groups.h>

enum {
    ROWS = 4,
    MOST_CLUSTER = 8,
    CLUSTER_CTAS = 132 * 4,
    AHEAD = 8,  /* steps of a gate on their way to a warp */
    CTAS = 2,   /* on a multiprocessor: what registers are cut for */
    LINE = 128, /* bytes that are fetched together */
};

/* What a warp needs to choose for a row. */
typedef struct choose_args {
    int32_t *expert;       /* of row t at expert_stride * t */
    int64_t expert_stride; /* words */
    float *weight;         /* [T, K] */
    int32_t *tag;          /* [T, K], or NULL */
    const int32_t *tag_of; /* [E] */
    const float *bias;     /* [E], or NULL */
    tsr_router_kind kind;
    int32_t experts;
    int32_t top_k;
    int32_t groups;
    int32_t top_groups;
    bool normalise;
    float routed_scale;
} choose_args;

/* A row's memory, shared by its warp: E of each. */
typedef struct row_choices {
    float *score;
    float *choice;
    float *group; /* scores of the groups */
    unsigned char *taken;
} row_choices;

static __device__ void softmax(float *x, int32_t count, int32_t lane)
{
    float most = -INFINITY;
    float sum = 0.0F;

    for (int32_t i = lane; i < count; i += TSR_CUDA_LANES)
        most = fmaxf(most, x[i]);
    most = tsr_warp_max(most);
    for (int32_t i = lane; i < count; i += TSR_CUDA_LANES) {
        x[i] = expf(x[i] - most);
        sum += x[i];
    }
    sum = tsr_warp_sum(sum);
    for (int32_t i = lane; i < count; i += TSR_CUDA_LANES)
        x[i] = x[i] / sum;
}

/* Unsigned order of keys is the order of values. */
static __device__ __forceinline__ uint32_t key_of(float x)
{
    const uint32_t u = __float_as_uint(x + 0.0F);

    return (u & 0x80000000U) != 0 ? ~u : u | 0x80000000U;
}

/* A lane's best of `count` choices that are not taken, its every 32nd; the first of equals. */
typedef struct lane_best {
    uint32_t key;
    int32_t id; /* INT32_MAX: none is left */
} lane_best;

static __device__ __forceinline__ lane_best best_of_lane(const float *choice,
                                                         const unsigned char *taken, int32_t count,
                                                         int32_t lane)
{
    lane_best best = {0, INT32_MAX};

    for (int32_t i = lane; i < count; i += TSR_CUDA_LANES) {
        const uint32_t key = key_of(choice[i]);
        if (taken[i] == 0 && (best.id == INT32_MAX || key > best.key)) {
            best.key = key;
            best.id = i;
        }
    }
    return best;
}

/* The best of all lanes, the lowest of equals; it is taken, and its lane looks again. */
static __device__ __forceinline__ int32_t take_best(const float *choice, unsigned char *taken,
                                                    int32_t count, int32_t lane, lane_best *mine)
{
    const uint32_t most = __reduce_max_sync(TSR_ALL_LANES, mine->key);
    const int32_t best = __reduce_min_sync(TSR_ALL_LANES, mine->key == most ? mine->id : INT32_MAX);

    if (best % TSR_CUDA_LANES == lane) {
        taken[best] = 1;
        *mine = best_of_lane(choice, taken, count, lane);
    }
    __syncwarp();
    return best;
}

/* The sum of a group's two largest choices; of one, if there is but one. */
static __device__ float group_score(const float *choice, int32_t size)
{
    float first = -INFINITY;
    float second = -INFINITY;

    for (int32_t i = 0; i < size; i++) {
        if (choice[i] > first) {
            second = first;
            first = choice[i];
        } else if (choice[i] > second) {
            second = choice[i];
        }
    }
    return size == 1 ? first : first + second;
}

/* Experts outside the best groups get the choice -inf. */
static __device__ void keep_groups(const choose_args &a, const row_choices &r, int32_t lane)
{
    const int32_t size = a.experts / a.groups;

    if (a.top_groups == a.groups)
        return;
    for (int32_t g = lane; g < a.groups; g += TSR_CUDA_LANES) {
        r.group[g] = group_score(r.choice + g * size, size);
        r.taken[g] = 0;
    }
    __syncwarp();
    lane_best mine = best_of_lane(r.group, r.taken, a.groups, lane);
    for (int32_t i = 0; i < a.top_groups; i++)
        (void)take_best(r.group, r.taken, a.groups, lane, &mine);
    for (int32_t e = lane; e < a.experts; e += TSR_CUDA_LANES) {
        if (r.taken[e / size] == 0)
            r.choice[e] = -INFINITY;
    }
    __syncwarp();
}

/* Slot k's choice stays with lane k % 32. */
static __device__ void choose(const choose_args &a, const row_choices &r, int64_t row, int32_t lane)
{
    int32_t chosen[TSR_MAX_TOP_K / TSR_CUDA_LANES] = {};
    float sum = a.kind == TSR_ROUTER_SIGMOID ? 1e-20F : 0.0F;
    float before = 0.0F;

    for (int32_t e = lane; e < a.experts; e += TSR_CUDA_LANES)
        r.taken[e] = 0;
    __syncwarp();
    lane_best mine = best_of_lane(r.choice, r.taken, a.experts, lane);
    for (int32_t k = 0; k < a.top_k; k++) {
        const int32_t best = take_best(r.choice, r.taken, a.experts, lane, &mine);
        before += r.score[best];
        if (k % TSR_CUDA_LANES == lane)
            chosen[k / TSR_CUDA_LANES] = best;
    }
    sum += before;
#pragma unroll
    for (int32_t i = 0; i < TSR_MAX_TOP_K / TSR_CUDA_LANES; i++) {
        const int32_t k = i * TSR_CUDA_LANES + lane;
        if (k >= a.top_k)
            break;
        float w = r.score[chosen[i]];
        if (a.normalise)
            w = w / sum;
        if (a.kind == TSR_ROUTER_SIGMOID)
            w = w * a.routed_scale;
        a.weight[row * a.top_k + k] = w;
        a.expert[row * a.expert_stride + k] = chosen[i];
        if (a.tag != NULL)
            a.tag[row * a.top_k + k] = a.tag_of[chosen[i]];
    }
}

/* One row by one warp, from its logits. */
static __device__ void choose_row(const choose_args &a, const row_choices &r, int64_t row,
                                  int32_t lane)
{
    if (a.kind == TSR_ROUTER_SOFTMAX)
        softmax(r.score, a.experts, lane);
    for (int32_t e = lane; e < a.experts; e += TSR_CUDA_LANES) {
        if (a.kind == TSR_ROUTER_SIGMOID)
            r.score[e] = tsr_sigmoid(r.score[e]);
        r.choice[e] = r.score[e];
        if (a.kind == TSR_ROUTER_SIGMOID && a.bias != NULL)
            r.choice[e] += a.bias[e];
    }
    __syncwarp();
    if (a.kind == TSR_ROUTER_SIGMOID)
        keep_groups(a, r, lane);
    choose(a, r, row, lane);
}

typedef struct route_args {
    choose_args c;
    tsr_linear gate;
    const float *x;
    const float *norm; /* NULL: x is normed */
    float *normed;     /* row t at normed_stride * t, where there is a norm */
    int64_t normed_stride;
    int32_t tokens;
    float eps;
} route_args;

/* A CTA's memory, behind one another. */
typedef struct route_memory {
    float *x;             /* [ROWS, H] */
    float *logits;        /* [2, ROWS, E] */
    float *choice;        /* [ROWS, E] */
    float *group;         /* [ROWS, groups] */
    unsigned char *taken; /* [ROWS, E or groups] */
} route_memory;

static __host__ __device__ size_t memory_bytes(int32_t hidden, int32_t experts, int32_t groups)
{
    const size_t floats = (size_t)hidden + 3 * (size_t)experts + (size_t)groups;

    return ROWS * (floats * sizeof(float) + (size_t)experts);
}

static __device__ route_memory memory_of(const route_args &a, float *memory)
{
    route_memory m;

    m.x = memory;
    m.logits = m.x + ROWS * a.gate.in;
    m.choice = m.logits + 2 * ROWS * a.c.experts;
    m.group = m.choice + ROWS * a.c.experts;
    m.taken = (unsigned char *)(void *)(m.group + ROWS * a.c.groups);
    return m;
}

/* The threads' sums for each of four rows, added up as tsr_cta_sum does. */
static __device__ __forceinline__ void sum_rows(float sum[ROWS])
{
    __shared__ float part[TSR_CUDA_WARPS][ROWS];

    for (int j = 0; j < ROWS; j++) {
        sum[j] = tsr_warp_sum(sum[j]);
        if (threadIdx.x % TSR_CUDA_LANES == 0)
            part[threadIdx.x / TSR_CUDA_LANES][j] = sum[j];
    }
    __syncthreads();
    for (int j = 0; j < ROWS; j++) {
        sum[j] = 0.0F;
        for (int w = 0; w < TSR_CUDA_WARPS; w++)
            sum[j] += part[w][j];
    }
}

/* Up to four rows into shared memory, normed; the first CTA writes them down. */
static __device__ void enter_rows(const route_args &a, int64_t first, int32_t rows, float *memory,
                                  bool writes)
{
    const int32_t fours = a.gate.in / 4;
    const float4 *x = (const float4 *)(const void *)(a.x + first * a.gate.in);
    const float4 *norm = (const float4 *)(const void *)a.norm;
    float4 *to = (float4 *)(void *)memory;
    float sum[ROWS] = {};

    for (int32_t i = (int32_t)threadIdx.x; i < fours; i += TSR_CUDA_THREADS) {
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            if (j >= rows)
                break;
            const float4 v = __ldcg(x + j * fours + i);
            to[j * fours + i] = v;
            sum[j] = fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum[j]))));
        }
    }
    if (a.norm == NULL)
        return;
    sum_rows(sum);
    for (int j = 0; j < ROWS; j++)
        sum[j] = 1.0F / sqrtf(sum[j] / (float)a.gate.in + a.eps);
    for (int32_t i = (int32_t)threadIdx.x; i < fours; i += TSR_CUDA_THREADS) {
        const float4 w = __ldg(norm + i);
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            if (j >= rows)
                break;
            float4 v = to[j * fours + i];
            v = make_float4(v.x * sum[j] * w.x, v.y * sum[j] * w.y, v.z * sum[j] * w.z,
                            v.w * sum[j] * w.w);
            to[j * fours + i] = v;
            if (writes)
                ((float4 *)(void *)(a.normed + (first + j) * a.normed_stride))[i] = v;
        }
    }
}

/* A lane's eight weights of one step: rows g and g + 8, columns 2t, 2t+1, 2t+8, 2t+9. */
typedef struct gate_weights {
    float w[2][4];
} gate_weights;

static __device__ __forceinline__ gate_weights plain_weights(const tsr_linear &l, int32_t tile,
                                                             int32_t step)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    gate_weights g;

    for (int r = 0; r < 2; r++) {
        const int64_t row = min(tile * TSR_CUDA_TILE + lane / 4 + 8 * r, l.out - 1);
        const float *at =
            (const float *)l.weight + row * l.in + step * TSR_CUDA_STEP + lane % 4 * 2;
        for (int i = 0; i < 4; i++)
            g.w[r][i] = at[i / 2 * 8 + i % 2];
    }
    return g;
}

static __device__ __forceinline__ gate_weights unpacked(const tsr_linear &l, uint4 unit)
{
    const uint32_t word[4] = {unit.x, unit.y, unit.z, unit.w};
    gate_weights g;

    for (int i = 0; i < 8; i++) {
        const uint16_t code = (uint16_t)(word[i / 2] >> 16 * (i % 2));
        g.w[i / 2 % 2][i / 4 * 2 + i % 2] =
            l.format == TSR_WEIGHT_BF16 ? tsr_from_bf16(code) : tsr_from_f16(code);
    }
    return g;
}

/* Four rows by the weights of a step. */
static __device__ __forceinline__ void add_step(const gate_weights &g, const float *at, int32_t in,
                                                int32_t rows, float sum[ROWS][2])
{
#pragma unroll
    for (int j = 0; j < ROWS; j++) {
        if (j >= rows)
            break;
        const float2 low = *(const float2 *)(const void *)(at + j * in);
        const float2 high = *(const float2 *)(const void *)(at + j * in + 8);
        const float v[4] = {low.x, low.y, high.x, high.y};
        for (int i = 0; i < 4; i++) {
            sum[j][0] = fmaf(v[i], g.w[0][i], sum[j][0]);
            sum[j][1] = fmaf(v[i], g.w[1][i], sum[j][1]);
        }
    }
}

/* A warp's part of the logits of a tile of 16 experts: eight steps of weights on their way at once. */
static __device__ void logits_of_warp(const route_args &a, int32_t tile, const float *x,
                                      int32_t rows, float part[ROWS][TSR_CUDA_TILE])
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t steps = a.gate.in / TSR_CUDA_STEP;
    const int32_t last = (warp + 1) * steps / TSR_CUDA_WARPS;
    const uint4 *units =
        (const uint4 *)a.gate.weight +
        (int64_t)tile * (tsr_cuda_padded(a.gate.in) / TSR_CUDA_STEP) * TSR_CUDA_LANES + lane;
    float sum[ROWS][2] = {};

    for (int32_t s = warp * steps / TSR_CUDA_WARPS; s < last; s += AHEAD) {
        uint4 unit[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (s + i < last && a.gate.format != TSR_WEIGHT_F32)
                unit[i] = units[(s + i) * TSR_CUDA_LANES];
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (s + i >= last)
                break;
            const gate_weights g = a.gate.format == TSR_WEIGHT_F32
                                       ? plain_weights(a.gate, tile, s + i)
                                       : unpacked(a.gate, unit[i]);
            add_step(g, x + (s + i) * TSR_CUDA_STEP + lane % 4 * 2, a.gate.in, rows, sum);
        }
    }
    for (int j = 0; j < ROWS; j++) {
        for (int r = 0; r < 2; r++) {
            float v = sum[j][r];
            v += __shfl_xor_sync(TSR_ALL_LANES, v, 1);
            v += __shfl_xor_sync(TSR_ALL_LANES, v, 2);
            if (lane % 4 == 0)
                part[j][lane / 4 + 8 * r] = v;
        }
    }
}

/* Brings this CTA's share of the gate near, while the kernel in front still works. */
static __device__ void expect_gate(const route_args &a)
{
    const int64_t bytes = (int64_t)tsr_cuda_padded(a.gate.in) * TSR_CUDA_TILE * 2;
    const int32_t tile = (int32_t)cooperative_groups::this_cluster().block_rank();
    const unsigned char *from = (const unsigned char *)a.gate.weight + tile * bytes;

    if (a.norm != NULL && (int32_t)threadIdx.x * LINE < a.gate.in * 4)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(a.norm + threadIdx.x * (LINE / 4)));
    if (a.gate.format == TSR_WEIGHT_F32)
        return;
    for (int64_t i = (int64_t)threadIdx.x * LINE; i < bytes; i += TSR_CUDA_THREADS * LINE)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(from + i));
}

/* This CTA's logits of up to four rows, into the first CTA's memory. */
static __device__ void share_logits(const route_args &a, const route_memory &m, int32_t rows,
                                    float *logits)
{
    __shared__ float part[TSR_CUDA_WARPS][ROWS][TSR_CUDA_TILE];
    const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    const int32_t tiles = (a.c.experts + TSR_CUDA_TILE - 1) / TSR_CUDA_TILE;
    float *first = cluster.map_shared_rank(logits, 0);

    for (int32_t tile = (int32_t)cluster.block_rank(); tile < tiles;
         tile += (int32_t)cluster.num_blocks()) {
        logits_of_warp(a, tile, m.x, rows, part[threadIdx.x / TSR_CUDA_LANES]);
        __syncthreads();
        const int32_t j = (int32_t)threadIdx.x / TSR_CUDA_TILE;
        const int32_t r = (int32_t)threadIdx.x % TSR_CUDA_TILE;
        const int32_t e = tile * TSR_CUDA_TILE + r;
        if (j < rows && e < a.c.experts) {
            float sum = part[0][j][r];
            for (int w = 1; w < TSR_CUDA_WARPS; w++)
                sum += part[w][j][r];
            first[j * a.c.experts + e] = a.gate.bias != NULL ? sum + a.gate.bias[e] : sum;
        }
        __syncthreads();
    }
}

static __global__ void __launch_bounds__(TSR_CUDA_THREADS, CTAS)
    route_kernel(const __grid_constant__ route_args a, tsr_cuda_faults faults)
{
    extern __shared__ float memory[];
    cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    const route_memory m = memory_of(a, memory);
    const int32_t clusters = (int32_t)(gridDim.x / cluster.num_blocks());
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const bool is_first = cluster.block_rank() == 0;
    int32_t half = 0;

    expect_gate(a);
    cluster.sync(); /* all are there to be written to */
    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    for (int32_t t = (int32_t)(blockIdx.x / cluster.num_blocks()) * ROWS; t < a.tokens;
         t += clusters * ROWS, half ^= 1) {
        const int32_t rows = min(a.tokens - t, (int32_t)ROWS);
        float *logits = m.logits + half * ROWS * a.c.experts;
        enter_rows(a, t, rows, m.x, is_first);
        __syncthreads();
        share_logits(a, m, rows, logits);
        cluster.sync();
        if (is_first && warp < rows) {
            row_choices r;
            r.score = logits + warp * a.c.experts;
            r.choice = m.choice + warp * a.c.experts;
            r.group = m.group + warp * a.c.groups;
            r.taken = m.taken + warp * a.c.experts;
            choose_row(a.c, r, t + warp, (int32_t)(threadIdx.x % TSR_CUDA_LANES));
        }
    }
}

static choose_args choose_args_of(const tsr_router *router)
{
    choose_args c = {};

    c.bias = router->bias;
    c.kind = router->kind;
    c.experts = router->gate->out;
    c.top_k = router->top_k;
    c.groups = router->kind == TSR_ROUTER_SIGMOID ? router->groups : 1;
    c.top_groups = router->top_groups;
    c.normalise = router->normalise;
    c.routed_scale = router->routed_scale;
    return c;
}

tsr_status tsr_cuda_prepare_router(void)
{
    return TSR_CUDA(cudaFuncSetAttribute(route_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         TSR_CUDA_SHARED));
}

static tsr_status route(tsr_cuda_device *cuda, const route_args *a, cudaStream_t stream)
{
    const int32_t tiles = (a->c.experts + TSR_CUDA_TILE - 1) / TSR_CUDA_TILE;
    const int32_t groups = (a->tokens + ROWS - 1) / ROWS;
    tsr_cuda_launch_shape at = {};

    at.threads = TSR_CUDA_THREADS;
    at.shared = memory_bytes(a->gate.in, a->c.experts, a->c.groups);
    at.stream = stream;
    at.cluster = MOST_CLUSTER;
    while ((int32_t)at.cluster > tiles)
        at.cluster /= 2;
    if (at.shared > TSR_CUDA_SHARED) {
        tsr_log(TSR_LOG_ERROR, "cuda: a router over %d experts and rows of %d is not built for",
                (int)a->c.experts, (int)a->gate.in);
        return TSR_ERR_DEVICE;
    }
    at.grid.x = (unsigned)tsr_smaller(groups, CLUSTER_CTAS / (int32_t)at.cluster) * at.cluster;
    return tsr_cuda_launch(at, route_kernel, *a, cuda->faults);
}

tsr_status tsr_router_cuda(tsr_device *device, const tsr_router_args *a, tsr_stream s)
{
    route_args r = {};

    if (a->tokens == 0)
        return TSR_OK;
    r.c = choose_args_of(a->router);
    r.c.expert = a->expert;
    r.c.expert_stride = a->router->top_k;
    r.c.weight = a->weight;
    r.gate = *a->router->gate;
    r.x = (const float *)a->x;
    r.tokens = a->tokens;
    return route(tsr_cuda(device), &r, tsr_cuda_stream(device, s));
}

tsr_status tsr_choose_cuda(tsr_device *device, const tsr_choose_block *b, tsr_stream s)
{
    const tsr_experts *e = b->experts;
    route_args r = {};

    r.c = choose_args_of(&e->router);
    r.c.expert = (int32_t *)b->rows + e->hidden;
    r.c.expert_stride = (int64_t)(e->row_bytes / sizeof(int32_t));
    r.c.weight = b->weight;
    r.c.tag = b->tag;
    r.c.tag_of = e->tag_of;
    r.gate = *e->router.gate;
    r.x = (const float *)b->x;
    r.norm = b->norm;
    r.normed = (float *)b->rows;
    r.normed_stride = r.c.expert_stride;
    r.tokens = b->tokens;
    r.eps = b->eps;
    return route(tsr_cuda(device), &r, tsr_cuda_stream(device, s));
}
