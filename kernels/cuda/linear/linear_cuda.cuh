/*
 * Inside the CUDA device: products of operand rows with one weight, or with the weights of experts
 * by the tiles of pairs that stand in the workspace.
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_LINEAR_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_LINEAR_CUDA_CUH

#include "kernels/cuda/operands/rows_cuda.cuh"

/* Linears of one format over the same operand rows. */
typedef struct tsr_cuda_product {
    float *y[TSR_MAX_LINEARS]; /* row t at y_stride * t */
    const float *add;          /* not NULL: added to y[0], and laid out as it; may be y[0] */
    tsr_linear linear[TSR_MAX_LINEARS];
    tsr_cuda_operand x;                /* rows made for linear[0] */
    int64_t y_stride[TSR_MAX_LINEARS]; /* elements */
    int32_t count;                     /* linears */
    int32_t rows;
    bool late; /* operand rows come from who waits for other ranks */
} tsr_cuda_product;

tsr_status tsr_cuda_multiply(tsr_cuda_device *cuda, const tsr_cuda_product *p, cudaStream_t stream);

/* Makes operand rows of `from` where the last linear's do not stand there already, and multiplies:
 * as few launches as the linears allow. */
typedef struct tsr_cuda_linears {
    float *y[TSR_MAX_LINEARS];
    const float *add;
    const tsr_linear *linear[TSR_MAX_LINEARS];
    tsr_cuda_source from;
    int32_t count;
    int32_t rows;
    bool made;    /* operand rows in BF16, with no scales, stand in the workspace already */
    bool entered; /* those of the first linear do, with their scales (tsr_cuda_enter) */
} tsr_cuda_linears;
tsr_status tsr_cuda_run_linears(tsr_cuda_device *cuda, const tsr_cuda_linears *a,
                                cudaStream_t stream);

/* Whether o's operand rows are made of what attention leaves (rows_cuda.cuh). */
bool tsr_cuda_takes_splits(const tsr_cuda_device *cuda, const tsr_linear *o, int32_t rows);

/* out = down(silu(gate(x)) * up(x)), + add where it is not NULL. */
typedef struct tsr_cuda_mlp {
    float *out;       /* [rows, H] */
    const float *add; /* as out, or NULL */
    const tsr_mlp *mlp;
    tsr_cuda_source from;
    int32_t rows;
} tsr_cuda_mlp;
tsr_status tsr_cuda_run_mlp(tsr_cuda_device *cuda, const tsr_cuda_mlp *a, cudaStream_t stream);

#endif
