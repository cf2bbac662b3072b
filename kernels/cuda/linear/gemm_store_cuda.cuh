/*
 * What becomes of a tile's sums, by its fourth warpgroup, while the next tile is multiplied: scales,
 * bias, what is added, and where they go. A warp takes a token, a lane four consecutive rows.
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_GEMM_STORE_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_GEMM_STORE_CUDA_CUH

#include "kernels/cuda/linear/gemm_sums_cuda.cuh"

/* Where values go. */
typedef struct gemm_output {
    float *y;
    const float *add; /* NULL: nothing is added */
    int64_t stride;
    int32_t rows; /* of the weight */
    bool fours;   /* consecutive values can be stored by 16 bytes */
    bool gates;   /* what is added is a gate instead */
    tsr_cuda_parts into;
} gemm_output;

static __device__ __forceinline__ gemm_output gemm_output_of(float *y, const float *add,
                                                             int64_t stride, int32_t rows)
{
    const uintptr_t places = (uintptr_t)y | (uintptr_t)add;

    return {y, add, stride, rows, places % 16 == 0 && stride % 4 == 0 && rows % 4 == 0, false, {}};
}

/* A value with what stands at its place. */
static __device__ __forceinline__ float gemm_joined(const gemm_output &out, float x, float v)
{
    if (out.add == NULL)
        return v;
    return out.gates ? __fmul_rn(tsr_silu(x), v) : __fadd_rn(x, v);
}

/* A lane's four consecutive rows, from `row` on, of the token whose values are row `number`. */
static __device__ __forceinline__ void gemm_put(const gemm_output &out, int32_t number, int32_t row,
                                                const float v[4])
{
    const int32_t left = out.rows - row;
    float *to = tsr_cuda_row(out.into, out.y, number, out.stride) + row;
    const float *add = out.add != NULL ? out.add + number * out.stride + row : NULL;

    if (out.fours) {
        float4 x = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        if (add != NULL)
            x = *(const float4 *)(const void *)add;
        *(float4 *)(void *)to =
            make_float4(gemm_joined(out, x.x, v[0]), gemm_joined(out, x.y, v[1]),
                        gemm_joined(out, x.z, v[2]), gemm_joined(out, x.w, v[3]));
        return;
    }
    for (int i = 0; i < 4; i++) {
        if (i < left)
            to[i] = gemm_joined(out, add != NULL ? add[i] : 0.0F, v[i]);
    }
}

/* Past the slots that an item's sums come of, to those that have them. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_pass(gemm_ring *r, const gemm_width &w)
{
    if (gemm_converts(FORMAT))
        return;
    r->slot = (r->slot + w.slots) % r->slots;
    r->at = gemm_slot_at(*r, r->slot);
}

/* The next round of sums, when they have all been put down. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_take_sums(gemm_ring *r)
{
    barrier_wait(gemm_full(*r, gemm_sums_slot<FORMAT>(*r)), gemm_sums_phase<FORMAT>(*r));
    if (!gemm_converts(FORMAT))
        r->sums = r->at;
}

/* A lent slot goes back to who fills it, as if all its readers had read it. */
static __device__ __forceinline__ void gemm_return_slot(gemm_ring *r)
{
    const uint32_t each = GEMM_READERS / GEMM_STORERS;
    const uint32_t empty = gemm_empty(*r, r->slot);

    copies_seen();
    __syncwarp();
    if (threadIdx.x % TSR_CUDA_LANES == 0) {
        barrier_arrive_for(empty, each);
        if (r->paired)
            cluster_barrier_arrive_read(empty, cluster_rank() ^ 1, each);
    }
    gemm_advance(r);
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_give_sums(gemm_ring *r)
{
    __syncwarp();
    if (threadIdx.x % TSR_CUDA_LANES == 0)
        barrier_arrive(gemm_empty(*r, gemm_sums_slot<FORMAT>(*r)));
    if (!gemm_converts(FORMAT))
        gemm_return_slot(r);
    r->rounds++;
}

/* Which of the warps that store. */
static __device__ __forceinline__ int32_t gemm_storer(void)
{
    return (int32_t)(threadIdx.x % GEMM_GROUP / TSR_CUDA_LANES);
}

/* What four consecutive rows of a tile are multiplied with and what is added to them. */
typedef struct gemm_four {
    float scale[4];
    float bias[4];
    bool biased;
} gemm_four;

/* `channels`: rows of the weight have scales of their own. */
static __device__ __forceinline__ gemm_four gemm_four_of(const gemm_item *item, bool channels,
                                                         int32_t row)
{
    const float scale = item->weight_scale[row / GEMM_HALF];
    gemm_four f;

    f.biased = item->biased[row / GEMM_HALF];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        f.scale[i] = channels ? __fmul_rn(item->channel[row + i], scale) : scale;
        f.bias[i] = f.biased ? item->bias[row + i] : 0.0F;
    }
    return f;
}

