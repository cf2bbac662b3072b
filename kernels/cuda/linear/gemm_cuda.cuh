/*
 * Products of many rows: prefill, and decode steps of more than a few tokens. The same bits as those
 * of few rows (product_cuda.cuh), on the tensor cores' wide instructions (gemm_tile_cuda.cuh).
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_GEMM_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_GEMM_CUDA_CUH

#include "kernels/cuda/linear/linear_cuda.cuh"
#include "kernels/cuda/operands/parts_cuda.cuh"

/* Once for a card, before the first product. TSR_ERR_DEVICE */
tsr_status tsr_gemm_prepare(int32_t ordinal, tsr_gemm_card *ret_card);
tsr_status tsr_gemm_prepare_experts(const tsr_gemm_card *card);

/* Which of the kernels: BF16, FP8, FP8 with scales of 128 columns, NVFP4, F16. */
enum { GEMM_KINDS = 5 };

static inline int tsr_gemm_kind(tsr_weight_format format, bool scaled)
{
    switch (format) {
    case TSR_WEIGHT_BF16:
        return 0;
    case TSR_WEIGHT_NVFP4:
        return 3;
    case TSR_WEIGHT_F16:
        return 4;
    default:
        return scaled ? 2 : 1;
    }
}

/* Describes operand rows to copies of boxes. TSR_ERR_DEVICE */
tsr_status tsr_gemm_describe(const tsr_gemm_card *card, const uint16_t *rows, int32_t padded,
                             int32_t count, int32_t together, CUtensorMap *ret_map);

/* Any number of rows; formats that are packed. */
tsr_status tsr_gemm_dense(const tsr_gemm_card *card, const tsr_cuda_product *p,
                          cudaStream_t stream);

/* Linears of experts with the pairs of a list of tiles, of 1..128 pairs each. */
typedef struct tsr_gemm_grouped {
    const tsr_mlp *mlps; /* device memory, as all that follows */
    const tsr_cuda_tile *tile;
    const int32_t *tiles; /* [1] */
    tsr_cuda_operand x;
    const int32_t *source; /* [pairs] operand row of a pair; NULL: pairs have their own */
    const int32_t *target; /* [pairs] row of y; NULL: that of the pair */
    float *y;              /* rows of `out` */
    tsr_cuda_parts into;   /* where they lie in parts instead */
    tsr_cuda_operand
        codes; /* gated: where what down sees goes instead, of FP8 with a fixed scale */
    tsr_cuda_side side;
    tsr_linear_kind kind; /* of every expert's linear */
    bool gates;           /* y holds gates: y = silu(y) * (x W^T) */
    int32_t in;
    int32_t out;
    int32_t max_tiles;
} tsr_gemm_grouped;

/* y = x W^T of each pair's expert. */
tsr_status tsr_gemm_experts(const tsr_gemm_card *card, const tsr_gemm_grouped *g,
                            cudaStream_t stream);

/* y = silu(gate(x)) * up(x), where both see the same operand rows and are of one kind; `side` and
 * `target` are not looked at. Where `codes` has rows, they are made of the values, and y is left. */
tsr_status tsr_gemm_gated(const tsr_gemm_card *card, const tsr_gemm_grouped *g,
                          cudaStream_t stream);

#endif
