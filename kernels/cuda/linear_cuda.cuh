/*
 * Inside the CUDA device: quantizing rows, and linears over quantized rows, of one weight or of the
 * experts by their tiles.
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_CUDA_CUH

#include "kernels/cuda/device_cuda.cuh"

/* Rows on their way into the workspace's rows, scales and group scales. */
typedef struct tsr_cuda_quantize {
    const uint16_t *x;     /* rows x_stride apart */
    const uint16_t *up;    /* not NULL: the row is silu(x) * up, both as wide as the linear */
    const int32_t *source; /* row i is x[source[i]]; NULL: x[i] */
    int64_t x_stride;      /* elements */
} tsr_cuda_quantize;

/* Rows into a linear and out of it. */
typedef struct tsr_cuda_product {
    const uint16_t *x;        /* rows, as wide as the linear, x_stride apart */
    const float *scale;       /* [rows]; not looked at where there is no activation */
    const float *group_scale; /* [rows, columns / 128]; looked at for FP8_GROUP */
    void *y;                  /* row t at y_stride * (row_of != NULL ? row_of[t] : t) */
    const int32_t *row_of;
    int64_t x_stride; /* elements, as is y_stride */
    int64_t y_stride;
    int32_t rows;
    bool f32; /* y is f32, not BF16 */
} tsr_cuda_product;

/* Which linear of an expert. */
typedef enum tsr_cuda_side { TSR_CUDA_GATE, TSR_CUDA_UP, TSR_CUDA_DOWN } tsr_cuda_side;

/* True when both see the same quantized rows, as far as a host can tell. */
bool tsr_cuda_share_rows(const tsr_linear *a, const tsr_linear *b);

/* Rows 0 .. rows for one linear; for the tiles of the workspace, each with its expert's. `up` is
 * left out where it sees the rows that stand there for the gate. */
tsr_status tsr_cuda_quantize_rows(tsr_cuda_device *cuda, const tsr_linear *linear,
                                  const tsr_cuda_quantize *q, int32_t rows, cudaStream_t stream);
tsr_status tsr_cuda_quantize_tiles(tsr_cuda_device *cuda, const tsr_experts *experts,
                                   tsr_cuda_side side, const tsr_cuda_quantize *q,
                                   cudaStream_t stream);

/* The workspace's quantized rows as an input `in` wide. */
tsr_cuda_product tsr_cuda_product_of_rows(const tsr_cuda_device *cuda, int32_t in);

tsr_status tsr_cuda_multiply(tsr_cuda_device *cuda, const tsr_linear *linear,
                             const tsr_cuda_product *p, cudaStream_t stream);
tsr_status tsr_cuda_multiply_tiles(tsr_cuda_device *cuda, const tsr_experts *experts,
                                   tsr_cuda_side side, const tsr_cuda_product *p,
                                   cudaStream_t stream);

/* Quantizes p's rows where it has to, unless they stand in the workspace already, then multiplies. */
tsr_status tsr_cuda_linear(tsr_cuda_device *cuda, const tsr_linear *linear,
                           const tsr_cuda_product *p, bool stands, cudaStream_t stream);

/* CTAs in a grid's second dimension for the tiles; each takes every so-many-th. */
static inline unsigned tsr_cuda_tile_grid(const tsr_cuda_device *cuda)
{
    const int32_t most = 128;

    return (unsigned)(cuda->work.max_tiles < most ? cuda->work.max_tiles : most);
}

static __device__ __forceinline__ const tsr_linear *tsr_side_of(const tsr_mlp *mlp,
                                                                tsr_cuda_side side)
{
    if (side == TSR_CUDA_GATE)
        return &mlp->gate;
    return side == TSR_CUDA_UP ? &mlp->up : &mlp->down;
}

/* tsr_cuda_share_rows of an expert's gate and up. */
static __device__ __forceinline__ bool tsr_gate_shares(const tsr_mlp *mlp)
{
    return mlp->gate.activation == mlp->up.activation &&
           mlp->gate.input_scale == mlp->up.input_scale && mlp->gate.pre_quant_scale == NULL &&
           mlp->up.pre_quant_scale == NULL;
}

#endif
