/*
 * A span on Hopper, of heads up to 128 wide: what attend_prefill_cuda.cu computes elsewhere, with the
 * tensor cores' wide steps, which give the same bits. A CTA's 128 query rows are those of two warp
 * groups, which take turns: one multiplies while the other weighs. A third one brings keys and values,
 * split after split, each to one of two places:
 *
 *   first group    w(i) v(i)  |  q k(i + 1)  |  weighs i + 1             |  w(i + 1) v(i + 1)  | ..
 *   second group   weighs i                  |  w(i) v(i)  |  q k(i + 1) |  weighs i + 1       | ..
 *
 * Ones stand behind values as if they were 64 dims more: the sums of weights are those of one column
 * of them. Both places of values end at the same ones, by different ways from a half (64 dims) to the
 * next (wide_place). FP8 comes to a place of its own; who brought it widens it to the one that is read.
 */
#ifndef TSR_KERNELS_CUDA_ATTENTION_ATTEND_HOPPER_CUDA_CUH
#define TSR_KERNELS_CUDA_ATTENTION_ATTEND_HOPPER_CUDA_CUH

#include "kernels/cuda/attention/attend_span_cuda.cuh"
#include "kernels/cuda/device/async_cuda.cuh"
#include "kernels/cuda/device/wgmma_cuda.cuh"

enum {
    GROUP_ROWS = 64, /* query rows of a warp group */
    GROUP_THREADS = 4 * TSR_CUDA_LANES,
    GROUPS = 2,
    WIDE_THREADS = (1 + GROUPS) * GROUP_THREADS, /* the first group brings */
    KEYS = TSR_ATTEND_SPLIT,                     /* of a split */
    HALF_DIMS = 64,
    HALF_BYTES = KEYS * TSR_LINE,
    PLACES = 2,    /* of keys, and of values */
    UNDER_WAY = 2, /* of what is copied: keys or values of a split that have not been waited for */
};

static_assert(TSR_SPLIT_TILES == 2, "a split is weighed as two tiles");

/*
 * Where a place's halves lie, counted in halves:
 *
 *   128 dims   values 1 | keys 0 | keys 0 | values 1 | values 0 | values 0 | ones | keys 1 | keys 1
 *   64 dims    values 1 | values 0 | ones | keys 0 | keys 1
 */
template <int DIM> struct wide_place {
    static constexpr bool two = DIM > HALF_DIMS;
    static constexpr int ones = two ? 6 : 2;
    static constexpr int count = two ? 9 : 5;
    static __device__ __forceinline__ int values(int place)
    {
        return place == 1 ? 0 : two ? 4 : 1;
    }
    static __device__ __forceinline__ int values_apart(int place)
    {
        return place == 0 ? 1 : two ? 3 : 2;
    }
    static __device__ __forceinline__ int keys(int place)
    {
        return place == 0 ? (two ? 1 : 3) : (two ? 7 : 4);
    }
};

/* Shared memory of a CTA. The wide steps want matrices on 1024 bytes. */
template <int DIM, bool FP8> struct hopper_room {
    unsigned char half[wide_place<DIM>::count][HALF_BYTES];
    unsigned char query[GROUPS][GROUP_ROWS * DIM * 2];
    unsigned char stored[FP8 ? UNDER_WAY : 1][FP8 ? KEYS * DIM : TSR_PIECE];
    float head[WARPS][DIM];    /* in hand */
    uint64_t full[2 * PLACES]; /* keys of both places, then values */
    uint64_t free[2 * PLACES];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* ---- wide steps: 64 rows of a warp group at once ---- */

#define FOUR(x) "+f"((x)[0]), "+f"((x)[1]), "+f"((x)[2]), "+f"((x)[3])
#define EIGHT(x)                                                                                   \
    FOUR((x)[0]), FOUR((x)[1]), FOUR((x)[2]), FOUR((x)[3]), FOUR((x)[4]), FOUR((x)[5]),            \
        FOUR((x)[6]), FOUR((x)[7])
#define REGISTERS_32                                                                               \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define REGISTERS_36 REGISTERS_32 ", %32, %33, %34, %35"
#define REGISTERS_64                                                                               \
    REGISTERS_32                                                                                   \
    ", "                                                                                           \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define REGISTERS_68 REGISTERS_64 ", %64, %65, %66, %67"

/* A split's scores of a lane's two rows. */
typedef float wide_scores[TSR_SPLIT_TILES][TSR_TILE / 8][4];

/* The same as weights: the A operand. */
typedef uint32_t wide_weights[KEYS / TSR_STEP][4];

/*
 * Where a matrix lies (in units of 16 bytes, which add) and how: 16-byte pieces swapped in lines of
 * 128 bytes (1 << 62), groups of 8 lines 1024 bytes apart (bits 32..), and for values the next 64 dims
 * so many bytes further (bits 16..).
 */
static __device__ __forceinline__ uint64_t matrix_at(uint32_t at, int apart)
{
    return (uint64_t)(at >> 4 & 0x3fffU) | (uint64_t)(apart >> 4) << 16 |
           (uint64_t)(8 * TSR_LINE >> 4) << 32 | 1ULL << 62;
}

/* s (+)= 16 dims of the queries times those of a split's keys */
static __device__ __forceinline__ void score_step(wide_scores &s, uint64_t queries, uint64_t keys,
                                                  int adds)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %66, 0; "
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{" REGISTERS_64 "}, %64, %65, p, 1, 1, 0, 0; }"
                 : EIGHT(s[0]), EIGHT(s[1])
                 : "l"(queries), "l"(keys), "r"(adds));
}

