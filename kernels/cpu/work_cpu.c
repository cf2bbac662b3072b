/*
 * The workspace of the CPU device: one allocation, cut up here and nowhere else, so that the bytes
 * the plan counts are the bytes that are taken.
 */
#include "kernels/cpu/device_cpu.h"
#include "runtime/base/sizes.h"

enum { LINE_FLOATS = TSR_ALIGNMENT / sizeof(float) };

typedef struct cutter {
    unsigned char *memory;
    uint64_t used;
} cutter;

static void *cut_work(cutter *c, uint64_t count, uint64_t size)
{
    void *piece = c->memory != NULL ? c->memory + c->used : NULL;

    c->used += tsr_aligned(count * size, TSR_ALIGNMENT);
    return piece;
}

/* A thread runs one of these at a time, so they share their place. */
static uint64_t thread_floats(const tsr_work_shape *s)
{
    const uint64_t linear = TSR_CPU_TILE * (uint64_t)s->max_in;
    const uint64_t attention = TSR_CPU_HEADS * tsr_aligned((uint64_t)s->max_context, LINE_FLOATS) +
                               (uint64_t)(TSR_CPU_HEADS + TSR_CPU_POSITIONS) *
                                   tsr_aligned((uint64_t)s->head_dim, LINE_FLOATS);
    const uint64_t sample = 3 * tsr_aligned((uint64_t)s->vocab, LINE_FLOATS);

    return tsr_larger_size(linear, tsr_larger_size(attention, sample));
}

uint64_t tsr_cpu_work_layout(const tsr_work_shape *shape, int32_t threads, unsigned char *memory,
                             tsr_cpu_work *ret_work)
{
    const uint64_t rows = tsr_larger_size(
        (uint64_t)shape->max_tokens,
        tsr_larger_size((uint64_t)shape->max_answers, (uint64_t)shape->max_logit_rows));
    const uint64_t chunk = tsr_smaller_size(rows, TSR_CPU_CHUNK);
    const uint64_t experts = (uint64_t)shape->max_experts;
    const uint64_t groups = tsr_larger_size(1, tsr_smaller_size(experts, chunk));
    const uint64_t answers = (uint64_t)shape->max_answers;
    const uint64_t in = (uint64_t)shape->max_in;
    const uint64_t intermediate = (uint64_t)shape->max_intermediate;
    cutter c = {0};
    tsr_cpu_work w = {.chunk = (int32_t)chunk};

    c.memory = memory;
    for (int i = 0; i < 2; i++) {
        w.rows[i] = cut_work(&c, chunk * in, sizeof(float));
        w.scale[i] = cut_work(&c, chunk, sizeof(float));
    }
    w.gate = cut_work(&c, chunk * intermediate, sizeof(float));
    w.up = cut_work(&c, chunk * intermediate, sizeof(float));
    w.logits = cut_work(&c, chunk * experts, sizeof(float));
    w.source = cut_work(&c, answers, sizeof(int32_t));
    w.target = cut_work(&c, answers, sizeof(int32_t));
    w.expert_first = cut_work(&c, experts + 1, sizeof(int32_t));
    w.group = cut_work(&c, groups, sizeof(tsr_mlp_group));
    w.job = cut_work(&c, 2 * groups + TSR_MAX_LINEARS, sizeof(tsr_linear_job));
    w.thread_bytes = (size_t)tsr_aligned(thread_floats(shape) * sizeof(float), TSR_ALIGNMENT);
    w.thread = cut_work(&c, (uint64_t)threads, w.thread_bytes);
    w.score_stride = (int32_t)tsr_aligned((uint64_t)shape->max_context, LINE_FLOATS);
    *ret_work = w;
    return c.used;
}
