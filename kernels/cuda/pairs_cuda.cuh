/*
 * Pairs of (row, slot) that experts here are asked for, and the tiles they make: those of one expert
 * stand together, up to so many in a tile.
 *
 *   pairs   | e0 e0 e0 | e1 .. | e1 e1 | e4 e4 |     tiles: an expert, its first pair, how many
 *
 * Many are sorted by a kernel of its own (experts_cuda.cu). Few are sorted by every CTA that needs
 * them, for itself: all find the same order.
 */
#ifndef TSR_KERNELS_CUDA_PAIRS_CUDA_CUH
#define TSR_KERNELS_CUDA_PAIRS_CUDA_CUH

#include "kernels/cuda/block_cuda.cuh"

enum { PAIRS_FEW = TSR_CUDA_LANES }; /* slots */

/* What the kernels need of a block. */
typedef struct pair_args {
    const unsigned char *rows;
    const int32_t *row_count;
    const int32_t *answer_of;
    const int32_t *local_of;
    int64_t row_bytes;
    int64_t id_at; /* bytes from the front of a row */
    int32_t slots; /* K */
    int32_t experts;
    int32_t local;
    int32_t max_rows;
    int32_t max_answers;
    int32_t together; /* pairs of a tile */
} pair_args;

static __device__ __forceinline__ int32_t id_of(const pair_args &a, int32_t slot)
{
    const unsigned char *row = a.rows + slot / a.slots * a.row_bytes;

    return ((const int32_t *)(const void *)(row + a.id_at))[slot % a.slots];
}

/* The index into mlps of an expert; -1 where the id is not one of ours. */
static __device__ __forceinline__ int32_t local_of_id(const pair_args &a, int32_t id)
{
    return id < 0 || id >= a.experts ? -1 : a.local_of[id];
}

/* The first slot that does not belong here, found in order; there is one. */
static __device__ __noinline__ tsr_fault first_fault(const pair_args &a, int32_t slots)
{
    tsr_fault fault = {TSR_FAULT_NONE, 0, 0, 0, a.max_answers};
    int32_t pairs = 0;

    for (int32_t i = 0; i < slots; i++) {
        if (a.answer_of[i] < 0)
            continue;
        const int32_t local = local_of_id(a, id_of(a, i));
        if (local < 0 || pairs == a.max_answers) {
            fault.kind = local < 0 ? TSR_FAULT_EXPERT : TSR_FAULT_ANSWERS;
            fault.row = i / a.slots;
            fault.slot = i % a.slots;
            fault.value = id_of(a, i);
            return fault;
        }
        pairs++;
    }
    return fault;
}

/* Few pairs as a CTA finds them. */
typedef struct few_pairs {
    tsr_cuda_tile tile[PAIRS_FEW];
    int32_t slot[PAIRS_FEW]; /* of a pair */
    int32_t row[PAIRS_FEW];
    int32_t answer[PAIRS_FEW];
    int32_t tiles; /* -1: there is a fault */
} few_pairs;

/* Where the slot of each lane goes; `expert` is -1 where it wants no answer. */
static __device__ __forceinline__ void few_place(const pair_args &a, few_pairs *f, int32_t slots,
                                                 int32_t expert, int32_t answer)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const uint32_t alike = __match_any_sync(TSR_ALL_LANES, expert);
    const int32_t rank = __popc(alike & ((1U << lane) - 1));
    const int32_t base = rank - rank % a.together; /* the rank of the first of its tile */
    const bool begins = expert >= 0 && rank == base;
    int32_t before = 0; /* pairs of smaller experts */
    int32_t tile = 0;

#pragma unroll 1
    for (int32_t i = 0; i < slots; i++) {
        const int32_t other = __shfl_sync(TSR_ALL_LANES, expert, i);
        const bool is_first = __shfl_sync(TSR_ALL_LANES, (int)begins, i) != 0;
        const bool is_less = other >= 0 && other < expert;
        before += is_less ? 1 : 0;
        tile += is_first && (is_less || (other == expert && i < lane)) ? 1 : 0;
    }
    const int32_t tiles = __popc(__ballot_sync(TSR_ALL_LANES, begins));
    if (lane == 0)
        f->tiles = tiles;
    if (expert < 0)
        return;
    f->slot[before + rank] = lane;
    f->row[before + rank] = lane / a.slots;
    f->answer[before + rank] = answer;
    if (begins)
        f->tile[tile] = {expert, before + base, min(__popc(alike) - base, a.together)};
}

/* Sorts up to PAIRS_FEW slots, by one warp. A fault is left where `leaves` says so. */
static __device__ __forceinline__ void few_sort(const pair_args &a, few_pairs *f,
                                                tsr_cuda_faults faults, bool leaves)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const bool may = lane < a.max_rows * a.slots; /* be a slot */
    const bool is_faulty = tsr_is_faulty(faults);
    const int32_t rows = *a.row_count;
    const int32_t answer = may ? a.answer_of[lane] : -1;
    const int32_t id = may ? id_of(a, lane) : -1;
    const bool wanted = may && lane < rows * a.slots && answer >= 0;
    const int32_t local = wanted ? local_of_id(a, id) : -1;
    const bool fits = rows >= 0 && rows <= a.max_rows;
    const int32_t pairs = __popc(__ballot_sync(TSR_ALL_LANES, wanted));
    const bool wrong = __any_sync(TSR_ALL_LANES, wanted && local < 0);

    if (__any_sync(TSR_ALL_LANES, is_faulty)) {
        f->tiles = -1;
    } else if (fits && !wrong && pairs <= a.max_answers) {
        few_place(a, f, rows * a.slots, local, answer);
    } else {
        f->tiles = -1;
        if (leaves && lane == 0) {
            const tsr_fault too_many = {TSR_FAULT_ROWS, 0, 0, rows, a.max_rows};
            tsr_leave_fault(faults, fits ? first_fault(a, rows * a.slots) : too_many);
        }
    }
}

#endif
