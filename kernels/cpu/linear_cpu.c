/*
 * Linears over rows of f32, the weights in their stored format.
 *
 * The unit of work is a tile of rows of W, 4 or 16. For a few tokens it is streamed: decoded in
 * registers, once; where rows are FP4 too (fp4.h), for any number of them. For many it is decoded
 * into the thread's memory, then meets one block of tokens after another; the blocks are small
 * enough to stay in the cache across tiles.
 *
 *   y = dot * (scale of the token * (scale of the row * unit)) + bias      in that order
 */
#include "kernels/cpu/linear_cpu.h"

#include "kernels/cpu/dots.h"
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/lanes.h"
#include "runtime/base/sizes.h"

/* Floats of x that should stay in a core's cache; tokens of one block. */
enum { CACHED_FLOATS = 131072, BLOCK_LEAST = 24, BLOCK_MOST = 96 };

/* Rows of a tile at most; of a linear whose rows are FP4, tokens of one call at most. */
enum { TILE_MOST = 16, STREAM_BLOCK = 32 };

/* What a tile costs beside its tokens, in tokens: decoding. */
enum { TILE_COST = 8 };

typedef struct tile_run {
    const tsr_linear_job *jobs;
    const tsr_cpu_device *cpu;
    int64_t cost; /* of all jobs */
    int32_t count;
} tile_run;

static int64_t tiles_of(const tsr_linear_job *job)
{
    return tsr_pieces(job->linear->out, ISA(tsr_cpu_format_of)(job->linear)->tile);
}

static int64_t tile_cost(const tsr_linear_job *job)
{
    const int64_t elements = (int64_t)job->linear->in * ISA(tsr_cpu_format_of)(job->linear)->tile;
    return (job->tokens + TILE_COST) * elements;
}

/* Row scales of a tile, unit included, and its biases. */
typedef struct tile_ends {
    float scale[TILE_MOST];
    float bias[TILE_MOST];
} tile_ends;

static tile_ends ends_of(const tsr_linear *linear, const tsr_cpu_format *format, int32_t first,
                         int32_t rows)
{
    tile_ends ends = {{0}, {0}};

    for (int32_t r = 0; r < rows; r++) {
        ends.scale[r] = format->row_scale(linear, first + r) * format->unit;
        ends.bias[r] = linear->bias != NULL ? linear->bias[first + r] : 0.0F;
    }
    return ends;
}

/* Writes the answers of tokens t0 .. t0 + tokens from their dots [tokens, tile]. */
static void finish_tile(const tsr_linear_job *job, int32_t first, int32_t rows, int32_t t0,
                        int32_t tokens, const float *dots)
{
    const tsr_cpu_format *format = ISA(tsr_cpu_format_of)(job->linear);
    const tile_ends ends = ends_of(job->linear, format, first, rows);

    for (int32_t t = t0; t < t0 + tokens; t++, dots += format->tile) {
        const size_t row = (size_t)(job->row_of != NULL ? job->row_of[t] : t);
        const float scale = job->scale != NULL ? job->scale[t] : 1.0F;
        float *y = job->y + row * job->y_stride + (size_t)first;
        for (int32_t r = 0; r < rows; r++) {
            const float value = dots[r] * (scale * ends.scale[r]);
            y[r] = job->linear->bias != NULL ? value + ends.bias[r] : value;
        }
    }
}

static int32_t rows_of_tile(const tsr_linear *linear, int32_t first, int32_t tile)
{
    return linear->out - first < tile ? linear->out - first : tile;
}

static void stream_tiles(const tsr_linear_job *job, int64_t first_tile, int64_t last_tile)
{
    const tsr_cpu_format *format = ISA(tsr_cpu_format_of)(job->linear);
    float dots[STREAM_BLOCK * TILE_MOST];

    for (int64_t tile = first_tile; tile < last_tile; tile++) {
        const int32_t first = (int32_t)tile * format->tile;
        const int32_t rows = rows_of_tile(job->linear, first, format->tile);
        for (int32_t t0 = 0; t0 < job->tokens; t0 += STREAM_BLOCK) {
            tsr_linear_job part = *job;
            part.x = job->x + (size_t)t0 * (size_t)job->linear->in;
            part.tokens = tsr_smaller(job->tokens - t0, STREAM_BLOCK);
            format->stream(&part, first, rows, dots);
            finish_tile(job, first, rows, t0, part.tokens, dots);
        }
    }
}

static int32_t block_tokens(int32_t in)
{
    const int32_t fits = CACHED_FLOATS / in;

    if (fits < BLOCK_LEAST)
        return BLOCK_LEAST;
    return fits < BLOCK_MOST ? fits : BLOCK_MOST;
}

