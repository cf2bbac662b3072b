/*
 * The sums of a tile: 16 rows of a weight with up to 32 rows of BF16, in f32 on the tensor cores.
 *
 *   weight  [16, K]   M     converted to BF16 in registers, exactly, scales of 16 included
 *   tokens  [32, K]   N     in four columns of 8
 *
 * K goes in chunks of 128, and each of the CTA's 8 warps takes the same share of the chunks of every
 * weight of that width: the order of additions depends on the width alone.
 *
 *   chunk   32 columns four times; of each 32 a lane loads the 8 at 8 * (lane % 4) of its rows, and
 *           they meet in two steps of 16. Which columns meet in one step is fixed, and the same for
 *           weight and tokens.
 *
 * Where 128 columns share a scale, the chunk's sum is multiplied by it before it is added.
 */
#ifndef TSR_KERNELS_CUDA_TILE_CUDA_CUH
#define TSR_KERNELS_CUDA_TILE_CUDA_CUH

#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/linear_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"

enum {
    TILE_ROWS = 16,
    TILE_COLUMNS = 8,                            /* tokens of one instruction */
    TILE_SPANS = TSR_CUDA_TOKENS / TILE_COLUMNS, /* of them beside each other */
    CHUNK_PARTS = 4,                             /* of 32 columns */
    PART_COLUMNS = TSR_CUDA_GROUP / CHUNK_PARTS,
    LANE_COLUMNS = 8, /* of a part */
    LANE_PAIRS = LANE_COLUMNS / 2,
};

/* [warp][token][row], a word more a token against bank conflicts. */
typedef float tile_sums[TSR_CUDA_WARPS][TSR_CUDA_TOKENS][TILE_ROWS + 1];

/* A lane's share of a chunk: pairs of BF16, of row lane / 4 and of that row + 8. */
typedef struct tile_chunk {
    uint32_t upper[CHUNK_PARTS][LANE_PAIRS];
    uint32_t lower[CHUNK_PARTS][LANE_PAIRS];
} tile_chunk;

