/*
 * What the slots of few rows ask for, and a CTA's share of it, for the kernel that has gate, up and down of
 * few pairs at once (tiles_flow_cuda.cu).
 *
 * Slots of one expert make a tile, up to FLOW_TOGETHER. Tiles are parted in two, and every CTA has a share
 * of each part of each product, in segments of a tile each:
 *
 *   gate, up of part 0 | gate, up of part 1 | down of part 0 | down of part 1     for each CTA a stretch of each
 *
 * so that what down needs has been computed when its turn comes. Its weights are on their way by then, since
 * the rings of warps go on from one segment to the next.
 */
#ifndef TSR_KERNELS_CUDA_EXPERTS_FLOW_SHARE_CUDA_CUH
#define TSR_KERNELS_CUDA_EXPERTS_FLOW_SHARE_CUDA_CUH

#include "kernels/cuda/experts/packets_cuda.cuh"
#include "kernels/cuda/experts/stream_cuda.cuh"

enum {
    FLOW_WARPS = 16, /* that multiply */
    FLOW_MAKERS = 4, /* warps that make operand rows, each one of a tile's */
    FLOW_THREADS = (FLOW_WARPS + FLOW_MAKERS) * TSR_CUDA_LANES,
    FLOW_TOGETHER = FLOW_MAKERS, /* pairs of a tile */
    FLOW_BUFFERS = 2,            /* of operand rows, each of a segment */
    FLOW_SLOTS = 256,            /* most */
    FLOW_SEGMENTS = 64,          /* most of a CTA */
    FLOW_PHASES = 4,
    FLOW_LATER = 2, /* of so many parts of all tiles: those of the second phase of each product */
    FLOW_WHOLE = 5,
    FLOW_PITCH = 20,       /* words of a token's sums with a tile, against bank conflicts */
    FLOW_FOURS = 16,       /* of a row that a lane has at once */
    FLOW_PACKED_FOURS = 8, /* of a row of packets */
    FLOW_WORDS = FLOW_SLOTS / TSR_CUDA_LANES,
    FLOW_AHEAD = 3, /* orders on their way */
    FLOW_TEAM_BARRIERS = 15,
};

typedef struct flow_product {
    product_cut cut;
    tsr_linear_kind kind;
    int32_t out;
    int32_t in;
    int32_t tiles;  /* of 16 rows of the weight */
    int32_t items;  /* of a tile of pairs: 16 rows of gate and of up, or 32 of down */
    int32_t blocks; /* of a row */
    int32_t slice_blocks;
    int32_t teams; /* of a CTA, a warp for each slice */
} flow_product;

/* Where what a CTA has stands in its dynamic shared memory, in bytes; rings are in front. */
typedef struct flow_room {
    int32_t rows; /* FLOW_BUFFERS times: FLOW_TOGETHER operand rows */
    int32_t row_bytes;
    int32_t sums; /* flow_sums of each warp and side, of gate and up and of down */
    int32_t experts;
    int32_t local_of;
    int32_t asks; /* [local][FLOW_WORDS] a bit for each slot that asks for an expert */
    int32_t end;
} flow_room;

typedef struct flow_args {
    pair_args pairs;
    const tsr_mlp *mlps;
    const float *x;
    int64_t x_stride;
    float *y;
    uint64_t *wide;          /* [slots, I] */
    uint32_t *number;        /* of the launch */
    flow_product product[2]; /* gate and up; down */
    flow_room room;
    int32_t slots; /* that there may be */
    int32_t of_slots;
} flow_args;

typedef float flow_sums[FLOW_TOGETHER][FLOW_PITCH];

typedef struct flow_tile {
    int32_t expert;
    int32_t count;
    int32_t slot[FLOW_TOGETHER];
} flow_tile;

/* Items of a tile that are a CTA's. */
typedef struct flow_segment {
    int32_t down;
    int32_t tile;
    int32_t first; /* item */
    int32_t count;
    int32_t turn; /* team of the first item */
} flow_segment;

