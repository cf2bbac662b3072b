/*
 * Rows of a weight, as stored, into the packed layout (packed_cuda.cuh). Bytes are read straight
 * from the host's memory, row by row; a CTA turns 16 rows of 512 bytes into 16 units of 512:
 *
 *   host    row 0   | 512 bytes |        device   | unit | unit | .. |    a lane's 16 bytes beside
 *           ..                                                            its neighbour's
 *           row 15  | 512 bytes |
 *
 * Nothing is rounded; rows and columns that a tile has beyond the weight are zero.
 */
#include "kernels/cuda/device/block_cuda.cuh"
#include "kernels/cuda/operands/packed_cuda.cuh"

enum {
    SPAN_BYTES = 512, /* of a row, for one CTA */
    SPAN_UNITS = TSR_CUDA_TILE * SPAN_BYTES / PACKED_UNIT,
    SPAN_WORDS = SPAN_BYTES / 4,
};

typedef struct pack_args {
    unsigned char *to; /* of the first tile */
    const unsigned char *from;
    int32_t rows;       /* that are there */
    int32_t row_bytes;  /* as stored */
    int32_t tile_units; /* of a tile */
    int32_t columns;    /* a unit has */
} pack_args;

typedef unsigned char packed_span[TSR_CUDA_TILE][SPAN_BYTES];

/* Four bytes from anywhere: what the machine gives is aligned. Bytes from `end` on are zero. */
static __device__ uint32_t word_at(const unsigned char *from, const unsigned char *end)
{
    const int64_t left = end - from;
    const uintptr_t shift = (uintptr_t)from % 4;
    const uint32_t *word = (const uint32_t *)(const void *)(from - shift);
    uint32_t low = 0;
    uint32_t high = 0;

    if (left <= 0)
        return 0;
    low = word[0];
    if (shift != 0 && left > (int64_t)(4 - shift))
        high = word[1];
    const uint32_t all = __funnelshift_r(low, high, (uint32_t)shift * 8);
    return left >= 4 ? all : all & ((1U << 8 * left) - 1U);
}

/* Two bytes of a row. */
static __device__ uint32_t half_of(const packed_span span, int32_t row, int32_t at)
{
    return *(const uint16_t *)(const void *)&span[row][at];
}

/* Of lane 4 g + t: word `word` of 16-bit unit `unit` of the span. */
static __device__ uint32_t pair_word(const packed_span span, int32_t unit, int32_t lane,
                                     int32_t word)
{
    const int32_t at = 32 * unit + 4 * (lane % 4) + (word / 2 != 0 ? 16 : 0);

    return *(const uint32_t *)(const void *)&span[lane / 4 + 8 * (word % 2)][at];
}

static __device__ uint32_t e4m3_word(const packed_span span, int32_t unit, int32_t lane,
                                     int32_t word)
{
    const int32_t at = 32 * unit + 16 * (word / 2) + 2 * (lane % 4) + 8 * (word % 2);

    return half_of(span, lane / 4, at) | half_of(span, lane / 4 + 8, at) << 16;
}

/* Codes of the lower half of a step, of the upper half, in a byte. */
static __device__ uint32_t e2m1_byte(uint32_t lower, uint32_t upper)
{
    return (lower & 8U) << 4 | (lower & 7U) << 1 | (upper & 7U) << 4 | (upper & 8U) >> 3;
}

static __device__ uint32_t e2m1_word(const packed_span span, int32_t unit, int32_t lane,
                                     int32_t word)
{
    const int32_t at = 32 * unit + 8 * word + lane % 4;
    uint32_t all = 0;

    for (int32_t half = 0; half < 2; half++) {
        const uint32_t low = span[lane / 4 + 8 * half][at];
        const uint32_t high = span[lane / 4 + 8 * half][at + 4];
        const uint32_t pair = e2m1_byte(low, high) | e2m1_byte(low >> 4, high >> 4) << 16;
        all |= pair << 8 * half;
    }
    return all;
}

