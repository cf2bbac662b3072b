/*
 * What the CUDA device keeps in its memory and where: the workspace and the parts of a linear. Laid
 * out here and nowhere else, in plain C that every build has, so that a plan for a GPU counts the
 * bytes that are taken there.
 */
#ifndef TSR_KERNELS_CUDA_DEVICE_WORK_CUDA_H
#define TSR_KERNELS_CUDA_DEVICE_WORK_CUDA_H

#include "kernels/device.h"
#include "runtime/base/model_facts.h"

/* The sums of every linear: where their additions are cut. */
enum {
    TSR_CUDA_STEP = 16,      /* columns of one tensor-core instruction */
    TSR_CUDA_GROUP = 128,    /* columns that share a scale */
    TSR_CUDA_SLICE = 512,    /* most columns that are added up in one chain */
    TSR_CUDA_SLICES = 32,    /* most slices of a row */
    TSR_CUDA_PADDING = 64,   /* columns of a packed weight and of an operand row: a multiple */
    TSR_CUDA_TILE = 16,      /* rows of a weight that are packed together */
    TSR_CUDA_LEAST_TILE = 4, /* least pairs that a tile of pairs is cut for, where they are many */
};

/*
 * Attention adds up splits of positions apart: how long one is, rows of queries that attend
 * together, CTAs that decode aims at for each multiprocessor, and the most splits and (sequence, kv
 * head) pairs that are kept apart at a time.
 */
enum {
    TSR_ATTEND_SPLIT = 128,
    TSR_ATTEND_ROWS = 16,
    TSR_ATTEND_CTAS = 2,
    TSR_ATTEND_SLOTS = 4096,
    TSR_ATTEND_PAIRS = 4096,
};

/* Most slots whose experts are computed in one kernel. */
enum { TSR_PACKET_SLOTS = 256 };

/* Most slots of a row whose answers are sent (combine_cuda.cu). */
enum { TSR_CUDA_SENT = 32 };

/* Words of what is told of the experts of a row. */
enum { TSR_CUDA_TOLD = 4 * TSR_MAX_TOP_K };

/* Pairs of one expert that meet its weights together. */
typedef struct tsr_cuda_tile {
    int32_t expert; /* local */
    int32_t first;  /* pair */
    int32_t count;  /* 1..as many as a tile was cut for */
} tsr_cuda_tile;

/* N is the most rows any linear sees: tokens, pairs or rows of logits; padded is max_in to a
 * multiple of TSR_CUDA_PADDING. */
typedef struct tsr_cuda_work {
    uint16_t *rows;     /* [N, padded] operand rows (rows_cuda.cuh) */
    float *scale;       /* [N] what is left of their scales for the end */
    float *group_scale; /* [N, max_in / 128] FP8_GROUP: a scale for each group */
    uint16_t *up_rows;  /* [N, padded], where an expert's up sees other rows than its gate */
    float *up_scale;    /* [N] */
    float *up_group_scale;
    float *ones;         /* [max_tokens] scales of rows that have none */
    float *wide;         /* [N, max_intermediate] silu(gate) * up, or gate alone */
    float *wide_up;      /* [max_tokens, max_intermediate] up, where gate is alone */
    int32_t *source;     /* [max_answers] row of each pair, by expert */
    int32_t *target;     /* [max_answers] answer of each pair */
    int32_t *pair_of;    /* [max_rows, top_k] pair of each slot; -1: it has none */
    tsr_cuda_tile *tile; /* [max_answers] */
    int32_t *tiles;      /* [1] */
    int32_t max_tiles; /* of LEAST_TILE pairs, or what an expert has left: grids are sized by it */
    int64_t attend_floats;
    float *attend_partial;   /* [attend_floats] sums of splits */
    int32_t *attend_arrived; /* [TSR_ATTEND_PAIRS] zero between kernels */
    uint64_t *packets;       /* [up to TSR_PACKET_SLOTS, max_intermediate] (packets_cuda.cuh) */
    uint32_t *launch;        /* [2] of kernels with packets: how many, and CTAs that have seen it */
    uint64_t *sent;          /* [up to TSR_CUDA_SENT, hidden] answers of a single row */
    uint64_t *told;          /* a single row and its experts (told_cuda.cuh) */
} tsr_cuda_work;

/* Where everything lies in `memory` (NULL: only counted). Returns the bytes. */
uint64_t tsr_cuda_work_layout(const tsr_work_shape *shape, unsigned char *memory,
                              tsr_cuda_work *ret_work);

/*
 * Where the parts of a linear begin; the weight is in front. Stored precision stays; F32 is row-major,
 * everything else is packed (packed_cuda.cuh). Each part on 256 bytes:
 *
 *   | weight | scales | bias [out] f32 | pre_quant_scale [in] f32 |
 */
typedef struct tsr_cuda_linear_layout {
    uint64_t scales;
    uint64_t bias;
    uint64_t pre_quant_scale;
    uint64_t end;
} tsr_cuda_linear_layout;

/* What kernels call as well. */
#ifdef __CUDACC__
#define TSR_ON_BOTH __host__ __device__
#else
#define TSR_ON_BOTH
#endif

/* Columns with the zeros behind them. */
static inline TSR_ON_BOTH int32_t tsr_cuda_padded(int32_t in)
{
    return (in + TSR_CUDA_PADDING - 1) / TSR_CUDA_PADDING * TSR_CUDA_PADDING;
}

bool tsr_cuda_is_packed(tsr_weight_format format);

tsr_cuda_linear_layout tsr_cuda_linear_layout_of(tsr_weight_format format, int32_t out, int32_t in,
                                                 bool bias, bool pre_quant_scale);

#endif
