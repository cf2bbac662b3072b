/*
 * A span on Hopper, of heads up to 128 wide: what attend_prefill_cuda.cu computes elsewhere, with the
 * tensor cores' wide steps, which give the same bits. A CTA's 128 query rows are those of two warp
 * groups; scores of the next tile and values of this one are added up while a warp group weighs:
 *
 *   tensor cores   q k(i + 1)  |  w(i) v(i)       |  q k(i + 2)  |  w(i + 1) v(i + 1)
 *   a warp group                  | weighs i + 1  |                 | weighs i + 2  |
 *
 * So keys are fetched a tile ahead of values. Tiles of FP8 come to rings of their own and are widened
 * to the ones that the steps read.
 */
#ifndef TSR_KERNELS_CUDA_ATTEND_HOPPER_CUDA_CUH
#define TSR_KERNELS_CUDA_ATTEND_HOPPER_CUDA_CUH

#include "kernels/cuda/attend_span_cuda.cuh"

enum {
    GROUP_ROWS = 64, /* query rows of a warp group */
    GROUPS = 2,
    TILES = 3,                        /* of keys in the ring, and of values */
    HALF_BYTES = TSR_TILE * TSR_LINE, /* of a tile: 64 dims */
};

/* Shared memory of a CTA. The wide steps want matrices on 1024 bytes. */
template <int DIM, bool FP8> struct hopper_room {
    static constexpr int tiles = FP8 ? 2 : TILES;
    unsigned char keys[tiles][TSR_TILE * DIM * 2];
    unsigned char values[tiles][TSR_TILE * DIM * 2];
    unsigned char query[GROUPS][GROUP_ROWS * DIM * 2];
    unsigned char stored[FP8 ? TILES : 1][2][FP8 ? TSR_TILE * DIM : TSR_PIECE];
    uint32_t ones[64]; /* 16 positions x 8 columns */
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
#define REGISTERS_64                                                                               \
    REGISTERS_32                                                                                   \
    ", "                                                                                           \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

/*
 * Where a matrix lies and how: 16-byte pieces swapped in lines of 128 bytes (1 << 62), groups of 8
 * lines 1024 bytes apart (bits 32..), and for values the next 64 dims HALF_BYTES further (bits 16..).
 */
static __device__ __forceinline__ uint64_t matrix_at(uint32_t at)
{
    return (uint64_t)(at >> 4 & 0x3fffU) | (uint64_t)(HALF_BYTES >> 4) << 16 |
           (uint64_t)(8 * TSR_LINE >> 4) << 32 | 1ULL << 62;
}

/* s (+)= 16 dims of the queries times those of 64 keys */
static __device__ __forceinline__ void score_step(float s[8][4], uint64_t query, uint64_t keys,
                                                  int adds)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0; "
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{" REGISTERS_32 "}, %32, %33, p, 1, 1, 0, 0; }"
                 : EIGHT(s)
                 : "l"(query), "l"(keys), "r"(adds));
}

/* sums += weights of 16 positions times 64 dims of their values */
static __device__ __forceinline__ void value_step(float (&s)[8][4], const uint32_t w[4],
                                                  uint64_t values)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{" REGISTERS_32 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : EIGHT(s)
                 : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "l"(values));
}

/* The same, 128 dims. */
static __device__ __forceinline__ void value_step(float (&s)[16][4], const uint32_t w[4],
                                                  uint64_t values)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{" REGISTERS_64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : EIGHT(s), EIGHT(s + 8)
                 : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "l"(values));
}

/* sum += weights of 16 positions; ones lie in 128-byte groups, in no order of their own. */
static __device__ __forceinline__ void weight_step(float sum[4], const uint32_t w[4], uint32_t ones)
{
    const uint64_t at = (uint64_t)(ones >> 4 & 0x3fffU) | 8ULL << 16 | 8ULL << 32;

    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, 1, 1, 1, 0;"
                 : FOUR(sum)
                 : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "l"(at));
}

static __device__ __forceinline__ void steps_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void steps_end(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int PENDING> static __device__ __forceinline__ void steps_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* Registers of wide steps that have been waited for: nothing that reads them moves before this. */
template <int PIECES> static __device__ __forceinline__ void steps_gave(float (&s)[PIECES][4])
{
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++)
            asm volatile("" : "+f"(s[i][n])::"memory");
    }
}

