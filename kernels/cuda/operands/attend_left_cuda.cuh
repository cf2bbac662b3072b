/*
 * What attention of a single row leaves for who makes its operand row (few_rows_cuda.cuh): for every up
 * to 16 query heads of a kv head, places with sums of splits that follow each other:
 *
 *   place | most, weight of each head | values: heads 0 .. 7 | heads 8 .. 15 |
 *                                               \ dims 16 w .. of warp w, by eights; head, pair of dims
 */
#ifndef TSR_KERNELS_CUDA_OPERANDS_ATTEND_LEFT_CUDA_CUH
#define TSR_KERNELS_CUDA_OPERANDS_ATTEND_LEFT_CUDA_CUH

#include "kernels/cuda/device/block_cuda.cuh"
#include "kernels/cuda/operands/rows_cuda.cuh"

/* As tsr_attend_cuda with r, for a single row over a cache that is not F32; but the sums of splits are left
 * where ret_left says, and nothing is stored at a's out and rows. */
tsr_status tsr_attend_leaving_cuda(tsr_device *device, const tsr_rotary_args *r,
                                   const tsr_attention_args *a, tsr_stream s,
                                   tsr_cuda_splits *ret_left);

/* How a row's splits are shared out: chunk 0 leaves one place, the others one for each split: it takes
 * more where places are few. */
typedef struct tsr_row_cut {
    int32_t splits;
    int32_t leading; /* splits of chunk 0 */
    int32_t each;    /* of every other chunk */
} tsr_row_cut;

static __device__ __forceinline__ tsr_row_cut tsr_cut_row(int32_t position, int32_t chunks,
                                                          int32_t places)
{
    tsr_row_cut c;

    c.splits = position / TSR_ATTEND_SPLIT + 1;
    c.each = (c.splits + chunks - 1) / chunks;
    c.leading = chunks > 1 ? max(c.each, c.splits - (places - 1)) : c.splits;
    return c;
}

/* Two neighbouring columns of a row. */
typedef struct tsr_left {
    const float *value;  /* in the first place */
    const float *weight; /* of their head */
    int32_t count;       /* of places; 0: there are no such columns */
} tsr_left;

/* Places of the row; none where the sequence does not fit, which is a fault. */
static __device__ __forceinline__ int32_t tsr_places_of(const tsr_cuda_splits &s)
{
    const tsr_attention_sequence seq = *s.sequence;
    const tsr_row_cut c = tsr_cut_row(seq.first_position, s.chunks, s.places);

    return seq.rows == 1 ? min(c.splits - c.leading + 1, s.places) : 0;
}

static __device__ __forceinline__ tsr_left tsr_left_of(const tsr_cuda_splits &s, int32_t column)
{
    const int32_t head = column / s.head_dim;
    const int32_t dim = column - head * s.head_dim;
    const int32_t kv_head = head / s.shared;
    const int32_t within = head - kv_head * s.shared;
    const int32_t g = within % TSR_ATTEND_ROWS;
    const int32_t pair = within / TSR_ATTEND_ROWS * s.kv_heads + kv_head;
    const int32_t eighth = s.width / TSR_CUDA_WARPS;
    const int32_t piece = g / 8 * (eighth / 8) + dim % eighth / 8;
    tsr_left l;

    const float *place = s.sums + (int64_t)pair * s.places * (TSR_ATTEND_ROWS * (s.width + 2));
    l.count = tsr_places_of(s);
    l.weight = place + 2 * g;
    l.value = place +
              2 * (TSR_ATTEND_ROWS + piece * TSR_CUDA_THREADS + dim / eighth * TSR_CUDA_LANES +
                   g % 8 * 4) +
              dim % 8;
    return l;
}

/* Sums so far of two columns, relative to `most`. */
typedef struct tsr_left_sums {
    float2 value;
    float weight;
    float most;
} tsr_left_sums;

/* As tsr_sums_add, bit by bit. */
static __device__ __forceinline__ void tsr_left_add(tsr_left_sums *to, float2 value, float2 weight)
{
    const float most = fmaxf(to->most, weight.x);
    const float base = most == -INFINITY ? 0.0F : most;
    float keep;
    float take;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(keep) : "f"(to->most - base));
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(take) : "f"(weight.x - base));
    to->most = most;
    to->value.x = fmaf(value.x, take, __fmul_rn(to->value.x, keep));
    to->value.y = fmaf(value.y, take, __fmul_rn(to->value.y, keep));
    to->weight = fmaf(weight.y, take, __fmul_rn(to->weight, keep));
}

/* The columns, when all places are added up in order. WIDTH is that of a head: an address is a sum. */
template <int WIDTH>
static __device__ __forceinline__ float2 tsr_left_value(const tsr_left &l, float value_scale)
{
    enum { TOGETHER = 9 }; /* on their way */
    constexpr int floats = TSR_ATTEND_ROWS * (WIDTH + 2);
    tsr_left_sums sum = {{0.0F, 0.0F}, 0.0F, -INFINITY};
    const float *value_at = l.value;
    const float *weight_at = l.weight;

#pragma unroll 1
    for (int32_t left = l.count; left > 0; left -= TOGETHER) {
        float2 value[TOGETHER];
        float2 weight[TOGETHER];
        asm volatile("" : "+l"(value_at), "+l"(weight_at)); /* so that places are offsets */
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            if (i >= left)
                break;
            weight[i] = __ldcg((const float2 *)(const void *)(weight_at + i * floats));
            value[i] = __ldcg((const float2 *)(const void *)(value_at + i * floats));
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            if (i >= left)
                break;
            tsr_left_add(&sum, value[i], weight[i]);
        }
        value_at += TOGETHER * floats;
        weight_at += TOGETHER * floats;
    }
    const float share = value_scale / sum.weight;
    return make_float2(sum.value.x * share, sum.value.y * share);
}

#endif
