/*
 * Rows in registers (rows_held_cuda.cuh), with the bits of those of rows_cuda.cu.
 *
 *   a warp   lane l has the fours of columns l, l + 32, ..
 *   a CTA    thread t combines, norms and stores the fours of columns t, t + 256, ..
 */
#include "kernels/cuda/operands/rows_held_cuda.cuh"

#include "kernels/cuda/device/e4m3_cuda.cuh"
#include "kernels/cuda/operands/combine_cuda.cuh"
#include "kernels/cuda/operands/rows_parts_cuda.cuh"

enum {
    HELD_FOURS = 16, /* of columns, in a lane */
    HELD_COLUMNS = HELD_FOURS * 4 * TSR_CUDA_LANES,
    ENTER_FOURS = 6, /* of columns, in a thread that combines */
    ENTER_COLUMNS = ENTER_FOURS * 4 * TSR_CUDA_THREADS,
};

/* Four columns as they are stored. */
static __device__ __forceinline__ uint2 four_rounded(bool bf16, float4 v)
{
    const uint32_t x = rounded_to(bf16, v.x);
    const uint32_t y = rounded_to(bf16, v.y);
    const uint32_t z = rounded_to(bf16, v.z);
    const uint32_t w = rounded_to(bf16, v.w);

    return make_uint2(x | y << 16, z | w << 16);
}

static __device__ __forceinline__ float4 over(float4 a, float b)
{
    return make_float4(a.x / b, a.y / b, a.z / b, a.w / b);
}

static __device__ __forceinline__ float largest_of(float4 v)
{
    return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

static __device__ __forceinline__ float4 four_e4m3(float4 v)
{
    return make_float4(tsr_round_e4m3(v.x), tsr_round_e4m3(v.y), tsr_round_e4m3(v.z),
                       tsr_round_e4m3(v.w));
}

/* A lane has the fours of columns lane, lane + 32 .., at most FOURS. As they are, or FP8. */
template <int FOURS, bool FP8>
static __device__ __forceinline__ void make_held(const tsr_linear &l, const tsr_cuda_source &from,
                                                 const tsr_cuda_operand &to, int64_t row)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t fours = l.in / 4;
    const int32_t padded = tsr_cuda_padded(l.in);
    const int64_t at = (from.row != NULL ? __ldcg(from.row + row) : row) * from.x_stride;
    const float4 *x = (const float4 *)(const void *)(from.x + at);
    const float4 *factor = (const float4 *)(const void *)l.pre_quant_scale;
    const bool bf16 = l.format == TSR_WEIGHT_BF16;
    uint2 *out = (uint2 *)(void *)(to.rows + row * padded);
    float4 v[FOURS];
    float most = 0.0F;

#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const int32_t c = i * TSR_CUDA_LANES + lane;
        v[i] = c < fours ? __ldcg(x + c) : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const int32_t c = i * TSR_CUDA_LANES + lane;
        if (factor != NULL && c < fours)
            v[i] = times(v[i], __ldg(factor + c));
        most = fmaxf(most, largest_of(v[i]));
    }
    const float plain = FP8 || bf16 ? 1.0F : f16_scale(tsr_warp_max(most));
    const float scale = FP8 ? l.input_scale : plain;
    const tsr_divisor by = tsr_divisor_of(scale);
    const float part = 1.0F / plain; /* exactly: of a power of two */
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const int32_t c = i * TSR_CUDA_LANES + lane;
        if (c >= padded / 4)
            break;
        if (FP8 && !bf16)
            out[c] = tsr_e4m3_four(v[i], by);
        else
            out[c] = four_rounded(bf16, FP8 ? four_e4m3(over(v[i], scale)) : scaled(v[i], part));
    }
    if (lane == 0)
        to.scale[row] = scale;
}

/* As pairs_kernel, a warp a row. */
template <int FOURS, bool FP8>
static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    held_kernel(const tsr_mlp *mlps, tsr_cuda_side side, tsr_cuda_source from, tsr_cuda_operand to,
                tsr_cuda_work w, tsr_cuda_faults faults)
{
    const int32_t warp = (int32_t)(blockIdx.x * TSR_CUDA_WARPS + threadIdx.x / TSR_CUDA_LANES);
    tile_walk at = {{}, {}, (int32_t)blockIdx.y};

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    while (next_tile(mlps, side, w, &at)) {
        for (int32_t p = warp; p < at.tile.count; p += (int32_t)(gridDim.x * TSR_CUDA_WARPS))
            make_held<FOURS, FP8>(at.linear, from, to, at.tile.first + p);
    }
}