/* sums (+)= weights of 16 positions times 64 dims of their values, and times ones */
static __device__ __forceinline__ void value_step(tsr_sums<8> *s, const uint32_t w[4],
                                                  uint64_t values, int adds)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %41, 0; "
                 "wgmma.mma_async.sync.aligned.m64n72k16.f32.bf16.bf16 "
                 "{" REGISTERS_36 "}, {%36, %37, %38, %39}, %40, p, 1, 1, 1; }"
                 : EIGHT(s->value), FOUR(s->weight)
                 : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "l"(values), "r"(adds));
}

/* The same, 128 dims. */
static __device__ __forceinline__ void value_step(tsr_sums<16> *s, const uint32_t w[4],
                                                  uint64_t values, int adds)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %73, 0; "
                 "wgmma.mma_async.sync.aligned.m64n136k16.f32.bf16.bf16 "
                 "{" REGISTERS_68 "}, {%68, %69, %70, %71}, %72, p, 1, 1, 1; }"
                 : EIGHT(s->value), EIGHT(s->value + 8), FOUR(s->weight)
                 : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "l"(values), "r"(adds));
}

/* Registers of wide steps that have been waited for: nothing that reads them moves before this. */
template <int PIECES> static __device__ __forceinline__ void steps_gave(float (&s)[PIECES][4])
{
#pragma unroll
    for (int i = 0; i < PIECES; i++)
        wgmma_hold(s[i]);
}

/* Scores of a split begin. */
template <int DIM>
static __device__ __forceinline__ void wide_score(uint32_t queries, uint32_t keys, wide_scores &s)
{
    const uint64_t q = matrix_at(queries, 0);
    const uint64_t k = matrix_at(keys, 0);

    wgmma_begin();
#pragma unroll
    for (int step = 0; step < DIM / TSR_STEP; step++) {
        const int within = step % 4 * TSR_STEP * 2;
        score_step(s, q + (uint64_t)(step / 4 * GROUP_ROWS * TSR_LINE + within >> 4),
                   k + (uint64_t)(step / 4 * HALF_BYTES + within >> 4), step > 0);
    }
    wgmma_commit();
}

/* A split's weighted values begin, from zero. */
template <int PIECES>
static __device__ __forceinline__ void wide_add_values(const wide_weights &weight, uint64_t values,
                                                       tsr_sums<PIECES> *sums)
{
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < KEYS / TSR_STEP; step++)
        value_step(sums, weight[step], values + (uint64_t)(step * TSR_STEP * TSR_LINE >> 4),
                   step > 0);
    wgmma_commit();
}

/* ---- keys and values ---- */

/* Where a piece of a position lies, halves being so many bytes apart. */
static __device__ __forceinline__ uint32_t wide_piece_at(int row, int piece, int apart)
{
    return (uint32_t)(piece / 8 * apart + row * TSR_LINE + (piece % 8 ^ row % 8) * TSR_PIECE);
}

