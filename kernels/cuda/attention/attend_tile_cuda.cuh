/*
 * Tiles of keys and values in shared memory, and how they come there and into registers.
 *
 * Tiles lie there in BF16, a position a row, 64 dims after 64 dims:
 *
 *   | row 0, dims 0 .. 63 | row 1, dims 0 .. 63 | .. | row 0, dims 64 .. 127 | ..     128 bytes each
 *
 * 16-byte pieces of these are swapped by the row's last three bits, so that eight rows are read
 * without conflicts.
 */
#ifndef TSR_KERNELS_CUDA_ATTENTION_ATTEND_TILE_CUDA_CUH
#define TSR_KERNELS_CUDA_ATTENTION_ATTEND_TILE_CUDA_CUH

#include "kernels/cuda/attention/attend_cuda.cuh"

static __device__ __forceinline__ uint32_t tsr_shared_at(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Copies a piece while others work, or zeros. */
static __device__ __forceinline__ void tsr_copy_piece(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? TSR_PIECE : 0)
                 : "memory");
}

/* The same, or nothing at all. */
static __device__ __forceinline__ void tsr_copy_piece_if(uint32_t to, const void *from, bool there,
                                                         bool wanted)
{
    asm volatile("{\n"
                 ".reg .pred wanted;\n"
                 "setp.ne.u32 wanted, %3, 0;\n"
                 "@wanted cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
                 "}" ::"r"(to),
                 "l"(from), "r"(there ? TSR_PIECE : 0), "r"((uint32_t)wanted)
                 : "memory");
}

static __device__ __forceinline__ void tsr_copies_end(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int PENDING> static __device__ __forceinline__ void tsr_copies_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* Bytes of an element, of a row and of a tile as the cache holds them. */
template <int DIM, bool FP8> struct tsr_stored {
    static constexpr int element = FP8 ? 1 : 2;
    static constexpr int row = DIM * element;
    static constexpr int tile = TSR_TILE * row;
    static constexpr int pieces = row / TSR_PIECE;
};

/* Where a piece of a row of BF16 lies in a matrix of ROWS rows. */
template <int ROWS> static __device__ __forceinline__ uint32_t tsr_piece_at(int row, int piece)
{
    const uint32_t r = (uint32_t)row;
    const uint32_t p = (uint32_t)piece;

    return (p / 8 * ROWS + r) * TSR_LINE + (p % 8 ^ r % 8) * TSR_PIECE;
}

/* The same in tiles as they are stored, one behind the other; FP8 lies as it comes. */
template <int DIM, bool FP8>
static __device__ __forceinline__ uint32_t tsr_stored_at(int row, int piece)
{
    const uint32_t r = (uint32_t)row;

    return FP8 ? r * DIM + (uint32_t)(piece * TSR_PIECE)
               : r / TSR_TILE * tsr_stored<DIM, FP8>::tile +
                     tsr_piece_at<TSR_TILE>((int)(r % TSR_TILE), piece);
}

/*
 * How the THREADS of a CTA copy COUNT positions: a warp takes whole rows, a piece a lane, and each
 * lane knows where one of the warp's rows lies. The block table is read ahead.
 *
 *   copy i of a warp   rows base + 0 .. ROWS - 1, base = ROWS warp + i apart
 *   lane j knows       the row of copy j / ROWS, j % ROWS
 */
template <int DIM, bool FP8, int COUNT, int THREADS> struct tsr_copying {
    typedef tsr_stored<DIM, FP8> stored;
    static constexpr int rows = TSR_CUDA_LANES / stored::pieces;
    static constexpr int apart = THREADS / stored::pieces;
    static constexpr int copies = COUNT / apart;
    static constexpr bool steady = apart % 8 == 0; /* pieces of a copy are swapped as the first's */
};

/* A sequence's keys and values of one kv head. */
typedef struct tsr_tile_source {
    const int32_t *table;
    int32_t end;    /* positions from here on are zeros */
    uint32_t head;  /* pieces before the kv head in a block */
    uint32_t block; /* of this lane's row of the next rows */
    uint32_t at;    /* pieces before this lane's row of these; TSR_NOWHERE: zeros */
    bool wrong;     /* this lane has come upon a block that is none; zeros stand for it */
} tsr_tile_source;

#define TSR_NOWHERE 0xffffffffU

template <int DIM, bool FP8, int COUNT, int THREADS>
static __device__ __forceinline__ int32_t tsr_lane_row(void)
{
    typedef tsr_copying<DIM, FP8, COUNT, THREADS> copying;
    const int warp = (int)(threadIdx.x / TSR_CUDA_LANES);
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);

    return copying::rows * warp + lane % copying::rows + lane / copying::rows * copying::apart;
}

/* Reads the block table for the rows from position `first` on. */
template <int DIM, bool FP8, int COUNT, int THREADS>
static __device__ __forceinline__ void tsr_look_up(const tsr_attend_job &a, tsr_tile_source *s,
                                                   int32_t first)
{
    const int32_t position = first + tsr_lane_row<DIM, FP8, COUNT, THREADS>();

    if (position < s->end)
        s->block = (uint32_t)s->table[tsr_block_at(a, position)];
}

