/*
 * Attention over the paged cache. First all rows write their keys and values, then each
 * (row, up to 8 query heads of one kv head) attends on its own:
 *
 *   scores   canonical dots of the queries with keys, 16 positions at a time
 *   weights  exp(score - max) * (1 / sum), the sum canonical, lanes by absolute position
 *   values   weight * value summed over positions, ascending, one fused multiply-add each
 *
 * Nothing depends on the block size, the chunk a position came in, or the rows beside it.
 */
#include "kernels/cpu/ops_cpu.h"

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/dots.h"
#include "kernels/cpu/kv_cpu.h"
#include "kernels/cpu/lane_math.h"
#include "kernels/cpu/stream_cpu.h"
#include "runtime/base/sizes.h"

#include <math.h>

typedef struct attention_run {
    const tsr_attention_args *a;
    const tsr_cpu_work *work;
    int32_t heads; /* query heads that attend together */
} attention_run;

/* One row's work for some heads of one kv head. */
typedef struct attend {
    float *out;            /* [heads, D] */
    const float *q;        /* [heads, D] */
    const int32_t *blocks; /* the sequence's block table */
    float *scores;         /* [heads, stride] */
    float *sums;           /* [heads, D] */
    float *tile;           /* [TSR_CPU_POSITIONS, D] */
    size_t stride;
    int32_t positions; /* it sees 0 .. positions - 1 */
    int32_t kv_head;
    int32_t heads;
} attend;

/* Positions from p on that one tile takes: to the end of the block, at most 16. */
static int32_t tile_positions(const tsr_kv_layer *cache, int32_t p, int32_t positions)
{
    const int32_t in_block = cache->block_tokens - p % cache->block_tokens;

    return tsr_smaller(tsr_smaller(positions - p, in_block), TSR_CPU_POSITIONS);
}

static tsr_kv_place cache_place(const tsr_kv_layer *cache, const attend *w, int32_t p)
{
    return (tsr_kv_place){
        .block = w->blocks[p / cache->block_tokens],
        .slot = p % cache->block_tokens,
        .head = w->kv_head,
    };
}

static void score(const tsr_kv_layer *cache, const attend *w)
{
    const size_t dim = (size_t)cache->head_dim;
    tsr_dots d = {
        .x = w->q,
        .y_stride = w->stride,
        .w_stride = dim,
        .x_stride = dim,
        .in = cache->head_dim,
    };

    for (int32_t p = 0; p < w->positions;) {
        const int32_t count = tile_positions(cache, p, w->positions);
        d.w = ISA(tsr_kv_read)(cache, cache->keys, cache_place(cache, w, p), count, w->tile);
        d.y = w->scores + p;
        ISA(tsr_dots_run)(&d, count, w->heads);
        p += count;
    }
}

/* Scores to their softmax in place. Lanes past the end add zero. */
static void weigh(float *scores, int32_t positions, float scale)
{
    const lanes factor = lanes_set(scale);
    lanes most = lanes_set(-INFINITY);
    lanes sum = lanes_set(0.0F);

    for (int32_t p = 0; p < positions; p += LANES) {
        const int n = positions - p < LANES ? positions - p : LANES;
        const lanes scaled = lanes_mul(lanes_load_part(scores + p, n, -INFINITY), factor);
        lanes_store(scores + p, scaled);
        most = lanes_max(most, scaled);
    }
    const lanes peak = lanes_set(lanes_peak(most));
    for (int32_t p = 0; p < positions; p += LANES) {
        const lanes e = lanes_exp(lanes_sub(lanes_load(scores + p), peak));
        lanes_store(scores + p, e);
        sum = lanes_add(sum, e);
    }
    const lanes share = lanes_set(1.0F / lanes_sum(sum));
    for (int32_t p = 0; p < positions; p += LANES)
        lanes_store(scores + p, lanes_mul(lanes_load(scores + p), share));
}

