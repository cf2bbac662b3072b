/*
 * Norm of one head, then rotation by halves of its first dims, by a warp: the same operations in the
 * same order in every kernel that turns heads.
 *
 *   lane    |  0  |  1  |  2  | ..  | 31  |  0  | ..      a span of four dims each, then the next 128
 *   dims    | 0 .. half - 1 | half .. 2 half - 1 | rest |      pairs are (i, i + half)
 */
#ifndef TSR_KERNELS_CUDA_ATTENTION_HEAD_CUDA_CUH
#define TSR_KERNELS_CUDA_ATTENTION_HEAD_CUDA_CUH

#include "kernels/cuda/device/block_cuda.cuh"

/* What turns a head. cos and sin are those of its position; half is 0 where nothing rotates. */
typedef struct tsr_turn {
    const float *norm; /* [D] or NULL */
    const float *cos;  /* [half] */
    const float *sin;  /* [half] */
    int32_t dim;       /* D, a multiple of 16, at most TSR_CUDA_HEAD_DIM */
    float share;       /* 1 / D */
    int32_t half;
    float eps;
} tsr_turn;

static __device__ __forceinline__ tsr_turn tsr_turn_at(const tsr_turn &first, int32_t position)
{
    tsr_turn here = first;

    if (first.half > 0) {
        here.cos += (int64_t)position * first.half;
        here.sin += (int64_t)position * first.half;
    }
    return here;
}

/* The same out of rows of D: norms of queries and of keys, cos, sin of the position. */
template <int DIM>
static __device__ __forceinline__ tsr_turn tsr_turn_staged(const tsr_turn &t, int which,
                                                           const float (&turn)[4][DIM])
{
    tsr_turn here = t;

    here.norm = t.norm != NULL ? turn[which] : NULL;
    here.cos = turn[2];
    here.sin = turn[3];
    return here;
}

enum { TSR_TURN_SPAN = 4, TSR_TURN_DIMS = TSR_TURN_SPAN * TSR_CUDA_LANES };

/* What a lane holds of a head that is no wider than SPANS * TSR_TURN_DIMS. */
template <int SPANS> struct tsr_head {
    float4 span[SPANS];
};

template <int SPANS>
static __device__ __forceinline__ tsr_head<SPANS> tsr_load_head(const float *x, int32_t dim)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    tsr_head<SPANS> h;

#pragma unroll
    for (int i = 0; i < SPANS; i++) {
        const int32_t at = TSR_TURN_SPAN * lane + TSR_TURN_DIMS * i;
        h.span[i] = at < dim ? *(const float4 *)(x + at) : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
    return h;
}

/* A head's weights of the norm. */
template <int SPANS>
static __device__ __forceinline__ tsr_head<SPANS> tsr_load_norm(const tsr_turn &t)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    tsr_head<SPANS> norm;

#pragma unroll
    for (int i = 0; i < SPANS; i++) {
        const int32_t at = TSR_TURN_SPAN * lane + TSR_TURN_DIMS * i;
        norm.span[i] = *(const float4 *)(t.norm + min(at, t.dim - TSR_TURN_SPAN));
    }
    return norm;
}

template <int SPANS>
static __device__ __forceinline__ void
tsr_norm_head_by(const tsr_turn &t, const tsr_head<SPANS> &norm, tsr_head<SPANS> *h)
{
    float sum = 0.0F;

#pragma unroll
    for (int i = 0; i < SPANS; i++) {
        sum = fmaf(h->span[i].x, h->span[i].x, sum);
        sum = fmaf(h->span[i].y, h->span[i].y, sum);
        sum = fmaf(h->span[i].z, h->span[i].z, sum);
        sum = fmaf(h->span[i].w, h->span[i].w, sum);
    }
    const float factor = rsqrtf(fmaf(tsr_warp_sum(sum), t.share, t.eps));
#pragma unroll
    for (int i = 0; i < SPANS; i++) {
        const float4 x = h->span[i]; /* zeros behind the head */
        const float4 n = norm.span[i];
        h->span[i] = make_float4(x.x * factor * n.x, x.y * factor * n.y, x.z * factor * n.z,
                                 x.w * factor * n.w);
    }
}

template <int SPANS>
static __device__ __forceinline__ void tsr_norm_head(const tsr_turn &t, tsr_head<SPANS> *h)
{
    tsr_norm_head_by(t, tsr_load_norm<SPANS>(t), h);
}

static __device__ __forceinline__ float tsr_turn_low(float low, float high, float c, float s)
{
    return fmaf(low, c, -__fmul_rn(high, s));
}

static __device__ __forceinline__ float tsr_turn_high(float low, float high, float c, float s)
{
    return fmaf(high, c, __fmul_rn(low, s));
}

