/*
 * down(silu(gate(x)) * up(x)) over rows grouped by their weights, in four stages with a meeting of
 * the threads between them:
 *
 *   enter    x ──► rows[0] quantized for gate, rows[1] for up where that differs
 *   widen    rows ──► gate [C, I], up [C, I]          all groups' tiles at once
 *   gate     silu(gate) * up, quantized for down, in place
 *   narrow   gate ──► out
 */
#include "kernels/cpu/mlp_cpu.h"

#include "kernels/cpu/lane_math.h"
#include "kernels/cpu/linear_cpu.h"
#include "kernels/cpu/ops_cpu.h"

typedef struct stage {
    const tsr_cpu_work *work;
    const tsr_mlp_rows *m;
} stage;

typedef void (*row_step)(const stage *s, const tsr_mlp *mlp, int32_t row);

/* Calls `step` for each row of the thread's share, with its group's weights. */
static void each_row(const stage *s, tsr_thread_range mine, row_step step)
{
    for (int32_t g = 0; g < s->m->groups; g++) {
        const tsr_mlp_group *group = &s->m->group[g];
        const int32_t last = group->first + group->count;
        for (int32_t i = group->first; i < last; i++) {
            if (i >= mine.first && i < mine.last)
                step(s, group->mlp, i);
        }
    }
}

static void enter_row(const stage *s, const tsr_mlp *mlp, int32_t row)
{
    const size_t in = (size_t)mlp->gate.in;
    const size_t from = (size_t)(s->m->source != NULL ? s->m->source[row] : row);
    const float *x = s->m->x + from * s->m->x_stride;
    const tsr_cpu_work *w = s->work;

    w->scale[0][row] = ISA(tsr_quantize_row)(&mlp->gate, x, w->rows[0] + (size_t)row * in);
    if (!tsr_linears_share_rows(&mlp->gate, &mlp->up))
        w->scale[1][row] = ISA(tsr_quantize_row)(&mlp->up, x, w->rows[1] + (size_t)row * in);
}

static void enter_share(const void *context, int32_t thread, int32_t threads)
{
    const stage *s = context;
    each_row(s, tsr_thread_share(s->m->rows, thread, threads), enter_row);
}

static void gate_row(const stage *s, const tsr_mlp *mlp, int32_t row)
{
    const size_t width = (size_t)mlp->down.in;
    float *gate = s->work->gate + (size_t)row * width;
    const float *up = s->work->up + (size_t)row * width;

    for (size_t i = 0; i < width; i += LANES)
        lanes_store(gate + i, lanes_mul(lanes_silu(lanes_load(gate + i)), lanes_load(up + i)));
    s->work->scale[0][row] = ISA(tsr_quantize_row)(&mlp->down, gate, gate);
}

static void gate_share(const void *context, int32_t thread, int32_t threads)
{
    const stage *s = context;
    each_row(s, tsr_thread_share(s->m->rows, thread, threads), gate_row);
}

/* Rows of the group in a buffer of `width` floats per row. */
static float *rows_of(float *buffer, const tsr_mlp_group *group, int32_t width)
{
    return buffer + (size_t)group->first * (size_t)width;
}

static int32_t widen_jobs(const tsr_cpu_work *w, const tsr_mlp_rows *m)
{
    int32_t count = 0;

    for (int32_t g = 0; g < m->groups; g++) {
        const tsr_mlp_group *group = &m->group[g];
        const tsr_mlp *mlp = group->mlp;
        const int other = tsr_linears_share_rows(&mlp->gate, &mlp->up) ? 0 : 1;
        const tsr_linear_job gate = {
            .y = rows_of(w->gate, group, mlp->gate.out),
            .linear = &mlp->gate,
            .x = rows_of(w->rows[0], group, mlp->gate.in),
            .scale = w->scale[0] + group->first,
            .y_stride = (size_t)mlp->gate.out,
            .tokens = group->count,
        };
        const tsr_linear_job up = {
            .y = rows_of(w->up, group, mlp->up.out),
            .linear = &mlp->up,
            .x = rows_of(w->rows[other], group, mlp->up.in),
            .scale = w->scale[other] + group->first,
            .y_stride = (size_t)mlp->up.out,
            .tokens = group->count,
        };
        w->job[count++] = gate;
        w->job[count++] = up;
    }
    return count;
}

static int32_t narrow_jobs(const tsr_cpu_work *w, const tsr_mlp_rows *m)
{
    for (int32_t g = 0; g < m->groups; g++) {
        const tsr_mlp_group *group = &m->group[g];
        const tsr_linear *down = &group->mlp->down;
        w->job[g] = (tsr_linear_job){
            .y = m->target != NULL ? m->out : m->out + (size_t)group->first * m->out_stride,
            .linear = down,
            .x = rows_of(w->gate, group, down->in),
            .scale = w->scale[0] + group->first,
            .row_of = m->target != NULL ? m->target + group->first : NULL,
            .y_stride = m->out_stride,
            .tokens = group->count,
        };
    }
    return m->groups;
}

void ISA(tsr_mlp_run)(tsr_cpu_device *cpu, const tsr_mlp_rows *m)
{
    const tsr_cpu_work *w = &cpu->work;
    const stage s = {.work = w, .m = m};

    tsr_threads_run(cpu->threads, m->rows, enter_share, &s);
    ISA(tsr_linear_run)(cpu, w->job, widen_jobs(w, m));
    tsr_threads_run(cpu->threads, m->rows, gate_share, &s);
    ISA(tsr_linear_run)(cpu, w->job, narrow_jobs(w, m));
}

tsr_status ISA(tsr_mlp_cpu)(tsr_device *device, const tsr_mlp_args *a, tsr_stream s)
{
    tsr_cpu_device *cpu = tsr_cpu(device);
    const size_t stride = a->x_row_bytes / sizeof(float);
    const size_t out = (size_t)a->mlp->down.out;

    (void)s;
    for (int32_t t0 = 0; t0 < a->tokens; t0 += cpu->work.chunk) {
        const int32_t left = a->tokens - t0;
        const int32_t rows = left < cpu->work.chunk ? left : cpu->work.chunk;
        const tsr_mlp_group group = {.mlp = a->mlp, .first = 0, .count = rows};
        const tsr_mlp_rows m = {
            .out = (float *)a->out + (size_t)t0 * out,
            .x = (const float *)a->x + (size_t)t0 * stride,
            .group = &group,
            .out_stride = out,
            .x_stride = stride,
            .groups = 1,
            .rows = rows,
        };
        ISA(tsr_mlp_run)(cpu, &m);
    }
    return TSR_OK;
}