/* The copies of a lane that go to `to`, from the rows that lanes know. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void wide_fetch(const tsr_attend_job &a, const tsr_tile_source &s,
                                                  const void *memory, uint32_t to, int apart)
{
    typedef tsr_copying<DIM, FP8, KEYS, GROUP_THREADS> copying;
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    const int lane = (int)threadIdx.x % TSR_CUDA_LANES;
    const int piece = lane % copying::stored::pieces;
    const int first = copying::rows * warp + lane / copying::stored::pieces;
    const bool used = (uint32_t)piece < a.row_pieces;
    const unsigned char *from = (const unsigned char *)memory + (used ? piece * TSR_PIECE : 0);

#pragma unroll
    for (int i = 0; i < copying::copies; i++) {
        const uint32_t at =
            __shfl_sync(TSR_ALL_LANES, s.at, i * copying::rows + lane / copying::stored::pieces);
        const int row = first + i * copying::apart;
        tsr_copy_piece(to + (FP8 ? (uint32_t)(row * DIM + piece * TSR_PIECE)
                                 : wide_piece_at(row, piece, apart)),
                       from + (uint64_t)at * TSR_PIECE, used);
    }
}

/* Codes to BF16, which is exact. */
template <int DIM>
static __device__ __forceinline__ void wide_widen(const unsigned char *from, unsigned char *to,
                                                  int apart)
{
    constexpr int pieces = DIM / TSR_PIECE;

#pragma unroll 2
    for (int i = 0; i < KEYS * pieces / GROUP_THREADS; i++) {
        const int at = (int)threadIdx.x + i * GROUP_THREADS;
        const int row = at / pieces;
        const int piece = at % pieces;
        const uint4 codes = *(const uint4 *)(from + at * TSR_PIECE);
        *(uint4 *)(to + wide_piece_at(row, 2 * piece, apart)) = tsr_widened(codes.x, codes.y);
        *(uint4 *)(to + wide_piece_at(row, 2 * piece + 1, apart)) = tsr_widened(codes.z, codes.w);
    }
}

/* Keys of a split, or its values: the n-th of both in turn. */
typedef struct wide_part {
    int32_t split;
    int place; /* of the keys, or of the values */
    bool keys;
    uint32_t parity; /* of its place's turns */
} wide_part;

static __device__ __forceinline__ wide_part part_of(int32_t n)
{
    wide_part p;

    p.split = n / 2;
    p.keys = n % 2 == 0;
    p.place = p.split % PLACES;
    p.parity = (uint32_t)(p.split / PLACES % 2);
    return p;
}

static __device__ __forceinline__ int barrier_of(const wide_part &p)
{
    return (p.keys ? 0 : PLACES) + p.place;
}

template <int DIM, bool FP8>
static __device__ __forceinline__ unsigned char *part_at(hopper_room<DIM, FP8> *room,
                                                         const wide_part &p)
{
    return room->half[p.keys ? wide_place<DIM>::keys(p.place) : wide_place<DIM>::values(p.place)];
}

template <int DIM> static __device__ __forceinline__ int part_apart(const wide_part &p)
{
    return HALF_BYTES * (p.keys ? 1 : wide_place<DIM>::values_apart(p.place));
}

/* Begins to fetch a part to where it is read, or of FP8 to where it is kept. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void bring_part(const tsr_attend_job &a, const span &c, int32_t n,
                                                  tsr_tile_source *source,
                                                  hopper_room<DIM, FP8> *room)
{
    const wide_part p = part_of(n);
    const void *from = p.keys ? a.cache.keys : a.cache.values;

    if (p.keys) {
        tsr_find_rows_within<DIM, FP8, KEYS, GROUP_THREADS>(a, source, p.split * KEYS);
        if ((p.split + 1) * TSR_SPLIT_TILES < c.tiles)
            tsr_look_up_within<DIM, FP8, KEYS, GROUP_THREADS>(a, source, (p.split + 1) * KEYS);
    }
    if (FP8) {
        wide_fetch<DIM, FP8>(a, *source, from, tsr_shared_at(room->stored[n % UNDER_WAY]), 0);
        return;
    }
    barrier_wait(tsr_shared_at(&room->free[barrier_of(p)]), p.parity ^ 1);
    wide_fetch<DIM, FP8>(a, *source, from, tsr_shared_at(part_at(room, p)), part_apart<DIM>(p));
}

/* A part has come, as far as this thread copied it. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void leave_part(int32_t n, hopper_room<DIM, FP8> *room)
{
    const wide_part p = part_of(n);

    if constexpr (FP8) {
        barrier_wait(tsr_shared_at(&room->free[barrier_of(p)]), p.parity ^ 1);
        wide_widen<DIM>(room->stored[n % UNDER_WAY], part_at(room, p), part_apart<DIM>(p));
    }
    copies_seen();
    barrier_arrive(tsr_shared_at(&room->full[barrier_of(p)]));
}

static __device__ __forceinline__ int32_t splits_of(const span &c)
{
    return (c.tiles + TSR_SPLIT_TILES - 1) / TSR_SPLIT_TILES;
}

/* What the first group does: all splits in order, each part as soon as its place is free. A thread
 * widens the pieces that it copied. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void bring_splits(const tsr_attend_job &a, const span &c,
                                                    hopper_room<DIM, FP8> *room)
{
    const int32_t parts = 2 * splits_of(c);
    tsr_tile_source source = {};

    source.table = c.table;
    source.end = c.positions;
    source.head = (uint32_t)(c.kv_head * a.cache.block_tokens) * a.row_pieces;
    tsr_look_up_within<DIM, FP8, KEYS, GROUP_THREADS>(a, &source, 0);
#pragma unroll 1
    for (int32_t n = 0; n < parts + UNDER_WAY - 1; n++) {
        if (n < parts)
            bring_part<DIM, FP8>(a, c, n, &source, room);
        tsr_copies_end();
        tsr_copies_wait<UNDER_WAY - 1>();
        if (n >= UNDER_WAY - 1)
            leave_part<DIM, FP8>(n - (UNDER_WAY - 1), room);
    }
}

/* ---- attention ---- */

