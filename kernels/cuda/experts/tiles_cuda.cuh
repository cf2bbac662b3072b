/*
 * Inside the CUDA device: products by tiles of pairs, of experts' weights or of one MLP's.
 */
#ifndef TSR_KERNELS_CUDA_EXPERTS_TILES_CUDA_CUH
#define TSR_KERNELS_CUDA_EXPERTS_TILES_CUDA_CUH

#include "kernels/cuda/operands/pairs_cuda.cuh"
#include "kernels/cuda/operands/rows_cuda.cuh"

typedef enum tsr_cuda_tiles_mode {
    TSR_CUDA_TILES_GATED, /* y = silu(gate) * up */
    TSR_CUDA_TILES_GATE,  /* y = gate */
    TSR_CUDA_TILES_UP,    /* y = silu(y) * up */
    TSR_CUDA_TILES_DOWN,  /* y[target] = down, experts only */
} tsr_cuda_tiles_mode;

/* What a kernel is made for to know of operand rows that it makes: code that it does not need costs time even
 * where it is not gone through. */
typedef enum known_rows {
    ANY_ROWS,
    PLAIN_ROWS, /* nobody quantizes them */
    FP8_ROWS,   /* by a scale that is known */
} known_rows;

static inline known_rows known_rows_of(tsr_activation activation)
{
    return activation == TSR_ACTIVATION_NONE  ? PLAIN_ROWS
           : activation == TSR_ACTIVATION_FP8 ? FP8_ROWS
                                              : ANY_ROWS;
}

typedef struct tsr_cuda_tiles {
    float *y;            /* [pairs, out] */
    const tsr_mlp *mlps; /* in device memory, by the expert of a tile; NULL: gate and up below */
    tsr_linear gate;
    tsr_linear up;
    const float *x;        /* not NULL: f32 rows to make operand rows of (stage_cuda.cuh) */
    const int32_t *source; /* pair i is row x[source[i]]; NULL: x[i] */
    int64_t x_stride;      /* elements */
    tsr_cuda_operand made; /* where x is NULL: a row for each pair */
    tsr_cuda_operand made_up;
    tsr_cuda_tiles_mode mode;
    tsr_weight_format format;  /* of all linears here */
    tsr_activation activation; /* likewise */
    bool shares;               /* gate and up see the same operand rows */
    bool grouped;              /* operand rows have group scales */
    bool chosen;               /* of experts: as in tsr_experts_block */
    pair_args pairs;           /* few: what is not sorted */
    int32_t density;           /* streamed: most pairs of eight experts, on average */
    int32_t out;
    int32_t in;
    int32_t rows;     /* without experts; with them, at most so many of one expert */
    int32_t together; /* pairs of a tile, at most */
} tsr_cuda_tiles;

/* Most pairs of a tile for inputs so wide. */
int32_t tsr_cuda_pairs_together(int32_t in, bool shares);

tsr_status tsr_cuda_multiply_tiles(tsr_cuda_device *cuda, const tsr_cuda_tiles *t,
                                   cudaStream_t stream);

/* Once, before the first. */
tsr_status tsr_cuda_prepare_tiles(void);

/*
 * The same of experts, whose gate and up see the same operand rows and are of one kind: GATED and
 * DOWN, of tiles of at most tsr_cuda_streams_together pairs (0: there is no room for these rows).
 */
tsr_status tsr_cuda_stream_tiles(tsr_cuda_device *cuda, const tsr_cuda_tiles *t,
                                 cudaStream_t stream);
int32_t tsr_cuda_streams_together(const tsr_gemm_card *card, int32_t in);

/* Both, where there may be about as many tiles of pairs as processors: then a CTA goes on to its tile's
 * down. Whether there are kernels for it, and experts enough here. */
bool tsr_cuda_streams_both(const tsr_cuda_device *cuda, const tsr_cuda_tiles *wide,
                           const tsr_cuda_tiles *down, int32_t experts);
tsr_status tsr_cuda_stream_both(tsr_cuda_device *cuda, const tsr_cuda_tiles *wide,
                                const tsr_cuda_tiles *down, cudaStream_t stream);
tsr_status tsr_cuda_prepare_streams(const tsr_gemm_card *card);

/* The same where pairs are few and not sorted, of linears that are taken. */
bool tsr_cuda_takes_few(const tsr_linear_kind *kind, int32_t in, bool down);
tsr_status tsr_cuda_multiply_few(tsr_cuda_device *cuda, const tsr_cuda_tiles *t,
                                 cudaStream_t stream);
tsr_status tsr_cuda_prepare_few(void);

/* All of a single row in one kernel, whose CTAs wait for each other: whether it is taken. */
bool tsr_cuda_takes_one(const tsr_cuda_device *cuda, const tsr_cuda_tiles *up,
                        const tsr_cuda_tiles *down);
tsr_status tsr_cuda_multiply_one(tsr_cuda_device *cuda, const tsr_cuda_tiles *up,
                                 const tsr_cuda_tiles *down, cudaStream_t stream);
tsr_status tsr_cuda_prepare_one(const tsr_gemm_card *card);

/* The same of a few rows. */
bool tsr_cuda_takes_flow(const tsr_cuda_device *cuda, const tsr_cuda_tiles *up,
                         const tsr_cuda_tiles *down);
tsr_status tsr_cuda_multiply_flow(tsr_cuda_device *cuda, const tsr_cuda_tiles *up,
                                  const tsr_cuda_tiles *down, cudaStream_t stream);
tsr_status tsr_cuda_prepare_flow(const tsr_gemm_card *card);

#endif