/* Rows 0 .., a warp a row. */
template <int FOURS, bool FP8>
static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    held_rows_kernel(tsr_linear l, tsr_cuda_source from, tsr_cuda_operand to, int32_t rows,
                     tsr_cuda_faults faults)
{
    const int32_t row = (int32_t)(blockIdx.x * TSR_CUDA_WARPS + threadIdx.x / TSR_CUDA_LANES);

    tsr_admit_kernel();
    tsr_await_kernel();
    if (!tsr_is_faulty(faults) && row < rows && (from.count == NULL || row < *from.count))
        make_held<FOURS, FP8>(l, from, to, row);
}

/* What a lane knows of one of the row's slots. */
typedef struct held_slot {
    const float *factor; /* of the columns, or NULL */
    tsr_divisor by;
    int32_t pair; /* -1: there is none */
} held_slot;

static __device__ __forceinline__ held_slot held_slot_of(const tsr_mlp *mlps, tsr_cuda_side side,
                                                         const pair_args &p, const int32_t *pair_of,
                                                         int32_t slot)
{
    held_slot s = {NULL, {1.0F, 1.0F}, __ldcg(pair_of + slot)};

    if (s.pair < 0)
        return s;
    const tsr_linear *l = tsr_side_of(&mlps[p.local_of[id_of(p, slot)]], side);
    s.factor = l->pre_quant_scale;
    s.by = tsr_divisor_of(l->input_scale);
    return s;
}

/* An arrived row by a warp: it comes once, and becomes codes for each expert that wants it. */
template <int FOURS>
static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    held_slots_kernel(const tsr_mlp *mlps, tsr_cuda_side side, pair_args p, tsr_cuda_operand to,
                      const int32_t *pair_of, int32_t in, tsr_cuda_faults faults)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t row = (int32_t)(blockIdx.x * TSR_CUDA_WARPS + threadIdx.x / TSR_CUDA_LANES);
    const int32_t padded = tsr_cuda_padded(in);
    float4 v[FOURS];

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults) || row >= *p.row_count)
        return;
    const float4 *x = (const float4 *)(const void *)(p.rows + row * p.row_bytes);
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const int32_t c = i * TSR_CUDA_LANES + lane;
        v[i] = c < in / 4 ? __ldcg(x + c) : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
    const held_slot mine =
        held_slot_of(mlps, side, p, pair_of, row * p.slots + min(lane, p.slots - 1));
#pragma unroll 1
    for (int32_t k = 0; k < p.slots; k++) {
        const int64_t pair = __shfl_sync(TSR_ALL_LANES, mine.pair, k);
        const tsr_divisor by = {__shfl_sync(TSR_ALL_LANES, mine.by.by, k),
                                __shfl_sync(TSR_ALL_LANES, mine.by.inverse, k)};
        const float4 *factor =
            (const float4 *)__shfl_sync(TSR_ALL_LANES, (unsigned long long)mine.factor, k);
        uint2 *out = (uint2 *)(void *)(to.rows + pair * padded);
        if (pair < 0)
            continue;
#pragma unroll
        for (int i = 0; i < FOURS; i++) {
            const int32_t c = i * TSR_CUDA_LANES + lane;
            const bool times_factor = factor != NULL && c < in / 4;
            const float4 w = times_factor ? times(v[i], __ldg(factor + c)) : v[i];
            if (c < padded / 4)
                out[c] = tsr_e4m3_four(w, by);
        }
        if (lane == 0)
            to.scale[pair] = by.by;
    }
}