/*
 * Barriers 1 and 2 are the groups' turns; the second group gives the first its turn at the beginning.
 * Without turns both would wait for halves of what each of them needs, and then both weigh while
 * nothing is multiplied.
 */
static __device__ __forceinline__ void await_turn(int group)
{
    asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "n"(GROUPS * GROUP_THREADS) : "memory");
}

static __device__ __forceinline__ void give_turn(int group)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(1 + (group ^ 1)), "n"(GROUPS * GROUP_THREADS)
                 : "memory");
}

/* The warps of a group meet. */
static __device__ __forceinline__ void group_meets(int group)
{
    asm volatile("bar.sync %0, %1;" ::"r"(1 + GROUPS + group), "n"(1 * GROUP_THREADS) : "memory");
}

/* A lane's two query rows. */
typedef struct lane_rows {
    int32_t query[2];
    int32_t sees[2]; /* last position */
    int32_t least;   /* of what the warp's rows see */
} lane_rows;

static __device__ __forceinline__ lane_rows rows_of(const span &c, int32_t warp)
{
    const int32_t lane = (int32_t)threadIdx.x % TSR_CUDA_LANES;
    const int32_t first = c.first + warp * TSR_QUERY_ROWS;
    lane_rows l;

    l.least = c.first_position + min(first, c.end - 1) / c.shared;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        l.query[r] = first + lane / 4 + 8 * r;
        l.sees[r] = c.first_position + min(l.query[r], c.end - 1) / c.shared;
    }
    return l;
}

/* A tile's scores to weights, where they stand. */
static __device__ __forceinline__ void weigh_tile(const tsr_attend_job &a, const tsr_rise &rise,
                                                  float (&s)[TSR_TILE / 8][4])
{
#pragma unroll
    for (int i = 0; i < TSR_TILE / 8; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++)
            s[i][n] = tsr_weight_of(s[i][n], a.score_scale, rise.base[n / 2]);
    }
}

/*
 * Scores of a split to weights. What the first tile adds up to would shrink where the second one
 * raises the multiple; its weights, of which none is near the end of what BF16 holds, shrink instead:
 * by a power of two, which changes no bit of what they add up to.
 */
static __device__ __forceinline__ void weigh_split(const tsr_attend_job &a, const lane_rows &l,
                                                   int32_t split, wide_scores &s, float ret_most[2])
{
    const float none[2] = {-INFINITY, -INFINITY};
    float peak[TSR_SPLIT_TILES][2];

    steps_gave(s[0]);
    steps_gave(s[1]);
    if ((split + 1) * KEYS - 1 > l.least) {
        mask(s[0], split * KEYS, l.sees);
        mask(s[1], split * KEYS + TSR_TILE, l.sees);
    }
    find_peak(s[0], peak[0]);
    find_peak(s[1], peak[1]);
    const tsr_rise first = tsr_rise_of(none, peak[0], a.score_scale);
    const tsr_rise second = tsr_rise_of(first.most, peak[1], a.score_scale);
    weigh_tile(a, first, s[0]);
    if (!__all_sync(TSR_ALL_LANES, second.shrink[0] * second.shrink[1] == 1.0F)) {
#pragma unroll
        for (int i = 0; i < TSR_TILE / 8; i++) {
#pragma unroll
            for (int n = 0; n < 4; n++)
                s[0][i][n] *= second.shrink[n / 2];
        }
    }
    weigh_tile(a, second, s[1]);
    ret_most[0] = second.most[0];
    ret_most[1] = second.most[1];
}