/* Sums to values. */
static __device__ __forceinline__ void gemm_finish(const gemm_four &f, float of_token, float v[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[i] = __fmul_rn(v[i], __fmul_rn(of_token, f.scale[i]));
        v[i] = f.biased ? __fadd_rn(v[i], f.bias[i]) : v[i];
    }
}

/* Four rows of a token's sums. */
static __device__ __forceinline__ void gemm_get_sums(const gemm_ring &r, int32_t token, int32_t row,
                                                     float v[4])
{
    const uint32_t t = (uint32_t)token;
    const uint32_t at = t * GEMM_SUMS_BYTES + 4 * ((uint32_t)row ^ 8 * (t / 2 % 4));
    const uint4 words = shared_load_16(r.sums + at);

    v[0] = __uint_as_float(words.x);
    v[1] = __uint_as_float(words.y);
    v[2] = __uint_as_float(words.z);
    v[3] = __uint_as_float(words.w);
}

/* What will be added is far away while the tile is multiplied. */
static __device__ __forceinline__ void gemm_call_for(const gemm_item *item, const gemm_output &out)
{
    enum { LINE = 32 }; /* floats */
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);

    if (out.add == NULL)
        return;
    for (int32_t token = gemm_storer() * TSR_CUDA_LANES + lane; token < item->count;
         token += GEMM_STORERS * TSR_CUDA_LANES) {
        const float *from = out.add + item->to[token] * out.stride + item->block;
        for (int32_t i = 0; i < GEMM_ROWS && item->block + i < out.rows; i += LINE)
            asm volatile("prefetch.global.L2 [%0];" ::"l"(from + i));
    }
}

/* Tokens `first` up to `end`, a round of sums, of a tile of 128 rows. */
typedef struct gemm_tokens {
    const gemm_item *item;
    int32_t first;
    int32_t end;
} gemm_tokens;

/* What a warp fetches of some of its tokens, every so many of a round, before it stores any. */
template <int TOGETHER> struct gemm_fetched {
    uint4 sums[TOGETHER]; /* a lane's four rows */
    float4 x[TOGETHER];   /* what stands at their place, where something is added */
    uint32_t to[TOGETHER];
    uint32_t scale[TOGETHER];
};

/* It is there, and not looked for again. */
template <int TOGETHER>
static __device__ __forceinline__ void gemm_hold_fetched(gemm_fetched<TOGETHER> *f)
{
#pragma unroll
    for (int i = 0; i < TOGETHER; i++)
        asm volatile(""
                     : "+r"(f->sums[i].x), "+r"(f->sums[i].y), "+r"(f->sums[i].z),
                       "+r"(f->sums[i].w), "+r"(f->to[i]), "+r"(f->scale[i])::"memory");
}

/* Token `t` of a round and every GEMM_STORERS-th behind it. Those beyond the last have some sums. */
template <int TOGETHER>
static __device__ __forceinline__ void gemm_fetch(const gemm_ring &r, const gemm_tokens &of,
                                                  int32_t t, gemm_fetched<TOGETHER> *f)
{
    const uint32_t lane = threadIdx.x % TSR_CUDA_LANES;
    const uint32_t first = (uint32_t)gemm_storer() / 2 % 4 * 8; /* GEMM_SUMS_BYTES: see gemm_tile */
    const uint32_t sums = r.sums + (uint32_t)t * GEMM_SUMS_BYTES;
    const uint32_t near = sums + 4 * (4 * lane ^ first);
    const uint32_t far = sums + 4 * (4 * lane ^ first ^ 16);
    const uint32_t to = async_address(&of.item->to[of.first + t]);
    const uint32_t scale = async_address(&of.item->scale[of.first + t]);

#pragma unroll
    for (int i = 0; i < TOGETHER; i++) {
        f->to[i] = shared_load_word(to + 4 * GEMM_STORERS * i);
        f->scale[i] = shared_load_word(scale + 4 * GEMM_STORERS * i);
        f->sums[i] = shared_load_16((i % 2 == 0 ? near : far) + GEMM_STORERS * GEMM_SUMS_BYTES * i);
    }
    gemm_hold_fetched(f);
}