static __device__ __forceinline__ void tile_multiply(float sum[4], uint32_t a0, uint32_t a1,
                                                     uint32_t a2, uint32_t a3, uint32_t b0,
                                                     uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ void pairs_of_bf16(uint4 stored, uint32_t pairs[LANE_PAIRS])
{
    pairs[0] = stored.x;
    pairs[1] = stored.y;
    pairs[2] = stored.z;
    pairs[3] = stored.w;
}

/* Two E4M3 codes. */
static __device__ __forceinline__ uint32_t pair_of_e4m3(uint32_t codes)
{
    const float2 v = tsr_from_e4m3_pair(codes);

    return tsr_to_bf16_pair(v.x, v.y);
}

static __device__ __forceinline__ void pairs_of_e4m3(uint2 stored, uint32_t pairs[LANE_PAIRS])
{
    pairs[0] = pair_of_e4m3(stored.x);
    pairs[1] = pair_of_e4m3(stored.x >> 16);
    pairs[2] = pair_of_e4m3(stored.y);
    pairs[3] = pair_of_e4m3(stored.y >> 16);
}

/* E2M1 codes in the low nibbles of four bytes to E4M3 codes of 2^-6 times their value. */
static __device__ __forceinline__ uint32_t e4m3_of_e2m1(uint32_t nibbles)
{
    return (nibbles & 0x07070707U) << 2 | (nibbles & 0x08080808U) << 4;
}

/* Eight E2M1 codes, low nibble first; `scale` is theirs times 2^6. */
static __device__ __forceinline__ void pairs_of_e2m1(uint32_t stored, float scale,
                                                     uint32_t pairs[LANE_PAIRS])
{
    const uint32_t even = e4m3_of_e2m1(stored);
    const uint32_t odd = e4m3_of_e2m1(stored >> 4);
    const uint32_t codes[2] = {__byte_perm(even, odd, 0x5140), __byte_perm(even, odd, 0x7362)};

    for (int i = 0; i < LANE_PAIRS; i++) {
        const float2 v = tsr_from_e4m3_pair(codes[i / 2] >> 16 * (i % 2));
        pairs[i] = tsr_to_bf16_pair(v.x * scale, v.y * scale);
    }
}

/* The lane's columns of one row, from column `first` on; those beyond the row are zero. */
static __device__ __forceinline__ void load_row(const tsr_linear &l, int64_t row, int32_t first,
                                                uint32_t pairs[CHUNK_PARTS][LANE_PAIRS])
{
    const unsigned char *weight = (const unsigned char *)l.weight;
    const int64_t start = row * l.in;

#pragma unroll
    for (int part = 0; part < CHUNK_PARTS; part++) {
        const int32_t column = first + part * PART_COLUMNS;
        const int64_t at = start + column;
        for (int i = 0; i < LANE_PAIRS; i++)
            pairs[part][i] = 0;
        if (column >= l.in)
            continue;
        if (l.format == TSR_WEIGHT_BF16) {
            pairs_of_bf16(*(const uint4 *)(weight + 2 * at), pairs[part]);
        } else if (l.format == TSR_WEIGHT_NVFP4) {
            const uint8_t code = ((const uint8_t *)l.scales)[at / 16];
            pairs_of_e2m1(*(const uint32_t *)(weight + at / 2), tsr_from_e4m3(code) * 64.0F,
                          pairs[part]);
        } else {
            pairs_of_e4m3(*(const uint2 *)(weight + at), pairs[part]);
        }
    }
}

/* What a chunk's sums are multiplied by, beside the tokens' own. */
static __device__ __forceinline__ float chunk_scale(const tsr_linear &l, int32_t row, int32_t chunk)
{
    const int32_t chunks = (l.in + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP;

    if (l.format != TSR_WEIGHT_FP8_BLOCK)
        return 1.0F;
    return ((const float *)l.scales)[(int64_t)(row / TSR_CUDA_GROUP) * chunks + chunk];
}

/* A token's scale of a chunk. */
static __device__ __forceinline__ float token_scale(const tsr_linear &l, const tsr_cuda_product &p,
                                                    int64_t token, int32_t chunk)
{
    const int32_t chunks = (l.in + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP;

    return l.activation == TSR_ACTIVATION_FP8_GROUP ? p.group_scale[token * chunks + chunk] : 1.0F;
}

/* Which tile: rows of the weight, and tokens (never more than a tile has). */
typedef struct tile_place {
    int32_t row;
    int32_t token;
    int32_t tokens;
} tile_place;

/* One warp's sums into its part of `sums`. All lanes load rows and tokens that are there; what they
 * bring for those beyond the tile is never read. */
static __device__ void tile_of_warp(const tsr_linear &l, const tsr_cuda_product &p, tile_place at,
                                    float sums[TSR_CUDA_TOKENS][TILE_ROWS + 1])
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t mine = lane / 4;
    const int32_t pair = lane % 4;
    const int32_t chunks = (l.in + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP;
    const int32_t last_chunk = (warp + 1) * chunks / TSR_CUDA_WARPS;
    const int32_t spans = (at.tokens + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const int32_t upper = min(at.row + mine, l.out - 1);
    const int32_t lower = min(at.row + mine + 8, l.out - 1);
    const bool scaled =
        l.format == TSR_WEIGHT_FP8_BLOCK || l.activation == TSR_ACTIVATION_FP8_GROUP;
    float sum[TILE_SPANS][4] = {};

    for (int32_t c = warp * chunks / TSR_CUDA_WARPS; c < last_chunk; c++) {
        const int32_t first = c * TSR_CUDA_GROUP + pair * LANE_COLUMNS;
        tile_chunk w;
        load_row(l, upper, first, w.upper);
        load_row(l, lower, first, w.lower);
        const float of_chunk = chunk_scale(l, at.row, c);
#pragma unroll
        for (int j = 0; j < TILE_SPANS; j++) {
            if (j >= spans)
                break;
            const int64_t token = at.token + min(j * TILE_COLUMNS + mine, at.tokens - 1);
            const uint16_t *x = p.x + token * p.x_stride + first;
            float part[4];
            for (int i = 0; i < 4; i++)
                part[i] = scaled ? 0.0F : sum[j][i];
#pragma unroll
            for (int k = 0; k < CHUNK_PARTS; k++) {
                uint4 b = {0, 0, 0, 0};
                if (first + k * PART_COLUMNS < l.in)
                    b = *(const uint4 *)(x + k * PART_COLUMNS);
                tile_multiply(part, w.upper[k][0], w.lower[k][0], w.upper[k][1], w.lower[k][1], b.x,
                              b.y);
                tile_multiply(part, w.upper[k][2], w.lower[k][2], w.upper[k][3], w.lower[k][3], b.z,
                              b.w);
            }
            for (int i = 0; i < 4; i++) {
                const int32_t column = min(j * TILE_COLUMNS + 2 * pair + i % 2, at.tokens - 1);
                sum[j][i] = scaled
                                ? fmaf(part[i], of_chunk * token_scale(l, p, at.token + column, c),
                                       sum[j][i])
                                : part[i];
            }
        }
    }
#pragma unroll
    for (int j = 0; j < TILE_SPANS; j++) {
        for (int i = 0; i < 4; i++)
            sums[j * TILE_COLUMNS + 2 * pair + i % 2][mine + 8 * (i / 2)] = sum[j][i];
    }
}

/* An unquantized weight that BF16 does not hold: a warp a sum, in f32. */
static __device__ void tile_of_floats(const tsr_linear &l, const tsr_cuda_product &p, tile_place at,
                                      float sums[TSR_CUDA_TOKENS][TILE_ROWS + 1])
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);

    for (int32_t i = warp; i < at.tokens * TILE_ROWS; i += TSR_CUDA_WARPS) {
        const int64_t token = at.token + i / TILE_ROWS;
        const int64_t start = (int64_t)min(at.row + i % TILE_ROWS, l.out - 1) * l.in;
        float sum = 0.0F;
        for (int32_t k = lane; k < l.in; k += TSR_CUDA_LANES) {
            const float w = l.format == TSR_WEIGHT_F32
                                ? ((const float *)l.weight)[start + k]
                                : tsr_from_f16(((const uint16_t *)l.weight)[start + k]);
            const float x = tsr_from_bf16(p.x[token * p.x_stride + k]);
            sum = fmaf(x * token_scale(l, p, token, k / TSR_CUDA_GROUP), w, sum);
        }
        sum = tsr_warp_sum(sum);
        if (lane == 0)
            sums[i / TILE_ROWS][i % TILE_ROWS] = sum;
    }
}

/* y = sum * (scale of the token * scale of the row) + bias, rounded once. */
static __device__ __forceinline__ void finish_sum(const tsr_linear &l, const tsr_cuda_product &p,
                                                  int32_t row, int64_t token, float sum)
{
    const float of_token = l.activation == TSR_ACTIVATION_NONE ? 1.0F : p.scale[token];
    const float of_row = l.format == TSR_WEIGHT_FP8_CHANNEL
                             ? ((const float *)l.scales)[row] * l.weight_scale
                             : l.weight_scale;
    const int64_t to = (p.row_of != NULL ? p.row_of[token] : token) * p.y_stride + row;
    float y = sum * (of_token * of_row);

    if (l.bias != NULL)
        y += l.bias[row];
    if (p.f32)
        ((float *)p.y)[to] = y;
    else
        ((uint16_t *)p.y)[to] = tsr_to_bf16(y);
}

/* The whole tile, by all threads of the CTA. */
static __device__ void tile_run(const tsr_linear &l, const tsr_cuda_product &p, tile_place at,
                                tile_sums sums)
{
    const bool floats = l.format == TSR_WEIGHT_F32 || l.format == TSR_WEIGHT_F16;
    const int32_t parts = floats ? 1 : TSR_CUDA_WARPS;

    if (floats)
        tile_of_floats(l, p, at, sums[0]);
    else
        tile_of_warp(l, p, at, sums[threadIdx.x / TSR_CUDA_LANES]);
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < at.tokens * TILE_ROWS; i += TSR_CUDA_THREADS) {
        const int32_t row = i % TILE_ROWS;
        const int32_t token = i / TILE_ROWS;
        float sum = sums[0][token][row];
        for (int32_t w = 1; w < parts; w++)
            sum += sums[w][token][row];
        if (at.row + row < l.out)
            finish_sum(l, p, at.row + row, at.token + token, sum);
    }
    __syncthreads(); /* before the next tile writes */
}

#endif
