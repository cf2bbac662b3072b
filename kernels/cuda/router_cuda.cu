/*
 * The router: logits by the gate in f32, then K of E experts for each row, a warp a row, as
 * router_cpu.c has it:
 *
 *   softmax   choice = p
 *             weight = p, divided by the sum of the chosen where normalised
 *   sigmoid   choice = s + bias, -inf outside the best groups
 *             weight = s, / (sum + 1e-20) where normalised, * routed_scale
 *
 * Sums over the chosen are in slot order. Equal choices go to the lower id.
 */
#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/linear_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"

/* What a warp needs to choose for a row. */
typedef struct choose_args {
    int32_t *expert;
    float *weight;
    const float *logits;
    const float *bias;
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

/* The largest of `count` choices that is not taken; the first of equals. All lanes get it. */
static __device__ int32_t best_of(const float *choice, const unsigned char *taken, int32_t count,
                                  int32_t lane)
{
    int32_t best = -1;
    float most = 0.0F;

    for (int32_t i = lane; i < count; i += TSR_CUDA_LANES) {
        if (taken[i] == 0 && (best < 0 || choice[i] > most)) {
            best = i;
            most = choice[i];
        }
    }
    for (int apart = TSR_CUDA_LANES / 2; apart > 0; apart /= 2) {
        const int32_t other = __shfl_xor_sync(TSR_ALL_LANES, best, apart);
        const float theirs = __shfl_xor_sync(TSR_ALL_LANES, most, apart);
        const bool better = best < 0 || theirs > most || (theirs == most && other < best);
        if (other >= 0 && better) {
            best = other;
            most = theirs;
        }
    }
    return __shfl_sync(TSR_ALL_LANES, best, 0);
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
    for (int32_t i = 0; i < a.top_groups; i++) {
        const int32_t best = best_of(r.group, r.taken, a.groups, lane);
        if (lane == 0)
            r.taken[best] = 1;
        __syncwarp();
    }
    for (int32_t e = lane; e < a.experts; e += TSR_CUDA_LANES) {
        if (r.taken[e / size] == 0)
            r.choice[e] = -INFINITY;
    }
    __syncwarp();
}

/* Slot k's choice stays with lane 0, which writes the row in the end. */
static __device__ void choose(const choose_args &a, const row_choices &r, int64_t row, int32_t lane)
{
    int32_t *expert = a.expert + row * a.top_k;
    float *weight = a.weight + row * a.top_k;
    float sum = 0.0F;

    for (int32_t e = lane; e < a.experts; e += TSR_CUDA_LANES)
        r.taken[e] = 0;
    __syncwarp();
    for (int32_t k = 0; k < a.top_k; k++) {
        const int32_t best = best_of(r.choice, r.taken, a.experts, lane);
        sum += r.score[best];
        if (lane == 0) {
            expert[k] = best;
            weight[k] = r.score[best];
            r.taken[best] = 1;
        }
        __syncwarp();
    }
    if (a.kind == TSR_ROUTER_SIGMOID)
        sum += 1e-20F;
    for (int32_t k = lane; k < a.top_k; k += TSR_CUDA_LANES) {
        float w = weight[k];
        if (a.normalise)
            w = w / sum;
        if (a.kind == TSR_ROUTER_SIGMOID)
            w = w * a.routed_scale;
        weight[k] = w;
    }
}

static __global__ void choose_kernel(choose_args a, tsr_cuda_faults faults)
{
    extern __shared__ float memory[];
    const int64_t row = blockIdx.x;
    const int32_t lane = (int32_t)threadIdx.x;
    row_choices r;

    if (tsr_is_faulty(faults))
        return;
    r.score = memory;
    r.choice = r.score + a.experts;
    r.group = r.choice + a.experts;
    r.taken = (unsigned char *)(void *)(r.group + a.groups);
    for (int32_t e = lane; e < a.experts; e += TSR_CUDA_LANES)
        r.score[e] = a.logits[row * a.experts + e];
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

static choose_args args_of(const tsr_cuda_device *cuda, const tsr_router_args *a)
{
    const tsr_router *router = a->router;
    choose_args c = {};

    c.expert = a->expert;
    c.weight = a->weight;
    c.logits = cuda->work.logits;
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

tsr_status tsr_router_cuda(tsr_device *device, const tsr_router_args *a, tsr_stream s)
{
    tsr_cuda_device *cuda = tsr_cuda(device);
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    const choose_args c = args_of(cuda, a);
    const size_t experts = (size_t)c.experts;
    const size_t bytes =
        (2 * experts + (size_t)c.groups) * sizeof(float) + experts; /* taken: a byte each */
    tsr_cuda_product p = {};

    if (a->tokens == 0)
        return TSR_OK;
    if (bytes > 48 * 1024) {
        tsr_log(TSR_LOG_ERROR, "cuda: a router over %zu experts in %d groups is not built for",
                experts, (int)c.groups);
        return TSR_ERR_DEVICE;
    }
    p.x = (const uint16_t *)a->x;
    p.x_stride = a->router->gate->in;
    p.y = cuda->work.logits;
    p.y_stride = c.experts;
    p.rows = a->tokens;
    p.f32 = true;
    const tsr_status st = tsr_cuda_linear(cuda, a->router->gate, &p, false, stream);
    if (st != TSR_OK)
        return st;
    choose_kernel<<<(unsigned)a->tokens, TSR_CUDA_LANES, bytes, stream>>>(c, cuda->faults);
    return TSR_CUDA_LAUNCHED();
}