static __global__ void pack_kernel(pack_args a)
{
    __shared__ __align__(16) packed_span span;
    const int32_t first_row = (int32_t)blockIdx.y * TSR_CUDA_TILE;
    const int32_t first_byte = (int32_t)blockIdx.x * SPAN_BYTES;
    const int32_t first_unit = (int32_t)blockIdx.x * SPAN_UNITS;
    uint32_t *to = (uint32_t *)(void *)(a.to + (int64_t)blockIdx.y * a.tile_units * PACKED_UNIT);

    for (int32_t i = (int32_t)threadIdx.x; i < TSR_CUDA_TILE * SPAN_WORDS; i += TSR_CUDA_THREADS) {
        const int32_t row = first_row + i / SPAN_WORDS;
        const int32_t at = first_byte + 4 * (i % SPAN_WORDS);
        const unsigned char *start = a.from + (int64_t)row * a.row_bytes;
        uint32_t word = 0;
        if (row < a.rows)
            word = word_at(start + at, start + a.row_bytes);
        *(uint32_t *)(void *)&span[i / SPAN_WORDS][4 * (i % SPAN_WORDS)] = word;
    }
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < SPAN_UNITS * PACKED_UNIT / 4;
         i += TSR_CUDA_THREADS) {
        const int32_t unit = i / (PACKED_UNIT / 4);
        const int32_t lane = i / 4 % TSR_CUDA_LANES;
        uint32_t word;
        if (first_unit + unit >= a.tile_units)
            break;
        if (a.columns == PACKED_16_BIT_COLUMNS)
            word = pair_word(span, unit, lane, i % 4);
        else if (a.columns == PACKED_E4M3_COLUMNS)
            word = e4m3_word(span, unit, lane, i % 4);
        else
            word = e2m1_word(span, unit, lane, i % 4);
        to[(int64_t)first_unit * (PACKED_UNIT / 4) + i] = word;
    }
}

/* Scales of NVFP4: a thread each. */
static __global__ void pack_scales_kernel(unsigned char *to, const unsigned char *from,
                                          int32_t first_row, int32_t rows, int32_t groups,
                                          int32_t tile_units)
{
    const int64_t i = (int64_t)blockIdx.x * TSR_CUDA_THREADS + threadIdx.x;

    if (i >= (int64_t)rows * groups)
        return;
    const int32_t row = first_row + (int32_t)(i / groups);
    const int32_t group = (int32_t)(i % groups);
    const int64_t unit = (int64_t)(row / TSR_CUDA_TILE) * tile_units + group / 4;
    const int32_t inside = 8 * (row % 8) + 2 * (group % 4) + row % TSR_CUDA_TILE / 8;
    to[unit * PACKED_SCALES + inside] = from[i];
}

tsr_status tsr_cuda_pack_rows(tsr_device *device, const tsr_linear *linear, void *weight,
                              const tsr_linear_rows *rows, tsr_stream s)
{
    const int32_t tiles = (rows->count + TSR_CUDA_TILE - 1) / TSR_CUDA_TILE;
    pack_args a = {};

    a.columns = tsr_packed_columns(linear->format);
    a.tile_units = tsr_cuda_padded(linear->in) / a.columns;
    a.to = (unsigned char *)weight +
           (int64_t)(rows->first / TSR_CUDA_TILE) * a.tile_units * PACKED_UNIT;
    a.from = (const unsigned char *)rows->bytes;
    a.rows = rows->count;
    a.row_bytes = (int32_t)(tsr_weight_bytes(linear->format, 1, linear->in));
    const dim3 grid(tsr_cuda_ceil(a.tile_units, SPAN_UNITS), (unsigned)tiles);
    if (tiles == 0)
        return TSR_OK;
    pack_kernel<<<grid, TSR_CUDA_THREADS, 0, tsr_cuda_stream(device, s)>>>(a);
    return TSR_CUDA_LAUNCHED();
}

tsr_status tsr_cuda_pack_scales(tsr_device *device, const tsr_linear *linear, void *scales,
                                const tsr_linear_rows *rows, tsr_stream s)
{
    const int32_t groups = linear->in / TSR_CUDA_STEP;
    const int64_t count = (int64_t)rows->count * groups;

    if (count == 0)
        return TSR_OK;
    pack_scales_kernel<<<tsr_cuda_ceil(count, TSR_CUDA_THREADS), TSR_CUDA_THREADS, 0,
                         tsr_cuda_stream(device, s)>>>(
        (unsigned char *)scales, (const unsigned char *)rows->bytes, rows->first, rows->count,
        groups, tsr_cuda_padded(linear->in) / PACKED_E2M1_COLUMNS);
    return TSR_CUDA_LAUNCHED();
}