typedef struct flow_memory {
    uint64_t full[FLOW_BUFFERS];
    uint64_t empty[FLOW_BUFFERS];
    int32_t local[FLOW_SLOTS]; /* expert of each slot; -1: no answer is wanted */
    int32_t answer[FLOW_SLOTS];
    int32_t tile_of[FLOW_SLOTS]; /* of slots that open one */
    flow_tile tile[FLOW_SLOTS];
    flow_segment segment[FLOW_SEGMENTS];
    int32_t openers[FLOW_SLOTS / TSR_CUDA_LANES];
    int32_t segments;
    uint32_t number;
    float scale[FLOW_BUFFERS][FLOW_TOGETHER];
} flow_memory;

/* ---- what is asked for ---- */

/* Whether there is nothing wrong; the same for all threads. */
static __device__ __forceinline__ bool flow_look(const flow_args &a, const int32_t *local_of,
                                                 flow_memory *m, tsr_cuda_faults faults)
{
    const int32_t i = (int32_t)threadIdx.x;
    const bool is_faulty = tsr_is_faulty(faults);
    const int32_t rows = *a.pairs.row_count;
    const bool leaves = blockIdx.x == 0 && threadIdx.x == 0;
    bool wrong = false;

    if (i < a.slots) {
        const int32_t row = i * a.of_slots >> 16;
        const unsigned char *ids = a.pairs.rows + row * a.pairs.row_bytes + a.pairs.id_at;
        const int32_t id = ((const int32_t *)(const void *)ids)[i - row * a.pairs.slots];
        const int32_t answer = a.pairs.answer_of[i];
        const bool wanted = answer >= 0 && i < rows * a.pairs.slots;
        const int32_t local = wanted && id >= 0 && id < a.pairs.experts ? local_of[id] : -1;
        wrong = wanted && local < 0;
        m->local[i] = local;
        m->answer[i] = answer;
    } else if (i < FLOW_SLOTS) {
        m->local[i] = -1;
    }
    if (i == 0)
        m->number = *(volatile uint32_t *)a.number + 1; /* never what nobody has written */
    const bool out = rows < 0 || rows > a.pairs.max_rows;
    const bool any_wrong = __syncthreads_or(wrong) != 0;
    if (__syncthreads_or(is_faulty))
        return false;
    if ((out || any_wrong) && leaves) {
        const tsr_fault too_many = {TSR_FAULT_ROWS, 0, 0, rows, a.pairs.max_rows};
        tsr_leave_fault(faults, out ? too_many : first_fault(a.pairs, rows * a.pairs.slots));
    }
    return !out && !any_wrong;
}

/* The slot with so many others of the same expert in front of it. */
static __device__ __forceinline__ int32_t flow_slot_at(const uint32_t *asks, int32_t place)
{
    for (int32_t w = 0; w < FLOW_WORDS; w++) {
        uint32_t bits = asks[w];
        const int32_t count = __popc(bits);
        if (place < count) {
            for (; place > 0; place--)
                bits &= bits - 1;
            return w * TSR_CUDA_LANES + __ffs((int)bits) - 1;
        }
        place -= count;
    }
    return -1;
}

/* Tiles, in the order of the slots that open them. Returns how many. */
static __device__ __forceinline__ int32_t flow_tiles(const flow_args &a, flow_memory *m,
                                                     uint32_t *asks)
{
    const int32_t i = (int32_t)threadIdx.x;
    const int32_t lane = i % TSR_CUDA_LANES;
    const int32_t word = i / TSR_CUDA_LANES;
    const int32_t mine = i < FLOW_SLOTS ? m->local[i] : -1;
    int32_t rank = 0;   /* of the slot among those of its expert */
    int32_t all = 0;    /* of these */
    int32_t opener = i; /* of its tile */

    if (mine >= 0)
        atomicOr(&asks[mine * FLOW_WORDS + word], 1U << lane);
    __syncthreads();
    if (mine >= 0) {
        for (int32_t w = 0; w * TSR_CUDA_LANES < a.slots; w++) {
            const uint32_t bits = asks[mine * FLOW_WORDS + w];
            all += __popc(bits);
            rank += __popc(w < word ? bits : w == word ? bits & ((1U << lane) - 1) : 0);
        }
        opener = flow_slot_at(asks + mine * FLOW_WORDS, rank - rank % FLOW_TOGETHER);
    }
    const uint32_t opens = __ballot_sync(TSR_ALL_LANES, mine >= 0 && opener == i);
    if (i < FLOW_SLOTS && lane == 0)
        m->openers[word] = __popc(opens);
    __syncthreads();
    int32_t tiles = lane < FLOW_WORDS ? m->openers[lane] : 0;
    int32_t before = lane < word ? tiles : 0;
    tiles = __reduce_add_sync(TSR_ALL_LANES, tiles);
    before = __reduce_add_sync(TSR_ALL_LANES, before);
    if (mine >= 0 && opener == i) {
        const int32_t tile = before + __popc(opens & ((1U << lane) - 1));
        m->tile_of[i] = tile;
        m->tile[tile].expert = mine;
        m->tile[tile].count = min(all - rank, (int32_t)FLOW_TOGETHER);
    }
    __syncthreads();
    if (mine >= 0)
        m->tile[m->tile_of[opener]].slot[rank % FLOW_TOGETHER] = i;
    return tiles;
}