/* Turns what was read for the rows from `first` on into where they lie. */
template <int DIM, bool FP8, int COUNT, int THREADS>
static __device__ __forceinline__ void tsr_find_rows(const tsr_attend_job &a, tsr_tile_source *s,
                                                     int32_t first)
{
    const int32_t position = first + tsr_lane_row<DIM, FP8, COUNT, THREADS>();
    const int32_t slot = position - tsr_block_at(a, position) * a.cache.block_tokens;

    s->at = s->block * a.block_pieces + s->head + (uint32_t)slot * a.row_pieces;
    if (position >= s->end) {
        s->at = TSR_NOWHERE;
    } else if (s->block >= (uint32_t)a.cache.blocks) {
        s->at = TSR_NOWHERE;
        s->wrong = true;
    }
}

/* Pieces are counted in 32 bits: keys or values of a layer are less than 64 GiB. One row may be left to
 * who writes it. */
template <int DIM, bool FP8, int COUNT, int THREADS, bool SKIPS = false>
static __device__ __forceinline__ void tsr_fetch_rows(const tsr_attend_job &a,
                                                      const tsr_tile_source &s, const void *memory,
                                                      uint32_t to, int32_t skipped = -1)
{
    typedef tsr_copying<DIM, FP8, COUNT, THREADS> copying;
    typedef tsr_stored<DIM, FP8> stored;
    const int warp = (int)(threadIdx.x / TSR_CUDA_LANES);
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);
    const int piece = lane % stored::pieces;
    const int row = copying::rows * warp + lane / stored::pieces;
    const unsigned char *from = (const unsigned char *)memory + piece * TSR_PIECE;
    const bool used = (uint32_t)piece < a.row_pieces;
    const uint32_t first = to + tsr_stored_at<DIM, FP8>(row, piece);

#pragma unroll
    for (int i = 0; i < copying::copies; i++) {
        const int apart = i * copying::apart;
        const uint32_t at =
            __shfl_sync(TSR_ALL_LANES, s.at, i * copying::rows + lane / stored::pieces);
        const bool there = used && at != TSR_NOWHERE;
        const uint32_t place = copying::steady ? first + tsr_stored_at<DIM, FP8>(apart, 0)
                                               : to + tsr_stored_at<DIM, FP8>(row + apart, piece);
        /* Where there is nothing the address is not looked at. */
        tsr_copy_piece_if(place, from + (uint64_t)at * TSR_PIECE, there,
                          !SKIPS || row + apart != skipped);
    }
}

/* As tsr_look_up and tsr_find_rows, with the last row for those behind the end. */
template <int DIM, bool FP8, int COUNT, int THREADS>
static __device__ __forceinline__ int32_t tsr_row_within(const tsr_tile_source &s, int32_t first)
{
    return min(first + tsr_lane_row<DIM, FP8, COUNT, THREADS>(), s.end - 1);
}

template <int DIM, bool FP8, int COUNT, int THREADS>
static __device__ __forceinline__ void tsr_look_up_within(const tsr_attend_job &a,
                                                          tsr_tile_source *s, int32_t first)
{
    s->block =
        (uint32_t)s->table[tsr_block_at(a, tsr_row_within<DIM, FP8, COUNT, THREADS>(*s, first))];
}

template <int DIM, bool FP8, int COUNT, int THREADS>
static __device__ __forceinline__ void tsr_find_rows_within(const tsr_attend_job &a,
                                                            tsr_tile_source *s, int32_t first)
{
    const int32_t position = tsr_row_within<DIM, FP8, COUNT, THREADS>(*s, first);
    const int32_t slot = position - tsr_block_at(a, position) * a.cache.block_tokens;

    s->at = s->block * a.block_pieces + s->head + (uint32_t)slot * a.row_pieces;
}

/* Eight codes to BF16, which is exact. */
static __device__ __forceinline__ uint4 tsr_widened(uint32_t low, uint32_t high)
{
    const uint32_t word[2] = {low, high};
    uint32_t wide[4];

#pragma unroll
    for (int n = 0; n < 4; n++) {
        const float2 v = tsr_from_e4m3_pair(word[n / 2] >> 16 * (n % 2));
        wide[n] = tsr_to_bf16_pair(v.x, v.y);
    }
    return make_uint4(wide[0], wide[1], wide[2], wide[3]);
}

/* Rows of codes to BF16. By all THREADS of the CTA. */
template <int DIM, int COUNT, int THREADS>
static __device__ __forceinline__ void tsr_widen_rows(const unsigned char *from, unsigned char *to)
{
    constexpr int pieces = DIM / TSR_PIECE;

#pragma unroll
    for (int i = 0; i < COUNT * pieces / THREADS; i++) {
        const int at = (int)threadIdx.x + i * THREADS;
        const int row = at / pieces;
        const int piece = at % pieces;
        const uint4 codes = *(const uint4 *)(from + at * TSR_PIECE);
        *(uint4 *)(to + tsr_stored_at<DIM, false>(row, 2 * piece)) = tsr_widened(codes.x, codes.y);
        *(uint4 *)(to + tsr_stored_at<DIM, false>(row, 2 * piece + 1)) =
            tsr_widened(codes.z, codes.w);
    }
}

#endif
