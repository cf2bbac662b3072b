/*
 * A span on Hopper, of heads up to 128 wide: what attend_prefill_cuda.cu computes elsewhere, with the
 * tensor cores' wide steps, which give the same bits. A CTA's 128 query rows are those of two warp
 * groups, which take turns; a third one brings keys and values to a ring, tile after tile:
 *
 *   tile           | values | ones | keys |
 *
 *   tensor cores   q k(i)  |  w(i - 1) v(i - 1)  |  q k(i + 1)  |  w(i) v(i)
 *   a warp group              | weighs i         |                 | weighs i + 1  |
 *
 * The ones stand as if they were 64 dims more: the sums of weights are those of one column of them.
 * Tiles of FP8 come to a ring of their own; who brought them widens them to the one that is read.
 */
#ifndef TSR_KERNELS_CUDA_ATTEND_HOPPER_CUDA_CUH
#define TSR_KERNELS_CUDA_ATTEND_HOPPER_CUDA_CUH

#include "kernels/cuda/async_cuda.cuh"
#include "kernels/cuda/attend_span_cuda.cuh"
#include "kernels/cuda/wgmma_cuda.cuh"

enum {
    GROUP_ROWS = 64, /* query rows of a warp group */
    GROUP_THREADS = 4 * TSR_CUDA_LANES,
    GROUPS = 2,
    WIDE_THREADS = (1 + GROUPS) * GROUP_THREADS, /* the first group brings */
    HALF_BYTES = TSR_TILE * TSR_LINE,            /* of a tile: 64 dims */
    UNDER_WAY = 2,                               /* tiles whose copies have not been waited for */
};

/* A tile. */
template <int DIM> struct wide_unit {
    unsigned char values[TSR_TILE * DIM * 2];
    unsigned char ones[HALF_BYTES];
    unsigned char keys[TSR_TILE * DIM * 2];
};