static void decode_tiles(const tsr_linear_job *job, int64_t first_tile, int64_t last_tile,
                         float *decoded)
{
    const tsr_cpu_format *format = ISA(tsr_cpu_format_of)(job->linear);
    const int32_t in = job->linear->in;
    const int32_t block = block_tokens(in);
    float dots[BLOCK_MOST * TSR_CPU_TILE];

    for (int32_t t0 = 0; t0 < job->tokens; t0 += block) {
        const int32_t tokens = job->tokens - t0 < block ? job->tokens - t0 : block;
        const tsr_dots d = {
            .y = dots,
            .w = decoded,
            .x = job->x + (size_t)t0 * (size_t)in,
            .y_stride = TSR_CPU_TILE,
            .w_stride = (size_t)in,
            .x_stride = (size_t)in,
            .in = in,
        };
        for (int64_t tile = first_tile; tile < last_tile; tile++) {
            const int32_t first = (int32_t)(tile * TSR_CPU_TILE);
            const int32_t rows = rows_of_tile(job->linear, first, TSR_CPU_TILE);
            format->decode(job->linear, first, rows, decoded);
            ISA(tsr_dots_run)(&d, rows, tokens);
            finish_tile(job, first, rows, t0, tokens, dots);
        }
    }
}

/* How many tiles of a job begin in the first `share` of its cost, which may not have begun. */
static int64_t tiles_begun(int64_t share, int64_t cost)
{
    return share <= 0 ? 0 : tsr_pieces_64(share, cost);
}

/* A tile belongs to the thread in whose share of the cost it begins. */
static void tile_share(const void *context, int32_t thread, int32_t threads)
{
    const tile_run *run = context;
    const tsr_thread_range mine = tsr_thread_share(run->cost, thread, threads);
    float *decoded = tsr_cpu_thread_work(&run->cpu->work, thread);
    int64_t begin = 0;

    for (int32_t j = 0; j < run->count; j++) {
        const tsr_linear_job *job = &run->jobs[j];
        const int64_t tiles = tiles_of(job);
        const int64_t cost = tile_cost(job);
        const int64_t first = tsr_smaller_64(tiles, tiles_begun(mine.first - begin, cost));
        const int64_t last = tsr_smaller_64(tiles, tiles_begun(mine.last - begin, cost));
        begin += tiles * cost;
        if (job->tokens <= ISA(tsr_cpu_format_of)(job->linear)->stream_most)
            stream_tiles(job, first, last);
        else
            decode_tiles(job, first, last, decoded);
    }
}

void ISA(tsr_linear_run)(tsr_cpu_device *cpu, const tsr_linear_job *jobs, int32_t count)
{
    tile_run run = {.jobs = jobs, .cpu = cpu, .count = count};
    int64_t tiles = 0;

    for (int32_t j = 0; j < count; j++) {
        run.cost += tiles_of(&jobs[j]) * tile_cost(&jobs[j]);
        tiles += tiles_of(&jobs[j]);
    }
    tsr_threads_run(cpu->threads, tiles, tile_share, &run);
}

/* Linears first .. first + count, which share their rows, over tokens t0 .. t0 + tokens. */
static void linears_alike(tsr_cpu_device *cpu, const tsr_linears_args *a, int32_t first,
                          int32_t count, tsr_thread_range tokens)
{
    const tsr_linear *linear = a->linear[first];
    const bool changes = tsr_linear_changes_rows(linear);
    const int32_t rows = (int32_t)(tokens.last - tokens.first);
    const size_t t0 = (size_t)tokens.first;
    const tsr_quantize_rows q = {
        .to = cpu->work.rows[0],
        .scale = cpu->work.scale[0],
        .x = (const float *)a->x + t0 * (size_t)linear->in,
        .x_stride = (size_t)linear->in,
        .linear = linear,
        .rows = rows,
    };
    tsr_linear_job jobs[TSR_MAX_LINEARS];

    if (changes)
        ISA(tsr_quantize_run)(cpu, &q);
    for (int32_t i = 0; i < count; i++) {
        const tsr_linear *each = a->linear[first + i];
        jobs[i] = (tsr_linear_job){
            .y = (float *)a->out[first + i] + t0 * (size_t)each->out,
            .linear = each,
            .x = changes ? q.to : q.x,
            .scale = changes ? q.scale : NULL,
            .y_stride = (size_t)each->out,
            .tokens = rows,
        };
    }
    ISA(tsr_linear_run)(cpu, jobs, count);
}

tsr_status ISA(tsr_linears_cpu)(tsr_device *device, const tsr_linears_args *a, tsr_stream s)
{
    tsr_cpu_device *cpu = tsr_cpu(device);

    (void)s;
    for (int32_t t0 = 0; t0 < a->tokens; t0 += cpu->work.chunk) {
        const tsr_thread_range tokens = {t0,
                                         tsr_smaller_64(a->tokens, (int64_t)t0 + cpu->work.chunk)};
        for (int32_t next = 0; next < a->count;) {
            const int32_t first = next++;
            while (next < a->count && tsr_linears_share_rows(a->linear[first], a->linear[next]))
                next++;
            linears_alike(cpu, a, first, next - first, tokens);
        }
    }
    return TSR_OK;
}

/* Activations are f32 here, as logits are everywhere: one linear like any other. */
tsr_status ISA(tsr_head_cpu)(tsr_device *device, const tsr_head_args *a, tsr_stream s)
{
    const tsr_linears_args linears = {
        .out = {a->logits},
        .linear = {a->head},
        .x = a->x,
        .count = 1,
        .tokens = a->rows,
    };
    return ISA(tsr_linears_cpu)(device, &linears, s);
}
