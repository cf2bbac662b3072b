/*
 * What the CUDA device keeps in its memory and where: the workspace and the parts of a linear. Laid
 * out here and nowhere else, in plain C that every build has, so that a plan for a GPU counts the
 * bytes that are taken there.
 */
#ifndef TSR_KERNELS_CUDA_WORK_CUDA_H
#define TSR_KERNELS_CUDA_WORK_CUDA_H

#include "kernels/device.h"

/* Tokens that meet a weight together, and columns of a row that share a scale. */
enum { TSR_CUDA_TOKENS = 32, TSR_CUDA_GROUP = 128 };

/*
 * Attention adds up splits of positions apart: how long one is, rows of queries that attend
 * together, CTAs that decode aims at for each multiprocessor, and the most splits and (sequence, kv
 * head) pairs that are kept apart at a time.
 */
#ifndef TSR_ATTEND_SPLIT
#define TSR_ATTEND_SPLIT 256
#endif
#ifndef TSR_ATTEND_CTAS
#define TSR_ATTEND_CTAS 4
#endif
enum {
    TSR_ATTEND_ROWS = 16,
    TSR_ATTEND_SLOTS = 4096,
    TSR_ATTEND_PAIRS = 4096,
};

/* Pairs of one expert that meet its weights together. */
typedef struct tsr_cuda_tile {
    int32_t expert; /* local */
    int32_t first;  /* pair */
    int32_t count;  /* 1..TSR_CUDA_TOKENS */
} tsr_cuda_tile;

/* Rows are BF16. N is the most rows any linear sees: tokens, pairs or rows of logits. */
typedef struct tsr_cuda_work {
    uint16_t *rows;       /* [N, max_in] quantized inputs */
    float *scale;         /* [N] what is left of their scales for the end */
    float *group_scale;   /* [N, max_in / 128] FP8_GROUP: a scale for each group */
    uint16_t *gate;       /* [N, max_intermediate] */
    uint16_t *up;         /* [N, max_intermediate] */
    float *logits;        /* [max_tokens, max_experts] of the router */
    int32_t *slot_expert; /* [max_rows, top_k] the local expert of a slot; -1: no answer wanted */
    int32_t *source;      /* [max_answers] row of each pair, by expert */
    int32_t *target;      /* [max_answers] answer of each pair */
    int32_t *first;       /* [max_experts + 1] first pair of each expert */
    tsr_cuda_tile *tile;  /* [max_tiles] */
    int32_t *tiles;       /* [1] */
    int32_t max_tiles;
    int64_t attend_floats;
    float *attend_partial;   /* [attend_floats] sums of splits */
    int32_t *attend_arrived; /* [TSR_ATTEND_PAIRS] zero between kernels */
} tsr_cuda_work;

/* Where everything lies in `memory` (NULL: only counted). Returns the bytes. */
uint64_t tsr_cuda_work_layout(const tsr_work_shape *shape, unsigned char *memory,
                              tsr_cuda_work *ret_work);

/*
 * Where the parts of a linear begin; the weight is in front. Stored precision stays, row-major, each
 * part on 256 bytes:
 *
 *   | weight | scales | bias [out] f32 | pre_quant_scale [in] f32 |
 */
typedef struct tsr_cuda_linear_layout {
    uint64_t scales;
    uint64_t bias;
    uint64_t pre_quant_scale;
    uint64_t end;
} tsr_cuda_linear_layout;

tsr_cuda_linear_layout tsr_cuda_linear_layout_of(tsr_weight_format format, int32_t out, int32_t in,
                                                 bool bias, bool pre_quant_scale);

#endif