/* `width` lanes of one head's sums, over `count` positions. `width` is a constant at every call. */
TSR_INLINE void add_values(float *sums, const float *weights, const float *values, size_t dim,
                           int32_t count, size_t width)
{
    lanes sum[VALUE_LANES];

    for (size_t i = 0; i < width; i++)
        sum[i] = lanes_load(sums + LANES * i);
    for (int32_t p = 0; p < count; p++, values += dim) {
        const lanes weight = lanes_set(weights[p]);
        for (size_t i = 0; i < width; i++)
            sum[i] = lanes_fma(weight, lanes_load(values + LANES * i), sum[i]);
    }
    for (size_t i = 0; i < width; i++)
        lanes_store(sums + LANES * i, sum[i]);
}

static void gather_values(const tsr_kv_layer *cache, const attend *w)
{
    const int32_t dim = cache->head_dim;

    for (int32_t i = 0; i < w->heads * dim; i++)
        w->sums[i] = 0.0F;
    for (int32_t p = 0; p < w->positions;) {
        const int32_t count = tile_positions(cache, p, w->positions);
        const float *values =
            ISA(tsr_kv_read)(cache, cache->values, cache_place(cache, w, p), count, w->tile);
        for (int32_t h = 0; h < w->heads; h++) {
            const float *weights = w->scores + (size_t)h * w->stride + p;
            float *sums = w->sums + (size_t)h * (size_t)dim;
            int32_t i = 0;
            for (; i + LANES * VALUE_LANES <= dim; i += LANES * VALUE_LANES)
                add_values(sums + i, weights, values + i, (size_t)dim, count, VALUE_LANES);
            for (; i < dim; i += LANES)
                add_values(sums + i, weights, values + i, (size_t)dim, count, 1);
        }
        p += count;
    }
}

static void attend_heads(const tsr_kv_layer *cache, const attend *w)
{
    const size_t dim = (size_t)cache->head_dim;
    const float unit = ISA(tsr_kv_unit)(cache->format);
    const bool scaled = cache->format == TSR_KV_FP8;
    const float key_scale = unit * (scaled ? cache->key_scale : 1.0F);
    const float value_scale = unit * (scaled ? cache->value_scale : 1.0F);

    score(cache, w);
    for (int32_t h = 0; h < w->heads; h++) {
        weigh(w->scores + (size_t)h * w->stride, w->positions,
              key_scale * (1.0F / sqrtf((float)dim)));
    }
    gather_values(cache, w);
    for (size_t i = 0; i < (size_t)w->heads * dim; i++)
        w->out[i] = w->sums[i] * value_scale;
}

/* Row `row` of sequence `s` with group `group` of query heads. */
static void attend_row(const attention_run *run, float *work, const tsr_attention_sequence *s,
                       int32_t row, int32_t group)
{
    const tsr_attention_args *a = run->a;
    const size_t dim = (size_t)a->cache->head_dim;
    const int32_t first_head = group * run->heads;
    const size_t at =
        ((size_t)(s->first_row + row) * (size_t)a->q_heads + (size_t)first_head) * dim;
    const size_t stride = (size_t)run->work->score_stride;
    attend w = {
        .out = (float *)a->out + at,
        .q = (const float *)a->q + at,
        .blocks = a->blocks + s->first_block,
        .stride = stride,
        .positions = s->first_position + row + 1,
        .kv_head = first_head / (a->q_heads / a->cache->kv_heads),
        .heads = run->heads,
    };

    w.scores = work;
    w.sums = w.scores + TSR_CPU_HEADS * stride;
    w.tile = w.sums + TSR_CPU_HEADS * dim;
    attend_heads(a->cache, &w);
}

/* Later rows see more: dealing units out in turn gives every thread as many of each. */
static void attend_share(const void *context, int32_t thread, int32_t threads)
{
    const attention_run *run = context;
    const tsr_attention_args *a = run->a;
    const int32_t groups = a->q_heads / run->heads;
    float *work = tsr_cpu_thread_work(run->work, thread);
    int64_t unit = 0;

    for (int32_t s = 0; s < a->sequences; s++) {
        for (int32_t r = 0; r < a->sequence[s].rows; r++) {
            for (int32_t g = 0; g < groups; g++, unit++) {
                if (unit % threads == thread)
                    attend_row(run, work, &a->sequence[s], r, g);
            }
        }
    }
}