/* A combined row, which stays where it is, too. Returns the thread's sum of squares. */
template <int FOURS>
static __device__ __forceinline__ float
combine_held(const tsr_combine_block &b, tsr_cuda_faults faults, int64_t row, float4 (&v)[FOURS])
{
    const int32_t fours = b.hidden / 4;
    float4 *x = (float4 *)b.x + row * fours;
    /* For all before it waits: of wider rows that would take the registers of another CTA. */
    const bool asks = FOURS <= APART;
    float sum = 0.0F;

#pragma unroll
    for (int first = 0; first < FOURS; first += APART) {
        const int32_t at = first * TSR_CUDA_THREADS + (int32_t)threadIdx.x;
        if (at >= fours)
            break;
        combine_asked asked[APART];
#pragma unroll
        for (int j = 0; j < APART && asks; j++)
            combine_ask(b, row, min(at + j * TSR_CUDA_THREADS, fours - 1), 0, &asked[j]);
#pragma unroll
        for (int j = 0; j < APART; j++) {
            const int32_t i = at + j * TSR_CUDA_THREADS;
            const int32_t four = min(i, fours - 1);
            v[first + j] = asks ? combine_rest(b, faults, row, four, i < fours, &asked[j])
                                : combine_four(b, faults, row, four, i < fours);
        }
#pragma unroll
        for (int j = first; j < first + APART; j++) {
            const int32_t i = at + (j - first) * TSR_CUDA_THREADS;
            if (i >= fours)
                break;
            x[i] = v[j];
            sum = squares(v[j], sum);
        }
    }
    return sum;
}

/* Normed and scaled; returns the thread's largest. */
template <int FOURS>
static __device__ __forceinline__ float refine_held(const tsr_linear &l, const float *weight,
                                                    float norm, float4 (&v)[FOURS])
{
    const float4 *weights = (const float4 *)(const void *)weight;
    const float4 *factors = (const float4 *)(const void *)l.pre_quant_scale;
    float most = 0.0F;

#pragma unroll
    for (int j = 0; j < FOURS; j++) {
        const int32_t i = j * TSR_CUDA_THREADS + (int32_t)threadIdx.x;
        if (i >= l.in / 4)
            break;
        if (weights != NULL)
            v[j] = times(scaled(v[j], norm), __ldg(weights + i));
        if (factors != NULL)
            v[j] = times(v[j], __ldg(factors + i));
        most = fmaxf(most, largest_of(v[j]));
    }
    return most;
}

template <int FOURS>
static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    enter_held_kernel(tsr_combine_block b, tsr_linear l, tsr_cuda_operand to,
                      tsr_cuda_faults faults)
{
    const bool bf16 = l.format == TSR_WEIGHT_BF16;
    const int32_t padded = tsr_cuda_padded(l.in);
    uint2 *out = (uint2 *)(void *)(to.rows + (int64_t)blockIdx.x * padded);
    float4 v[FOURS];
    float norm = 1.0F;

    tsr_admit_kernel();
    call_for(b.next.norm, l.in);
    call_for(l.pre_quant_scale, l.in);
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    const float sum = combine_held(b, faults, blockIdx.x, v);
    if (b.next.norm != NULL)
        norm = 1.0F / sqrtf(tsr_cta_sum(sum) / (float)l.in + b.next.eps);
    const float most = refine_held(l, b.next.norm, norm, v);
    const float scale = bf16 ? 1.0F : f16_scale(tsr_cta_max(most));
    const float part = 1.0F / scale; /* exactly: of a power of two */
#pragma unroll
    for (int j = 0; j < FOURS; j++) {
        const int32_t i = j * TSR_CUDA_THREADS + (int32_t)threadIdx.x;
        if (i >= padded / 4)
            break;
        out[i] = i < l.in / 4 ? four_rounded(bf16, scaled(v[j], part)) : make_uint2(0, 0);
    }
    if (threadIdx.x == 0)
        to.scale[blockIdx.x] = scale;
}

/* ---- launches ---- */

typedef void (*held_kernel_of)(const tsr_mlp *mlps, tsr_cuda_side side, tsr_cuda_source from,
                               tsr_cuda_operand to, tsr_cuda_work w, tsr_cuda_faults faults);
typedef void (*held_rows_kernel_of)(tsr_linear l, tsr_cuda_source from, tsr_cuda_operand to,
                                    int32_t rows, tsr_cuda_faults faults);

/* [whether rows become FP8][whether they are wide] */
static const held_kernel_of held_kernels[2][2] = {
    {held_kernel<HELD_FOURS / 2, false>, held_kernel<HELD_FOURS, false>},
    {held_kernel<HELD_FOURS / 2, true>, held_kernel<HELD_FOURS, true>},
};
static const held_rows_kernel_of held_rows_kernels[2][2] = {
    {held_rows_kernel<HELD_FOURS / 2, false>, held_rows_kernel<HELD_FOURS, false>},
    {held_rows_kernel<HELD_FOURS / 2, true>, held_rows_kernel<HELD_FOURS, true>},
};