/* A sum over the lanes in front, of phases. */
static __device__ __forceinline__ int32_t flow_before(int32_t mine)
{
    int32_t before = 0;

    for (int32_t phase = 1; phase < FLOW_PHASES; phase++) {
        const int32_t of = __shfl_sync(TSR_ALL_LANES, mine, phase - 1);
        before += phase <= (int32_t)(threadIdx.x % TSR_CUDA_LANES) ? of : 0;
    }
    return before;
}

/* One warp writes down the CTA's segments, a lane those of a phase. Those who have an item more than others
 * come in turn: behind the last who had. */
static __device__ __forceinline__ void flow_segments(const flow_args &a, int32_t tiles,
                                                     flow_memory *m)
{
    const int32_t phase = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t ctas = (int32_t)gridDim.x;
    const int32_t down = phase / 2 % 2;
    const int32_t items = down != 0 ? a.product[1].items : a.product[0].items;
    const int32_t teams = down != 0 ? a.product[1].teams : a.product[0].teams;
    const int32_t part = tiles - tiles * FLOW_LATER / FLOW_WHOLE;
    const int32_t front = phase % 2 == 0 ? 0 : part;
    const int32_t all = ((phase % 2 == 0 ? part : tiles) - front) * items;
    const int32_t each = all / ctas;
    const int32_t extra = all - each * ctas;
    const int32_t begin = flow_before(extra) % ctas;
    const int32_t mine = (int32_t)blockIdx.x - begin + ((int32_t)blockIdx.x < begin ? ctas : 0);
    const int32_t from = mine * each + min(mine, extra);
    int32_t left = phase < FLOW_PHASES ? each + (mine < extra ? 1 : 0) : 0;
    int32_t tile = from / items;
    int32_t first = from - tile * items;
    const int32_t segments = left > 0 ? (first + left - 1) / items + 1 : 0;
    const int32_t in_front = __shfl_sync(TSR_ALL_LANES, left, phase & 2);
    int32_t at = flow_before(segments);
    int32_t turn = phase % 2 == 0 ? 0 : in_front % teams;

    if (phase == FLOW_PHASES - 1)
        m->segments = at + segments;
    while (left > 0) {
        const int32_t count = min(left, items - first);
        m->segment[at++] = {down, front + tile, first, count, turn};
        turn = (turn + count) % teams;
        left -= count;
        first = 0;
        tile++;
    }
}

/* ---- places in the share ---- */

/* A warp of teams. */
typedef struct flow_place {
    int32_t up_team; /* none: as many as there are */
    int32_t up_slice;
    int32_t down_team;
    int32_t down_slice;
} flow_place;

static __device__ __forceinline__ int32_t flow_team(const flow_place &p, int32_t down)
{
    return down != 0 ? p.down_team : p.up_team;
}

static __device__ __forceinline__ int32_t flow_slice_of(const flow_place &p, int32_t down)
{
    return down != 0 ? p.down_slice : p.up_slice;
}

/* An item of a warp's: of that segment. */
typedef struct flow_item {
    int32_t segment;
    int32_t item; /* of the segment */
} flow_item;

/* The first of the segment's. */
static __device__ __forceinline__ int32_t flow_first(const flow_args &a, const flow_place &p,
                                                     const flow_segment &s)
{
    const int32_t teams = a.product[s.down].teams;
    const int32_t team = flow_team(p, s.down);

    if (team >= teams)
        return s.count;
    return team - s.turn + (team < s.turn ? teams : 0);
}

#endif