/* Shared memory of a CTA. The wide steps want matrices on 1024 bytes. */
template <int DIM, bool FP8> struct hopper_room {
    static constexpr int units = FP8 ? 3 : 4;
    wide_unit<DIM> unit[units];
    unsigned char query[GROUPS * GROUP_ROWS * DIM * 2]; /* 16 rows a warp */
    unsigned char stored[FP8 ? UNDER_WAY : 1][2][FP8 ? TSR_TILE * DIM : TSR_PIECE];
    float head[WARPS][DIM]; /* in hand */
    uint64_t full[units];
    uint64_t free[units];
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

/*
 * Where a matrix lies (in units of 16 bytes, which add) and how: 16-byte pieces swapped in lines of 128 bytes (1 << 62), groups of 8
 * lines 1024 bytes apart (bits 32..), and for values the next 64 dims HALF_BYTES further (bits 16..).
 */
static __device__ __forceinline__ uint64_t matrix_at(uint32_t at)
{
    return (uint64_t)(at >> 4 & 0x3fffU) | (uint64_t)(HALF_BYTES >> 4) << 16 |
           (uint64_t)(8 * TSR_LINE >> 4) << 32 | 1ULL << 62;
}

/* s (+)= 16 dims of the queries times those of 64 keys */
static __device__ __forceinline__ void score_step(float (&s)[8][4], const uint32_t q[4],
                                                  uint64_t keys, int adds)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0; "
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{" REGISTERS_32 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
                 : EIGHT(s)
                 : "r"(q[0]), "r"(q[1]), "r"(q[2]), "r"(q[3]), "l"(keys), "r"(adds));
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

template <int DIM>
static __device__ __forceinline__ void wide_score(const uint32_t (&query)[DIM / TSR_STEP][4],
                                                  uint32_t keys, float (&s)[TSR_TILE / 8][4])
{
    const uint64_t first = matrix_at(keys);

    wgmma_begin();
#pragma unroll
    for (int step = 0; step < DIM / TSR_STEP; step++) {
        const int further = step / 4 * HALF_BYTES + step % 4 * TSR_STEP * 2;
        score_step(s, query[step], first + (uint64_t)(further >> 4), step > 0);
    }
    wgmma_commit();
}

/* Adds a tile's weighted values; a split's first tile begins from zero. */
template <int PIECES>
static __device__ __forceinline__ void
wide_add_values(const uint32_t (&weight)[TSR_TILE / TSR_STEP][4], uint32_t values, bool adds,
                tsr_sums<PIECES> *sums)
{
    const uint64_t first = matrix_at(values);

    wgmma_begin();
#pragma unroll
    for (int step = 0; step < TSR_TILE / TSR_STEP; step++)
        value_step(sums, weight[step], first + (uint64_t)(step * TSR_STEP * TSR_LINE >> 4),
                   step > 0 || adds);
    wgmma_commit();
}

/* ---- the ring ---- */

/* A place in the ring, and whether it is passed an odd number of times. */
typedef struct ring_place {
    int32_t unit;
    uint32_t parity;
} ring_place;

static __device__ __forceinline__ void step_on(ring_place *p, int32_t units)
{
    p->unit++;
    if (p->unit < units)
        return;
    p->unit = 0;
    p->parity ^= 1;
}

/* Begins to fetch tile u to where keys and values come. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void wide_fetch(const tsr_attend_job &a, const span &c, int32_t u,
                                                  tsr_tile_source *source, const void *keys,
                                                  const void *values)
{
    tsr_find_rows_within<DIM, FP8, TSR_TILE, GROUP_THREADS>(a, source, u * TSR_TILE);
    if (u + 1 < c.tiles)
        tsr_look_up_within<DIM, FP8, TSR_TILE, GROUP_THREADS>(a, source, (u + 1) * TSR_TILE);
    tsr_fetch_both<DIM, FP8, TSR_TILE, GROUP_THREADS>(a, *source, tsr_shared_at(keys),
                                                      tsr_shared_at(values));
}

/* What the first group does: all tiles in order, each as soon as its place is free. A thread widens
 * the pieces that it copied. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void bring_units(const tsr_attend_job &a, const span &c,
                                                   hopper_room<DIM, FP8> *room)
{
    constexpr int units = hopper_room<DIM, FP8>::units;
    ring_place comes = {0, 1};
    ring_place came = {0, 1};
    tsr_tile_source source = {};

    source.table = c.table;
    source.end = c.positions;
    source.head = (uint32_t)(c.kv_head * a.cache.block_tokens) * a.row_pieces;
    tsr_look_up_within<DIM, FP8, TSR_TILE, GROUP_THREADS>(a, &source, 0);
#pragma unroll 1
    for (int32_t u = 0; u < c.tiles + UNDER_WAY - 1; u++) {
        unsigned char(*stored)[FP8 ? TSR_TILE * DIM : TSR_PIECE] = room->stored[u % UNDER_WAY];
        if (FP8 && u < c.tiles) {
            wide_fetch<DIM, FP8>(a, c, u, &source, stored[0], stored[1]);
        } else if (u < c.tiles) {
            wide_unit<DIM> *unit = &room->unit[comes.unit];
            barrier_wait(tsr_shared_at(&room->free[comes.unit]), comes.parity);
            wide_fetch<DIM, FP8>(a, c, u, &source, unit->keys, unit->values);
            step_on(&comes, units);
        }
        tsr_copies_end();
        tsr_copies_wait<UNDER_WAY - 1>();
        if (u < UNDER_WAY - 1)
            continue;
        if constexpr (FP8) {
            wide_unit<DIM> *unit = &room->unit[came.unit];
            stored = room->stored[(u + 1) % UNDER_WAY];
            barrier_wait(tsr_shared_at(&room->free[came.unit]), came.parity);
            tsr_widen_rows<DIM, TSR_TILE, GROUP_THREADS>(stored[0], unit->keys);
            tsr_widen_rows<DIM, TSR_TILE, GROUP_THREADS>(stored[1], unit->values);
        }
        copies_seen();
        barrier_arrive(tsr_shared_at(&room->full[came.unit]));
        step_on(&came, units);
    }
}

/* ---- attention ---- */

/*
 * The groups take turns at the tensor cores: without that both wait for halves of what each of them
 * needs, and then both weigh while nothing is added up. Barriers 1 and 2 are the groups'; the second
 * group gives the first its turn at the beginning.
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

/* Scores of a tile to weights, where they stand: their registers as the A operand may still be those
 * of the tile before. */
static __device__ __forceinline__ tsr_rise weigh_tile(const tsr_attend_job &a, const lane_rows &l,
                                                      int32_t tile, const float most[2],
                                                      float (&s)[TSR_TILE / 8][4])
{
    float peak[2];

    steps_gave(s);
    if ((tile + 1) * TSR_TILE - 1 > l.least)
        mask(s, tile * TSR_TILE, l.sees);
    find_peak(s, peak);
    const tsr_rise rise = tsr_rise_of(most, peak, a.score_scale);
#pragma unroll
    for (int i = 0; i < TSR_TILE / 8; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++)
            s[i][n] = tsr_weight_of(s[i][n], a.score_scale, rise.base[n / 2]);
    }
    steps_gave(s); /* not later */
    return rise;
}

static __device__ __forceinline__ void pack(const float (&s)[TSR_TILE / 8][4],
                                            uint32_t (&ret_weight)[TSR_TILE / TSR_STEP][4])
{
#pragma unroll
    for (int i = 0; i < TSR_TILE / 8; i++) {
#pragma unroll
        for (int r = 0; r < 2; r++)
            ret_weight[i / 2][i % 2 * 2 + r] = tsr_to_bf16_pair(s[i][2 * r], s[i][2 * r + 1]);
    }
}

/* Tells who brings that the unit's place is free. */
static __device__ __forceinline__ void leave_unit(uint64_t *free)
{
    if (threadIdx.x % TSR_CUDA_LANES == 0)
        barrier_arrive(tsr_shared_at(free));
}

/*
 * Waits for values. Stands first on each way behind a branch, told apart by WAY so that the ways stay
 * two: the compiler moves it up to where a block begins, and weighing in front of it is what values
 * are added up under.
 */