bool tsr_held_takes(const tsr_cuda_source *from, tsr_activation activation, int32_t padded)
{
    const bool simple = activation == TSR_ACTIVATION_NONE || activation == TSR_ACTIVATION_FP8;

    return simple && from->norm == NULL && from->up == NULL && padded <= HELD_COLUMNS;
}

tsr_status tsr_held_rows(tsr_cuda_device *cuda, const tsr_linear *linear,
                         const tsr_cuda_source *from, const tsr_cuda_operand *to, int32_t rows,
                         cudaStream_t stream)
{
    const tsr_cuda_launch_shape at = {dim3(tsr_cuda_ceil(rows, TSR_CUDA_WARPS)), TSR_CUDA_THREADS,
                                      0, stream, 0};
    const bool wide = tsr_cuda_padded(linear->in) > HELD_COLUMNS / 2;
    const bool fp8 = linear->activation == TSR_ACTIVATION_FP8;

    return tsr_cuda_launch(at, held_rows_kernels[fp8][wide], *linear, *from, *to, rows,
                           cuda->faults);
}

tsr_status tsr_held_pair_rows(tsr_cuda_device *cuda, const tsr_experts *experts, tsr_cuda_side side,
                              const tsr_cuda_source *from, const tsr_cuda_operand *to,
                              cudaStream_t stream)
{
    const int32_t in = side == TSR_CUDA_DOWN ? experts->intermediate : experts->hidden;
    const unsigned tiles = (unsigned)tsr_smaller(cuda->work.max_tiles, PAIR_GRID);
    const tsr_cuda_launch_shape at = {dim3(TSR_CUDA_LEAST_TILE, tiles), TSR_CUDA_THREADS, 0, stream,
                                      0};
    const bool wide = tsr_cuda_padded(in) > HELD_COLUMNS / 2;
    const tsr_linear_kind *kind = side == TSR_CUDA_DOWN ? &experts->down
                                  : side == TSR_CUDA_UP ? &experts->up
                                                        : &experts->gate;
    const bool fp8 = kind->activation == TSR_ACTIVATION_FP8;

    return tsr_cuda_launch(at, held_kernels[fp8][wide], experts->mlps, side, *from, *to, cuda->work,
                           cuda->faults);
}

bool tsr_held_takes_slots(const tsr_experts *experts, tsr_cuda_side side)
{
    const tsr_linear_kind *kind = side == TSR_CUDA_UP ? &experts->up : &experts->gate;

    return side != TSR_CUDA_DOWN && kind->activation == TSR_ACTIVATION_FP8 &&
           kind->format != TSR_WEIGHT_BF16 && tsr_cuda_padded(experts->hidden) <= HELD_COLUMNS &&
           experts->top_k <= TSR_CUDA_LANES;
}

tsr_status tsr_held_slot_rows(tsr_cuda_device *cuda, const tsr_experts *experts, tsr_cuda_side side,
                              const pair_args *pairs, const tsr_cuda_operand *to,
                              cudaStream_t stream)
{
    const tsr_cuda_launch_shape at = {dim3(tsr_cuda_ceil(pairs->max_rows, TSR_CUDA_WARPS)),
                                      TSR_CUDA_THREADS, 0, stream, 0};
    const bool wide = tsr_cuda_padded(experts->hidden) > HELD_COLUMNS / 2;

    return tsr_cuda_launch(
        at, wide ? held_slots_kernel<HELD_FOURS> : held_slots_kernel<HELD_FOURS / 2>, experts->mlps,
        side, *pairs, *to, (const int32_t *)cuda->work.pair_of, experts->hidden, cuda->faults);
}

bool tsr_held_enters(const tsr_linear *linear)
{
    return linear->activation == TSR_ACTIVATION_NONE &&
           tsr_cuda_padded(linear->in) <= ENTER_COLUMNS;
}

tsr_status tsr_held_enter(tsr_cuda_device *cuda, const tsr_combine_block *b, cudaStream_t stream)
{
    const tsr_linear *linear = b->next.linear;
    const tsr_cuda_launch_shape at = {dim3((unsigned)b->tokens), TSR_CUDA_THREADS, 0, stream, 0};
    const bool wide = tsr_cuda_padded(linear->in) > APART * 4 * TSR_CUDA_THREADS;

    return tsr_cuda_launch(at, wide ? enter_held_kernel<ENTER_FOURS> : enter_held_kernel<APART>, *b,
                           *linear, tsr_cuda_operand_of(cuda), cuda->faults);
}