/* A dim, with that of the other lane; sin of the lower one is negative. */
static __device__ __forceinline__ float tsr_turn_dim(float x, int32_t other, float c, float s)
{
    return fmaf(x, c, __fmul_rn(__shfl_sync(TSR_ALL_LANES, x, other), s));
}

/* How a lane's span turns, where pairs are whole spans of two lanes. */
typedef struct tsr_span_turn {
    float4 cos;
    float4 sin; /* negative where the span is the lower one */
    int32_t other;
    bool turns;
} tsr_span_turn;

static __device__ __forceinline__ tsr_span_turn tsr_load_span_turn(const tsr_turn &t)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t half = t.half / TSR_TURN_SPAN;
    const bool is_low = lane < half;
    tsr_span_turn turn;

    turn.turns = lane < 2 * half;
    turn.other = is_low ? lane + half : (turn.turns ? lane - half : lane);
    const int32_t at = TSR_TURN_SPAN * min(is_low ? lane : turn.other, half - 1);
    const float4 s = *(const float4 *)(t.sin + at);
    turn.cos = *(const float4 *)(t.cos + at);
    turn.sin = make_float4(is_low ? -s.x : s.x, is_low ? -s.y : s.y, is_low ? -s.z : s.z,
                           is_low ? -s.w : s.w);
    return turn;
}

/* The two lanes tell each other. No lane goes a way of its own, so that several heads are turned at
 * once. */
static __device__ __forceinline__ void tsr_turn_span_by(const tsr_span_turn &t, float4 *span)
{
    const float4 turned = make_float4(tsr_turn_dim(span->x, t.other, t.cos.x, t.sin.x),
                                      tsr_turn_dim(span->y, t.other, t.cos.y, t.sin.y),
                                      tsr_turn_dim(span->z, t.other, t.cos.z, t.sin.z),
                                      tsr_turn_dim(span->w, t.other, t.cos.w, t.sin.w));
    span->x = t.turns ? turned.x : span->x;
    span->y = t.turns ? turned.y : span->y;
    span->z = t.turns ? turned.z : span->z;
    span->w = t.turns ? turned.w : span->w;
}

static __device__ __forceinline__ void tsr_turn_spans(const tsr_turn &t, float4 *span)
{
    tsr_turn_span_by(tsr_load_span_turn(t), span);
}

/* Pairs lie anywhere: the head stands in the warp's room. */
static __device__ __noinline__ void tsr_turn_room(float *room, const float *cos, const float *sin,
                                                  int32_t half)
{
    __syncwarp();
#pragma unroll 1
    for (int32_t i = (int32_t)(threadIdx.x % TSR_CUDA_LANES); i < half; i += TSR_CUDA_LANES) {
        const float low = room[i];
        const float high = room[i + half];
        room[i] = tsr_turn_low(low, high, cos[i], sin[i]);
        room[i + half] = tsr_turn_high(low, high, cos[i], sin[i]);
    }
    __syncwarp();
}

template <int SPANS>
static __device__ __forceinline__ void tsr_turn_in_room(const tsr_turn &t, tsr_head<SPANS> *h,
                                                        float *room)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);

    __syncwarp(); /* the last head's readers are done */
#pragma unroll
    for (int i = 0; i < SPANS; i++) {
        const int32_t at = TSR_TURN_SPAN * lane + TSR_TURN_DIMS * i;
        if (at < t.dim)
            *(float4 *)(room + at) = h->span[i];
    }
    tsr_turn_room(room, t.cos, t.sin, t.half);
#pragma unroll
    for (int i = 0; i < SPANS; i++) {
        const int32_t at = TSR_TURN_SPAN * lane + TSR_TURN_DIMS * i;
        if (at < t.dim)
            h->span[i] = *(const float4 *)(room + at);
    }
}

/* Whether pairs are whole spans of two lanes. */
static __device__ __forceinline__ bool tsr_turns_in_lanes(const tsr_turn &t)
{
    return t.half % TSR_TURN_SPAN == 0 && 2 * t.half <= TSR_TURN_DIMS;
}

/* Turns a head where they are. */
template <int SPANS>
static __device__ __forceinline__ void tsr_turn_head_in_lanes(const tsr_turn &t, tsr_head<SPANS> *h)
{
    if (t.norm != NULL)
        tsr_norm_head(t, h);
    if (t.half > 0)
        tsr_turn_spans(t, &h->span[0]);
}

/* Turns a head where it is held; room is TSR_CUDA_HEAD_DIM floats of the warp's own. */
template <int SPANS>
static __device__ __forceinline__ void tsr_turn_head(const tsr_turn &t, tsr_head<SPANS> *h,
                                                     float *room)
{
    if (tsr_turns_in_lanes(t)) {
        tsr_turn_head_in_lanes(t, h);
        return;
    }
    if (t.norm != NULL)
        tsr_norm_head(t, h);
    tsr_turn_in_room(t, h, room);
}

#endif
