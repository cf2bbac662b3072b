/*
 * K of E experts for a row, by one warp, from the row's logits. A lane holds EACH experts that follow
 * one another, so that of equal choices the lowest id is in the lowest lane:
 *
 *   lane       0           1           2        ..    choices become keys whose unsigned order is
 *   experts  | 0 1 2 3 |   | 4 5 6 7 |   | 8 9 ..     theirs; each lane offers its best, and the
 *   key        . . . .       . . . .       . .        lane that holds the best of all takes it into
 *                                                     the next slot: K times
 */
#ifndef TSR_KERNELS_CUDA_ROUTER_CHOOSE_CUDA_CUH
#define TSR_KERNELS_CUDA_ROUTER_CHOOSE_CUDA_CUH

#include "kernels/cuda/device/block_cuda.cuh"
#include "kernels/cuda/device/number_cuda.cuh"
#include "kernels/cuda/device/told_cuda.cuh"

/* What a warp needs to choose for a row. */
typedef struct choose_args {
    int32_t *expert;          /* of row t at expert_stride * t */
    int64_t expert_stride;    /* words */
    float *weight;            /* [T, K] */
    int32_t *tag;             /* [T, K], or NULL */
    uint64_t *told;           /* of a single row, or NULL */
    const uint32_t *launches; /* that have been in front of who is told */
    const int32_t *tag_of;    /* [E] */
    const float *bias;        /* [E], or NULL */
    tsr_router_kind kind;
    int32_t experts;
    int32_t top_k;
    int32_t groups;
    int32_t top_groups;
    bool normalise;
    float routed_scale;
} choose_args;

/* A warp's shared memory for a row. */
typedef struct choose_slots {
    int32_t id[TSR_MAX_TOP_K];
    float score[TSR_MAX_TOP_K];
    bool rehearses;  /* nothing is handed on */
    uint32_t number; /* of the launch that is told */
} choose_slots;

/* Experts a lane holds, as kernels are built for: up to 128, 256 and TSR_MAX_EXPERTS. */
enum {
    CHOOSE_FEW = 4,
    CHOOSE_MORE = 8,
    CHOOSE_MOST = TSR_MAX_EXPERTS / TSR_CUDA_LANES,
    CHOOSE_TAKEN = 0, /* a key that is below every choice's */
};

/* Unsigned order of keys is the order of values. */
static __device__ __forceinline__ uint32_t choose_key(float x)
{
    const uint32_t u = __float_as_uint(x + 0.0F);

    return max((u & 0x80000000U) != 0 ? ~u : u | 0x80000000U, CHOOSE_TAKEN + 1U);
}

static __device__ __forceinline__ float choose_value(uint32_t key)
{
    return __uint_as_float((key & 0x80000000U) != 0 ? key & 0x7fffffffU : ~key);
}

template <int EACH> static __device__ __forceinline__ uint32_t choose_best(const uint32_t key[EACH])
{
    uint32_t best = key[0];

#pragma unroll CHOOSE_MORE
    for (int i = 1; i < EACH; i++)
        best = max(best, key[i]);
    return best;
}

/*
 * The best choice of all is taken. Returns its place in the lane that holds it, -1 in others. Nothing
 * here branches: few instructions, one after the other, are what this takes.
 */
template <int EACH>
static __device__ __forceinline__ int choose_take(uint32_t key[EACH], uint32_t *mine)
{
    const uint32_t before = (1U << threadIdx.x % TSR_CUDA_LANES) - 1;
    const uint32_t most = __reduce_max_sync(TSR_ALL_LANES, *mine);
    const uint32_t holders = __ballot_sync(TSR_ALL_LANES, *mine == most);
    bool looks = *mine == most && (holders & before) == 0;
    int taken = -1;

#pragma unroll CHOOSE_MORE
    for (int i = 0; i < EACH; i++) {
        const bool is = looks && key[i] == most;
        taken = is ? i : taken;
        key[i] = is ? CHOOSE_TAKEN : key[i];
        looks = looks && !is;
    }
    *mine = choose_best<EACH>(key);
    return taken;
}

/* Logits to probabilities. */
template <int EACH> static __device__ __forceinline__ void choose_softmax(float x[EACH], int count)
{
    uint32_t most = CHOOSE_TAKEN;
    float sum = 0.0F;

#pragma unroll CHOOSE_MORE
    for (int i = 0; i < EACH; i++) {
        x[i] = i < count ? x[i] : -INFINITY;
        most = max(most, choose_key(x[i]));
    }
    const float peak = choose_value(__reduce_max_sync(TSR_ALL_LANES, most));
#pragma unroll CHOOSE_MORE
    for (int i = 0; i < EACH; i++) {
        x[i] = expf(x[i] - peak);
        sum += x[i];
    }
    sum = tsr_warp_sum(sum);
#pragma unroll CHOOSE_MORE
    for (int i = 0; i < EACH; i++)
        x[i] = x[i] / sum;
}

