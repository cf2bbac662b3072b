/*
 * Pairs of (row, slot) that experts here are asked for, and the tiles they make: those of one expert
 * stand together, up to so many in a tile.
 *
 *   pairs   | e0 e0 e0 | e1 .. | e1 e1 | e4 e4 |     tiles: an expert, its first pair, how many
 *
 * They are sorted by a kernel of its own (experts_cuda.cu). Those of a single row or so are not:
 * every CTA finds its own (tiles_few_cuda.cu).
 */
#ifndef TSR_KERNELS_CUDA_OPERANDS_PAIRS_CUDA_CUH
#define TSR_KERNELS_CUDA_OPERANDS_PAIRS_CUDA_CUH

#include "kernels/cuda/device/block_cuda.cuh"
#include "kernels/cuda/operands/parts_cuda.cuh"

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
    int32_t together;    /* pairs of a tile */
    tsr_cuda_parts into; /* of answers */
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

#endif