/* A lane's four rows of a token that is there. */
template <bool ADDS>
static __device__ __forceinline__ void gemm_store_four(const gemm_output &out,
                                                       const gemm_four &four, const uint4 &sums,
                                                       uint32_t scale, const float4 &x, float *to)
{
    float v[4] = {__uint_as_float(sums.x), __uint_as_float(sums.y), __uint_as_float(sums.z),
                  __uint_as_float(sums.w)};

    gemm_finish(four, __uint_as_float(scale), v);
    if (ADDS)
        *(float4 *)(void *)to =
            make_float4(gemm_joined(out, x.x, v[0]), gemm_joined(out, x.y, v[1]),
                        gemm_joined(out, x.z, v[2]), gemm_joined(out, x.w, v[3]));
    else
        *(float4 *)(void *)to = make_float4(v[0], v[1], v[2], v[3]);
}

/* Where all can be stored by 16 bytes: so many tokens of a warp are fetched, then they are stored. */
template <int TOGETHER, bool ADDS>
static __device__ __forceinline__ void gemm_store_fours(const gemm_ring &r, const gemm_tokens &of,
                                                        const gemm_four &four,
                                                        const gemm_output &out)
{
    const int32_t row = of.item->block + (int32_t)(threadIdx.x % TSR_CUDA_LANES) * 4;
    const int32_t stride = (int32_t)out.stride;
    const int32_t count = of.end - of.first;

    for (int32_t t = gemm_storer(); t < count; t += GEMM_STORERS * TOGETHER) {
        gemm_fetched<TOGETHER> f;
        gemm_fetch(r, of, t, &f);
#pragma unroll
        for (int i = 0; ADDS && i < TOGETHER; i++) {
            if (t + i * GEMM_STORERS < count)
                f.x[i] = *(const float4 *)(const void *)(out.add + row +
                                                         (int64_t)(int32_t)f.to[i] * stride);
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            if (t + i * GEMM_STORERS >= count)
                break;
            float *to = out.into.part == NULL
                            ? out.y + row + (int64_t)(int32_t)f.to[i] * stride
                            : tsr_cuda_row(out.into, out.y, (int32_t)f.to[i], out.stride) + row;
            gemm_store_four<ADDS>(out, four, f.sums[i], f.scale[i], f.x[i], to);
        }
    }
}

/* Elsewhere. */
static __device__ __forceinline__ void gemm_store_ones(const gemm_ring &r, const gemm_tokens &of,
                                                       const gemm_four &four,
                                                       const gemm_output &out)
{
    const int32_t within = (int32_t)(threadIdx.x % TSR_CUDA_LANES) * 4;
    const int32_t row = of.item->block + within;

    for (int32_t t = of.first + gemm_storer(); t < of.end; t += GEMM_STORERS) {
        float v[4];
        gemm_get_sums(r, t - of.first, within, v);
        gemm_finish(four, of.item->scale[t], v);
        gemm_put(out, of.item->to[t], row, v);
    }
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_store_round(const gemm_ring &r, const gemm_tokens &of,
                                                        bool channels, const gemm_output &out)
{
    const int32_t within = (int32_t)(threadIdx.x % TSR_CUDA_LANES) * 4;
    const gemm_four four = gemm_four_of(of.item, channels, within);

    if (of.item->block + within >= out.rows)
        return;
    if (!out.fours)
        gemm_store_ones(r, of, four, out);
    else if (out.add != NULL)
        gemm_store_fours<gemm_converts(FORMAT) ? 2 : 4, true>(r, of, four, out);
    else
        gemm_store_fours<4, false>(r, of, four, out);
}

/* All rounds of an item. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_store(gemm_ring *r, const gemm_item *item,
                                                  const gemm_width &w, bool channels,
                                                  const gemm_output &out)
{
    const int32_t round = gemm_round(FORMAT, GEMM_KERNEL_TOKENS);

    gemm_call_for(item, out);
    gemm_pass<FORMAT>(r, w);
    for (int32_t first = 0; first < item->count; first += round) {
        gemm_take_sums<FORMAT>(r);
        const gemm_tokens of = {item, first, min(item->count, first + round)};
        gemm_store_round<FORMAT>(*r, of, channels, out);
        gemm_give_sums<FORMAT>(r);
    }
    gemm_give_item(r);
}

#endif