/* The sum of a group's two largest choices; of one, if there is but one. */
static __device__ float choose_group_score(const float *choice, int32_t size)
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

/* Experts outside the best groups get the choice -inf. `scratch` is the warp's: [E]. */
template <int EACH>
static __device__ void choose_groups(const choose_args &a, float *scratch, uint32_t key[EACH])
{
    const int32_t first = (int32_t)(threadIdx.x % TSR_CUDA_LANES) * EACH;
    const int32_t size = a.experts / a.groups;
    uint32_t group[EACH];

#pragma unroll CHOOSE_MORE
    for (int i = 0; i < EACH; i++) {
        if (first + i < a.experts)
            scratch[first + i] = choose_value(key[i]);
    }
    __syncwarp();
#pragma unroll CHOOSE_MORE
    for (int i = 0; i < EACH; i++)
        group[i] = first + i < a.groups
                       ? choose_key(choose_group_score(scratch + (first + i) * size, size))
                       : CHOOSE_TAKEN;
    __syncwarp();
#pragma unroll CHOOSE_MORE
    for (int i = 0; i < EACH; i++) {
        if (first + i < a.groups)
            scratch[first + i] = 0.0F;
    }
    uint32_t mine = choose_best<EACH>(group);
#pragma unroll 1
    for (int32_t k = 0; k < a.top_groups; k++) {
        const int taken = choose_take<EACH>(group, &mine);
        if (taken >= 0)
            scratch[first + taken] = 1.0F;
    }
    __syncwarp();
#pragma unroll CHOOSE_MORE
    for (int i = 0; i < EACH; i++) {
        if (first + i < a.experts && scratch[(first + i) / size] == 0.0F)
            key[i] = choose_key(-INFINITY);
    }
    __syncwarp();
}

/* Slots to what is handed on, a lane a slot. */
static __device__ __forceinline__ void choose_write(const choose_args &a, const choose_slots *slots,
                                                    int64_t row)
{
    float sum = 0.0F;

#pragma unroll 8
    for (int32_t k = 0; k < a.top_k; k++)
        sum += slots->score[k];
    if (a.kind == TSR_ROUTER_SIGMOID)
        sum += 1e-20F;
#pragma unroll 1
    for (int32_t k = (int32_t)(threadIdx.x % TSR_CUDA_LANES); k < a.top_k; k += TSR_CUDA_LANES) {
        float w = slots->score[k];
        if (a.normalise)
            w = w / sum;
        if (a.kind == TSR_ROUTER_SIGMOID)
            w = w * a.routed_scale;
        if (slots->rehearses)
            continue;
        a.weight[row * a.top_k + k] = w;
        a.expert[row * a.expert_stride + k] = slots->id[k];
        if (a.tag != NULL)
            a.tag[row * a.top_k + k] = a.tag_of[slots->id[k]];
    }
}

/* Whether some experts are out of the question, which is code that most models do not need. */
static __host__ __device__ __forceinline__ bool choose_is_grouped(const choose_args &a)
{
    return a.kind == TSR_ROUTER_SIGMOID && a.top_groups != a.groups;
}

/* One row; logits are changed. GROUPED: experts may be out of the question. */
template <int EACH, bool GROUPED>
static __device__ void choose_row(const choose_args &a, float x[EACH], choose_slots *slots,
                                  float *scratch, int64_t row)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t first = lane * EACH;
    const int32_t count = a.experts - first;
    const bool tells = a.told != NULL && !slots->rehearses;
    uint32_t key[EACH];

    if (a.kind == TSR_ROUTER_SOFTMAX)
        choose_softmax<EACH>(x, count);
#pragma unroll CHOOSE_MORE
    for (int i = 0; i < EACH; i++) {
        float choice = x[i];
        if (a.kind == TSR_ROUTER_SIGMOID) {
            x[i] = tsr_sigmoid(x[i]);
            choice = a.bias != NULL && i < count ? x[i] + a.bias[first + i] : x[i];
        }
        key[i] = i < count ? choose_key(choice) : CHOOSE_TAKEN;
    }
    if (GROUPED && choose_is_grouped(a))
        choose_groups<EACH>(a, scratch, key);
    uint32_t mine = choose_best<EACH>(key);
#pragma unroll 1
    for (int32_t k = 0; k < a.top_k; k++) {
        const int taken = choose_take<EACH>(key, &mine);
        float score = x[0];
#pragma unroll CHOOSE_MORE
        for (int i = 1; i < EACH; i++)
            score = i == taken ? x[i] : score;
        if (taken >= 0) {
            slots->id[k] = first + taken;
            slots->score[k] = score;
        }
    }
    __syncwarp();
    /* All at once: the first one's weights would come in the way of the last one's word. */
    tell_id(a.told, lane, slots->id[lane], slots->number, tells && lane < a.top_k);
    choose_write(a, slots, row);
    __syncwarp(); /* the next row's slots */
}

#endif
