/*
 * NVFP4 weights that meet rows of FP4: dots in integers (fp4.h). Codes and scales are those of the
 * file, in tiles of 16 rows whose units are a word of eight codes, and one scale (tile.h):
 *
 *   weight   r0 g0 front | r1 g0 front | .. | r15 g0 front | r0 g0 back | ..     4 bytes each
 *   scales   r0 g0 | r1 g0 | .. | r15 g0 | r0 g1 | ..                            1 byte each
 *
 * They take no more room than nvfp4.c gives them, which counts for both. The scale of the tensor
 * waits for the epilogue.
 */
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/format/tile.h"
#include "kernels/cpu/fp4.h"
#include "runtime/base/sizes.h"

/* Groups of sixteen rows, one after the other. */
typedef struct tile_reader {
    const uint8_t *codes;
    const uint8_t *scales;
    size_t rows; /* FP4_ROWS, a constant there, or what is left of the weight */
} tile_reader;

enum { LINE_BYTES = FP4_ROWS * FP4_WORD };

/* A group of fewer rows, as one of sixteen: what is not there is zero. */
TSR_INLINE fp4_weights part_load(const tile_reader *t, lanes *ret_scale)
{
    uint8_t codes[FP4_GROUP_WORDS * LINE_BYTES] = {0};
    uint8_t scales[FP4_ROWS] = {0};

    memcpy(codes, t->codes, t->rows * FP4_WORD);
    memcpy(codes + LINE_BYTES, t->codes + t->rows * FP4_WORD, t->rows * FP4_WORD);
    memcpy(scales, t->scales, t->rows);
    *ret_scale = lanes_from_e4m3(scales);
    return fp4_load(codes);
}

TSR_INLINE fp4_weights next_group(tile_reader *t, bool whole, lanes *ret_scale)
{
    fp4_weights w;

    tile_ahead(t->codes, (size_t)FP4_GROUP_WORDS * LINE_BYTES);
    if (whole) {
        w = fp4_load(t->codes);
        *ret_scale = lanes_from_e4m3(t->scales);
    } else {
        w = part_load(t, ret_scale);
    }
    t->codes += t->rows * FP4_WORD * FP4_GROUP_WORDS;
    t->scales += t->rows;
    return w;
}

static tile_reader reader_of(const tsr_linear *linear, int32_t first, int32_t rows)
{
    const size_t in = (size_t)linear->in;

    return (tile_reader){
        .codes = (const uint8_t *)linear->weight + (size_t)first * in / 2,
        .scales = (const uint8_t *)linear->scales + (size_t)first * in / FP4_GROUP,
        .rows = (size_t)rows,
    };
}

/* `tokens` and `whole` are constants, so that all sums live in registers. */
TSR_INLINE void stream_block(const tsr_linear_job *job, tile_reader t, bool whole, int32_t token,
                             int tokens, float *dots)
{
    const size_t in = (size_t)job->linear->in;
    const size_t groups = in / FP4_GROUP;
    const float *x = job->x + (size_t)token * in;
    lanes sum[FP4_TOKENS];

    for (int i = 0; i < tokens; i++)
        sum[i] = lanes_set(0.0F);
    for (size_t g = 0; g < groups; g++) {
        lanes scale;
        const fp4_weights w = next_group(&t, whole, &scale);
        for (int i = 0; i < tokens; i++) {
            const fp4_group *of = (const fp4_group *)(const void *)(x + (size_t)i * in) + g;
            sum[i] = lanes_fma(fp4_dot(&w, of), lanes_mul(scale, lanes_set(of->scale)), sum[i]);
        }
    }
    for (int i = 0; i < tokens; i++)
        lanes_store(dots + (size_t)(token + i) * FP4_ROWS, sum[i]);
}

#define TOKENS_UP_TO(n) (FP4_TOKENS < (n) ? FP4_TOKENS : (n))

static void stream(const tsr_linear_job *job, int32_t first, int32_t rows, float *dots)
{
    tile_reader t = reader_of(job->linear, first, rows);
    const bool whole = rows == FP4_ROWS;
    int32_t i = 0;

    if (whole)
        t.rows = FP4_ROWS;
    for (; !whole && i < job->tokens; i++)
        stream_block(job, t, false, i, 1, dots);
    for (; i + FP4_TOKENS <= job->tokens; i += FP4_TOKENS)
        stream_block(job, t, true, i, FP4_TOKENS, dots);
    for (; i + TOKENS_UP_TO(4) <= job->tokens; i += TOKENS_UP_TO(4))
        stream_block(job, t, true, i, TOKENS_UP_TO(4), dots);
    for (; i + TOKENS_UP_TO(2) <= job->tokens; i += TOKENS_UP_TO(2))
        stream_block(job, t, true, i, TOKENS_UP_TO(2), dots);
    for (; i < job->tokens; i++)
        stream_block(job, t, true, i, 1, dots);
}

static tile_rows rows_on_their_way(const tsr_linear *linear, const tsr_linear_rows *rows, void *to)
{
    return (tile_rows){.to = to,
                       .from = rows->bytes,
                       .out = linear->out,
                       .first = rows->first,
                       .count = rows->count};
}

static tsr_status load(const tsr_linear *linear, const tsr_linear_rows *rows, void *to)
{
    tile_rows tiles = rows_on_their_way(linear, rows, to);

    tiles.units = (size_t)linear->in / FP4_GROUP * FP4_GROUP_WORDS;
    tiles_copy(&tiles, FP4_ROWS, FP4_WORD);
    return TSR_OK;
}

/* What nvfp4.c would keep behind the last row stays zero. */
static tsr_status load_scales(const tsr_linear *linear, const tsr_linear_rows *rows, void *to)
{
    tile_rows tiles = rows_on_their_way(linear, rows, to);

    tiles.units = (size_t)linear->in / FP4_GROUP;
    if (ISA(tsr_cpu_has_e4m3_nan)(rows->bytes, (uint64_t)rows->count * tiles.units))
        return TSR_ERR_CHECKPOINT;
    tiles_copy(&tiles, FP4_ROWS, 1);
    return TSR_OK;
}

static float row_scale(const tsr_linear *linear, int32_t row)
{
    (void)row;
    return linear->weight_scale;
}

/* Codes of both sides are twice their values; scales of weights come in units of 2^-8. */
const tsr_cpu_format ISA(tsr_cpu_format_nvfp4_fp4) = {
    .unit = 64.0F,
    .row_step = 1,
    .tile = FP4_ROWS,
    .stream_most = INT32_MAX,
    .load = load,
    .load_scales = load_scales,
    .stream = stream,
    .row_scale = row_scale,
};