template <int PIECES> static __device__ __forceinline__ void sums_gave(tsr_sums<PIECES> *s)
{
    steps_gave(s->value);
#pragma unroll
    for (int n = 0; n < 4; n++)
        asm volatile("" : "+f"(s->weight[n])::"memory");
}

/* What this thread has written to shared memory, the wide steps see. */
static __device__ __forceinline__ void show_steps(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

template <int DIM>
static __device__ __forceinline__ void wide_score(uint32_t query, uint32_t keys, float s[8][4])
{
    steps_begin();
#pragma unroll
    for (int step = 0; step < DIM / TSR_STEP; step++) {
        const uint32_t at = (uint32_t)(step / 4 * HALF_BYTES + step % 4 * TSR_STEP * 2);
        score_step(s, matrix_at(query + at), matrix_at(keys + at), step > 0);
    }
    steps_end();
}

template <int PIECES>
static __device__ __forceinline__ void
wide_add_values(const uint32_t weight[TSR_TILE / TSR_STEP][4], uint32_t values, uint32_t ones,
                tsr_sums<PIECES> *sums)
{
    steps_begin();
#pragma unroll
    for (int step = 0; step < TSR_TILE / TSR_STEP; step++) {
        value_step(sums->value, weight[step],
                   matrix_at(values + (uint32_t)(step * TSR_STEP * TSR_LINE)));
        weight_step(sums->weight, weight[step], ones);
    }
    steps_end();
}

/* ---- the rings ---- */

/* Where tile i of keys or values comes to. */
template <int DIM, bool FP8>
static __device__ __forceinline__ uint32_t comes_to(hopper_room<DIM, FP8> *room, bool keys,
                                                    int32_t i)
{
    if (FP8)
        return tsr_shared_at(room->stored[i % TILES][keys ? 0 : 1]);
    return tsr_shared_at(keys ? room->keys[i % TILES] : room->values[i % TILES]);
}

/* Fetches values of tile i and keys of tile i + 1; values of no tile where i is -1. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void wide_fetch(const tsr_attend_job &a, const span &c, int32_t i,
                                                  tsr_tile_source *source,
                                                  hopper_room<DIM, FP8> *room)
{
    if (i >= 0 && i < c.tiles)
        tsr_fetch_rows<DIM, FP8, TSR_TILE, THREADS>(a, *source, a.cache.values,
                                                    comes_to(room, false, i));
    if (i + 1 < c.tiles) {
        tsr_find_rows<DIM, FP8, TSR_TILE, THREADS>(a, source, (i + 1) * TSR_TILE);
        tsr_fetch_rows<DIM, FP8, TSR_TILE, THREADS>(a, *source, a.cache.keys,
                                                    comes_to(room, true, i + 1));
        tsr_look_up<DIM, FP8, TSR_TILE, THREADS>(a, source, (i + 2) * TSR_TILE);
    }
    tsr_copies_end();
}

/* Waits for values of tile i and keys of tile i + 1; PENDING fetches may still be on their way. */
template <int DIM, bool FP8, int PENDING>
static __device__ __forceinline__ void wide_arrive(const span &c, int32_t i,
                                                   hopper_room<DIM, FP8> *room)
{
    tsr_copies_wait<PENDING>();
    if (FP8) {
        __syncthreads();
        if (i + 1 < c.tiles)
            tsr_widen_rows<DIM, TSR_TILE, THREADS>(room->stored[(i + 1) % TILES][0],
                                                   room->keys[(i + 1) % room->tiles]);
        if (i >= 0)
            tsr_widen_rows<DIM, TSR_TILE, THREADS>(room->stored[i % TILES][1],
                                                   room->values[i % room->tiles]);
    }
    show_steps();
    __syncthreads();
}

/* ---- attention ---- */

/* A lane's two query rows. */
typedef struct lane_rows {
    int32_t query[2];
    int32_t sees[2]; /* last position */
    int32_t least;   /* of what the warp's rows see */
} lane_rows;

static __device__ __forceinline__ lane_rows rows_of(const span &c)
{
    const int32_t warp = (int32_t)threadIdx.x / TSR_CUDA_LANES;
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
    return rise;
}

static __device__ __forceinline__ void pack(float (&s)[TSR_TILE / 8][4],
                                            uint32_t ret_weight[TSR_TILE / TSR_STEP][4])
{
    steps_gave(s);
#pragma unroll
    for (int i = 0; i < TSR_TILE / 8; i++) {
#pragma unroll
        for (int r = 0; r < 2; r++)
            ret_weight[i / 2][i % 2 * 2 + r] = tsr_to_bf16_pair(s[i][2 * r], s[i][2 * r + 1]);
    }
}

template <int DIM, bool FP8>
static __device__ __forceinline__ void wide_attend_span(const tsr_attend_job &a, const span &c,
                                                        tsr_tile_source *source,
                                                        hopper_room<DIM, FP8> *room)
{
    const lane_rows l = rows_of(c);
    const uint32_t query =
        tsr_shared_at(room->query[threadIdx.x / (TSR_CUDA_LANES * WARPS / GROUPS)]);
    const uint32_t ones = tsr_shared_at(room->ones);
    const float none[2] = {-INFINITY, -INFINITY};
    tsr_sums<DIM / 8> split;
    tsr_sums<DIM / 8> total;
    float s[TSR_TILE / 8][4];
    uint32_t weight[TSR_TILE / TSR_STEP][4];

    tsr_sums_clear(&split);
    tsr_sums_clear(&total);
    wide_score<DIM>(query, tsr_shared_at(room->keys[0]), s);
    steps_wait<0>();
    tsr_rise rise = weigh_tile(a, l, 0, none, s);
    pack(s, weight);
    split.most[0] = rise.most[0];
    split.most[1] = rise.most[1];
    for (int32_t tile = 0; tile + 1 < c.tiles; tile++) {
        const bool ends = (tile + 1) % TSR_SPLIT_TILES == 0;
        const float most[2] = {ends ? -INFINITY : split.most[0], ends ? -INFINITY : split.most[1]};
        wide_arrive<DIM, FP8, TILES - 2>(c, tile, room);
        wide_score<DIM>(query, tsr_shared_at(room->keys[(tile + 1) % room->tiles]), s);
        wide_add_values(weight, tsr_shared_at(room->values[tile % room->tiles]), ones, &split);
        wide_fetch(a, c, tile + TILES - 1, source, room); /* into what the tile before used */
        steps_wait<1>();
        rise = weigh_tile(a, l, tile + 1, most, s);
        steps_wait<0>();
        sums_gave(&split);
        if (ends) {
            tsr_sums_add(&total, split);
            tsr_sums_clear(&split);
        }
        tsr_sums_rise(&split, rise);
        pack(s, weight);
    }
    wide_arrive<DIM, FP8, TILES - 2>(c, c.tiles - 1, room);
    wide_add_values(weight, tsr_shared_at(room->values[(c.tiles - 1) % room->tiles]), ones, &split);
    steps_wait<0>();
    sums_gave(&split);
    tsr_sums_add(&total, split);
    finish(a, c, l.query, 0, total);
}

/* A span from its queries on; the whole CTA. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void wide_attend(const tsr_attend_job &a, const span &c,
                                                   hopper_room<DIM, FP8> *room)
{
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    tsr_tile_source source = {
        c.table, c.positions, (uint32_t)(c.kv_head * a.cache.block_tokens) * a.row_pieces, 0, 0,
    };

    tsr_look_up<DIM, FP8, TSR_TILE, THREADS>(a, &source, 0);
    if (threadIdx.x < sizeof(room->ones) / sizeof(room->ones[0]))
        room->ones[threadIdx.x] = 0x3f803f80U;
    /* Values come last: until then a warp's head in hand has room there. */
    wide_fetch(a, c, -1, &source, room);
    bring_queries<DIM, GROUP_ROWS, TSR_QUERY_ROWS>(
        a, c, warp * TSR_QUERY_ROWS, (float *)(void *)room->values[0] + warp * DIM, room->query[0]);
    __syncthreads();
#pragma unroll 1
    for (int32_t i = 0; i < TILES - 1; i++)
        wide_fetch(a, c, i, &source, room);
    wide_arrive<DIM, FP8, TILES - 1>(c, -1, room);
    wide_attend_span<DIM, FP8>(a, c, &source, room);
}

#endif

#endif