template <int WAY, int PIECES>
static __device__ __forceinline__ void wide_values_wait(uint64_t *free, tsr_sums<PIECES> *sums)
{
    asm volatile("wgmma.wait_group.sync.aligned 0; // way %0" ::"n"(WAY) : "memory");
    steps_gave(sums->value);
    wgmma_hold(sums->weight);
    leave_unit(free);
}

template <int DIM, bool FP8>
static __device__ __forceinline__ void
wide_attend_span(const tsr_attend_job &a, const span &c, const lane_rows &l,
                 const uint32_t (&query)[DIM / TSR_STEP][4], hopper_room<DIM, FP8> *room)
{
    const float none[2] = {-INFINITY, -INFINITY};
    const int group = (int)threadIdx.x / GROUP_THREADS - 1;
    ring_place at = {0, 0};
    tsr_sums<DIM / 8> split;
    tsr_sums<DIM / 8> total;
    float s[TSR_TILE / 8][4];
    uint32_t weight[TSR_TILE / TSR_STEP][4];

    tsr_sums_clear(&split);
    tsr_sums_clear(&total);
    if (group == 1)
        give_turn(group);
    barrier_wait(tsr_shared_at(&room->full[0]), 0);
    wide_score<DIM>(query, tsr_shared_at(room->unit[0].keys), s);
    wgmma_wait<0>();
    tsr_rise rise = weigh_tile(a, l, 0, none, s);
#pragma unroll 1
    for (int32_t tile = 1; tile < c.tiles; tile++) {
        const bool begins = tile % TSR_SPLIT_TILES == 0;
        split.most[0] = rise.most[0];
        split.most[1] = rise.most[1];
        pack(s, weight);
        const float most[2] = {begins ? -INFINITY : split.most[0],
                               begins ? -INFINITY : split.most[1]};
        const int32_t last = at.unit;
        step_on(&at, hopper_room<DIM, FP8>::units);
        barrier_wait(tsr_shared_at(&room->full[at.unit]), at.parity);
        await_turn(group);
        wide_score<DIM>(query, tsr_shared_at(room->unit[at.unit].keys), s);
        wide_add_values(weight, tsr_shared_at(room->unit[last].values),
                        (tile - 1) % TSR_SPLIT_TILES != 0, &split);
        give_turn(group);
        wgmma_wait<1>();
        rise = weigh_tile(a, l, tile, most, s);
        if (begins) {
            wide_values_wait<0>(&room->free[last], &split);
            tsr_sums_add(&total, split);
        } else {
            wide_values_wait<1>(&room->free[last], &split);
            tsr_sums_rise(&split, rise);
        }
    }
    split.most[0] = rise.most[0];
    split.most[1] = rise.most[1];
    pack(s, weight);
    wide_add_values(weight, tsr_shared_at(room->unit[at.unit].values),
                    (c.tiles - 1) % TSR_SPLIT_TILES != 0, &split);
    wide_values_wait<2>(&room->free[at.unit], &split);
    tsr_sums_add(&total, split);
    finish(a, c, l.query, 0, total);
}

/* What the other groups do: a span from its queries on. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void wide_attend(const tsr_attend_job &a, const span &c,
                                                   hopper_room<DIM, FP8> *room)
{
    const int warp = (int)(threadIdx.x - GROUP_THREADS) / TSR_CUDA_LANES;
    unsigned char *rows = room->query + warp * TSR_QUERY_ROWS * DIM * 2;
    uint32_t query[DIM / TSR_STEP][4];

    bring_queries<DIM, TSR_QUERY_ROWS, TSR_QUERY_ROWS>(a, c, warp * TSR_QUERY_ROWS,
                                                       room->head[warp], room->query);
    __syncwarp();
#pragma unroll
    for (int step = 0; step < DIM / TSR_STEP; step++)
        tsr_load_rows<TSR_QUERY_ROWS>(query[step], tsr_shared_at(rows), 0, step);
    wide_attend_span<DIM, FP8>(a, c, rows_of(c, warp), query, room);
}

/* Before the groups part: barriers opened, and ones where they stand. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void wide_open(hopper_room<DIM, FP8> *room)
{
    constexpr int units = hopper_room<DIM, FP8>::units;

    if (threadIdx.x < units) {
        barrier_open(tsr_shared_at(&room->full[threadIdx.x]), GROUP_THREADS);
        barrier_open(tsr_shared_at(&room->free[threadIdx.x]), WARPS);
    }
    for (int i = (int)threadIdx.x; i < units * HALF_BYTES / TSR_PIECE; i += WIDE_THREADS) {
        const int at = i % (HALF_BYTES / TSR_PIECE) * TSR_PIECE;
        *(uint4 *)(room->unit[i / (HALF_BYTES / TSR_PIECE)].ones + at) =
            make_uint4(0x3f803f80U, 0x3f803f80U, 0x3f803f80U, 0x3f803f80U);
    }
    copies_seen();
}

#endif

#endif