static void write_share(const void *context, int32_t thread, int32_t threads)
{
    const tsr_attention_args *a = ((const attention_run *)context)->a;
    const tsr_kv_layer *cache = a->cache;
    const size_t row_floats = (size_t)cache->kv_heads * (size_t)cache->head_dim;
    const tsr_thread_range mine = tsr_thread_share(a->tokens, thread, threads);

    for (int32_t s = 0; s < a->sequences; s++) {
        const tsr_attention_sequence *seq = &a->sequence[s];
        for (int32_t r = 0; r < seq->rows; r++) {
            const int32_t row = seq->first_row + r;
            const int32_t p = seq->first_position + r;
            const int32_t block = a->blocks[seq->first_block + p / cache->block_tokens];
            if (row < mine.first || row >= mine.last)
                continue;
            tsr_kv_write(cache, block, p % cache->block_tokens,
                         (const float *)a->k + (size_t)row * row_floats,
                         (const float *)a->v + (size_t)row * row_floats);
        }
    }
}

static int32_t clamped(int64_t count)
{
    if (count < INT32_MIN)
        return INT32_MIN;
    return count > INT32_MAX ? INT32_MAX : (int32_t)count;
}

/* What is wrong with a sequence, or a fault of no kind. */
static tsr_fault sequence_fault(const tsr_device *device, const tsr_attention_args *a, int32_t s)
{
    const tsr_attention_sequence *seq = &a->sequence[s];
    const int64_t end = (int64_t)seq->first_position + seq->rows;
    const int32_t limit = device->shape.max_context;

    if (seq->rows < 0 || seq->first_row < 0 || seq->first_row > a->tokens - seq->rows ||
        seq->first_position < 0 || end > limit || seq->first_block < 0) {
        return (tsr_fault){
            .kind = TSR_FAULT_SEQUENCE,
            .row = s,
            .slot = clamped((int64_t)seq->first_row + seq->rows),
            .value = clamped(end),
            .limit = limit,
        };
    }
    for (int64_t b = 0; seq->rows > 0 && b * a->cache->block_tokens < end; b++) {
        const int32_t block = a->blocks[seq->first_block + b];
        if (block < 0 || block >= a->cache->blocks) {
            return (tsr_fault){
                .kind = TSR_FAULT_BLOCK, .row = s, .value = block, .limit = a->cache->blocks};
        }
    }
    return (tsr_fault){.kind = TSR_FAULT_NONE};
}

/* As many heads at once as share a kv head, while every thread still gets some. */
static int32_t heads_together(const tsr_attention_args *a, int32_t threads)
{
    const int32_t shared = a->q_heads / a->cache->kv_heads;
    int32_t heads = TSR_CPU_HEADS;

    while (heads > 1 &&
           (shared % heads != 0 || (int64_t)a->tokens * (a->q_heads / heads) < threads))
        heads /= 2;
    return heads;
}

tsr_status ISA(tsr_attention_cpu)(tsr_device *device, const tsr_attention_args *a, tsr_stream s)
{
    tsr_cpu_device *cpu = tsr_cpu(device);
    const attention_run run = {
        .a = a,
        .work = &cpu->work,
        .heads = heads_together(a, tsr_threads_count(cpu->threads)),
    };

    (void)s;
    for (int32_t i = 0; i < a->sequences; i++) {
        const tsr_fault fault = sequence_fault(device, a, i);
        if (fault.kind == TSR_FAULT_NONE)
            continue;
        tsr_set_fault_cpu(cpu, fault);
        return TSR_OK;
    }
    tsr_threads_run(cpu->threads, a->tokens, write_share, &run);
    tsr_threads_run(cpu->threads, (int64_t)a->tokens * (a->q_heads / run.heads), attend_share,
                    &run);
    return TSR_OK;
}
