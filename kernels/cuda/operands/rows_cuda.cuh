/*
 * Operand rows: what the tensor cores multiply with a weight, in 16 bits, columns in order, zeros up
 * to a multiple of 64:
 *
 *   f32 row --norm, pre_quant_scale, quantization--> | 16-bit values | 0 0 |   and f32 scale(s)
 *
 * BF16 where the weight is BF16, else F16. A row that nobody quantizes goes into F16 divided by the
 * power of two that brings its largest value near the top, so that no row is out of range.
 */
#ifndef TSR_KERNELS_CUDA_OPERANDS_ROWS_CUDA_CUH
#define TSR_KERNELS_CUDA_OPERANDS_ROWS_CUDA_CUH

#include "kernels/cuda/device/device_cuda.cuh"

/* Where operand rows stand; a view of the workspace. */
typedef struct tsr_cuda_operand {
    uint16_t *rows;     /* [N, padded in] */
    float *scale;       /* [N] what is left of the scales for the end of a sum */
    float *group_scale; /* [N, in / 128] FP8_GROUP: for the end of the sum over 128 columns */
} tsr_cuda_operand;

/* A row that attention has left as sums of its splits (attend_left_cuda.cuh). */
typedef struct tsr_cuda_splits {
    const float *sums; /* [tiles of heads, places] of TSR_ATTEND_ROWS (width + 2) floats */
    const tsr_attention_sequence *sequence; /* one, of one row */
    int32_t places;
    int32_t chunks; /* most of the row */
    int32_t kv_heads;
    int32_t shared; /* query heads of a kv head */
    int32_t head_dim;
    int32_t width; /* of a head's values: 64, 128 or 256 */
    float value_scale;
} tsr_cuda_splits;

/* Where f32 rows come from. */
typedef struct tsr_cuda_source {
    const float *x;       /* rows x_stride apart */
    tsr_cuda_splits left; /* sums not NULL: the only row is this one, x is NULL */
    const int32_t *row;   /* row i is x[row[i]]; NULL: x[i] */
    const int32_t *count; /* not NULL: rows beyond *count are left out */
    const float *up;      /* not NULL: the row is silu(x) * up, laid out as x */
    const float *norm;    /* not NULL: RMSNorm by this weight first */
    int64_t x_stride;     /* elements */
    float eps;
} tsr_cuda_source;

/* Which linear of an expert. */
typedef enum tsr_cuda_side { TSR_CUDA_GATE, TSR_CUDA_UP, TSR_CUDA_DOWN } tsr_cuda_side;

tsr_cuda_operand tsr_cuda_operand_of(const tsr_cuda_device *cuda);
tsr_cuda_operand tsr_cuda_up_operand_of(const tsr_cuda_device *cuda);

/* Fills the workspace's ones, once. */
tsr_status tsr_cuda_fill_ones(tsr_cuda_device *cuda, int32_t count);

/* True when both see the same operand rows. */
bool tsr_cuda_share_rows(const tsr_linear *a, const tsr_linear *b);

/* True when a product makes the operand rows of such a linear itself (stage_cuda.cuh). */
bool tsr_cuda_stages(const tsr_linear_kind *kind);

/* Whether 128 columns of an operand row have a scale of their own: only E4M3 weights look at it. */
static __host__ __device__ __forceinline__ bool tsr_cuda_has_groups(tsr_weight_format format,
                                                                    tsr_activation activation)
{
    return activation == TSR_ACTIVATION_FP8_GROUP &&
           (format == TSR_WEIGHT_FP8 || format == TSR_WEIGHT_FP8_CHANNEL ||
            format == TSR_WEIGHT_FP8_BLOCK);
}

/* Rows 0 .. rows for one linear. */
tsr_status tsr_cuda_make_rows(tsr_cuda_device *cuda, const tsr_linear *linear,
                              const tsr_cuda_source *from, const tsr_cuda_operand *to, int32_t rows,
                              cudaStream_t stream);

/* Combines, and makes the rows of the linear that is next, which there must be. */
tsr_status tsr_cuda_enter(tsr_cuda_device *cuda, const tsr_combine_block *b, cudaStream_t stream);

/* A row for every pair of the workspace's tiles, each for its expert's linear. */
tsr_status tsr_cuda_make_pair_rows(tsr_cuda_device *cuda, const tsr_experts *experts,
                                   tsr_cuda_side side, const tsr_cuda_source *from,
                                   const tsr_cuda_operand *to, cudaStream_t stream);

/* Once, before the first. */
tsr_status tsr_cuda_prepare_rows(void);

static __host__ __device__ __forceinline__ const tsr_linear *tsr_side_of(const tsr_mlp *mlp,
                                                                         tsr_cuda_side side)
{
    if (side == TSR_CUDA_GATE)
        return &mlp->gate;
    return side == TSR_CUDA_UP ? &mlp->up : &mlp->down;
}

#endif