static __device__ __forceinline__ void pack(const wide_scores &s, wide_weights &ret_weight)
{
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float *of = s[i / (TSR_TILE / 8)][i % (TSR_TILE / 8)];
            ret_weight[i / 2][i % 2 * 2 + r] = tsr_to_bf16_pair(of[2 * r], of[2 * r + 1]);
        }
    }
}

/* Tells who brings that a place is free. */
static __device__ __forceinline__ void leave_place(uint64_t *free)
{
    if (threadIdx.x % TSR_CUDA_LANES == 0)
        barrier_arrive(tsr_shared_at(free));
}

template <int DIM, bool FP8>
static __device__ __forceinline__ void await_part(hopper_room<DIM, FP8> *room, const wide_part &p)
{
    barrier_wait(tsr_shared_at(&room->full[barrier_of(p)]), p.parity);
}

template <int DIM, bool FP8>
static __device__ __forceinline__ void begin_scores(hopper_room<DIM, FP8> *room, int group,
                                                    const wide_part &keys, wide_scores &s)
{
    await_part(room, keys);
    wide_score<DIM>(tsr_shared_at(room->query[group]), tsr_shared_at(part_at(room, keys)), s);
}

/* What a split's scores and values are worth, in the group's turn, which it keeps. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void
attend_split(const tsr_attend_job &a, const lane_rows &l, int group, int32_t i,
             hopper_room<DIM, FP8> *room, wide_scores &s, tsr_sums<DIM / 8> *ret_split)
{
    const wide_part values = part_of(2 * i + 1);
    wide_weights weight;

    wgmma_wait<0>();
    leave_place(&room->free[values.place]);
    weigh_split(a, l, i, s, ret_split->most);
    pack(s, weight);
#pragma unroll
    for (int step = 0; step < KEYS / TSR_STEP; step++)
        wgmma_hold(weight[step]); /* not later */
    await_part(room, values);
    await_turn(group);
    wide_add_values(weight,
                    matrix_at(tsr_shared_at(part_at(room, values)), part_apart<DIM>(values)),
                    ret_split);
    wgmma_wait<0>();
    steps_gave(ret_split->value);
    wgmma_hold(ret_split->weight);
    leave_place(&room->free[barrier_of(values)]);
}

template <int DIM, bool FP8>
static __device__ __forceinline__ void wide_attend_span(const tsr_attend_job &a, const span &c,
                                                        const lane_rows &l, int group,
                                                        hopper_room<DIM, FP8> *room)
{
    const int32_t last = splits_of(c) - 1;
    tsr_sums<DIM / 8> total;
    tsr_sums<DIM / 8> split;
    wide_scores s;

    tsr_sums_clear(&total);
    if (group == 1)
        give_turn(group);
    begin_scores(room, group, part_of(0), s);
#pragma unroll 1
    for (int32_t i = 0; i < last; i++) {
        attend_split<DIM, FP8>(a, l, group, i, room, s, &split);
        begin_scores(room, group, part_of(2 * i + 2), s);
        give_turn(group);
        tsr_sums_add(&total, split);
    }
    attend_split<DIM, FP8>(a, l, group, last, room, s, &split);
    give_turn(group);
    tsr_sums_add(&total, split);
    finish(a, c, l.query, 0, total);
}

/* What the other groups do: a span from its queries on. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void wide_attend(const tsr_attend_job &a, const span &c,
                                                   hopper_room<DIM, FP8> *room)
{
    const int warp = (int)(threadIdx.x - GROUP_THREADS) / TSR_CUDA_LANES;
    const int group = (int)threadIdx.x / GROUP_THREADS - 1;

    bring_queries<DIM, GROUP_ROWS, TSR_QUERY_ROWS>(a, c, warp * TSR_QUERY_ROWS, room->head[warp],
                                                   room->query[0]);
    copies_seen();
    group_meets(group);
    wide_attend_span<DIM, FP8>(a, c, rows_of(c, warp), group, room);
}

/* Before the groups part: barriers opened, and ones where they stand. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void wide_open(hopper_room<DIM, FP8> *room)
{
    if (threadIdx.x < 2 * PLACES) {
        barrier_open(tsr_shared_at(&room->full[threadIdx.x]), GROUP_THREADS);
        barrier_open(tsr_shared_at(&room->free[threadIdx.x]), WARPS);
    }
    for (int i = (int)threadIdx.x; i < HALF_BYTES / TSR_PIECE; i += WIDE_THREADS)
        *(uint4 *)(room->half[wide_place<DIM>::ones] + i * TSR_PIECE) =
            make_uint4(0x3f803f80U, 0x3f803f80U, 0x3f803f80U, 0x3f803f80U);
    copies_seen();
}

#endif

#endif
