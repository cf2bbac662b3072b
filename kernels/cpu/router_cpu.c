/*
 * The router: logits by the gate, then K of E experts for each row.
 *
 *   softmax   choice = p
 *             weight = p, divided by the sum of the chosen where normalised
 *   sigmoid   choice = s + bias, -inf outside the best groups
 *             weight = s, / (sum + 1e-20) where normalised, * routed_scale
 *
 * Sums over the chosen are in slot order. Equal choices go to the lower id.
 */
#include "kernels/cpu/ops_cpu.h"

#include "kernels/cpu/lane_math.h"
#include "kernels/cpu/linear_cpu.h"
#include "runtime/base/sizes.h"

#include <math.h>

typedef struct router_rows {
    const tsr_router_args *a;
    float *logits; /* [rows, E] */
    int32_t first; /* row of the operation */
    int32_t rows;
} router_rows;

static void softmax(float *x, int32_t count)
{
    lanes most = lanes_set(-INFINITY);
    lanes sum = lanes_set(0.0F);

    for (int32_t i = 0; i < count; i += LANES) {
        const int n = tsr_smaller(count - i, LANES);
        most = lanes_max(most, lanes_load_part(x + i, n, -INFINITY));
    }
    const lanes peak = lanes_set(lanes_peak(most));
    for (int32_t i = 0; i < count; i += LANES) {
        const int n = tsr_smaller(count - i, LANES);
        float e[LANES];
        lanes_store(e, lanes_exp(lanes_sub(lanes_load_part(x + i, n, -INFINITY), peak)));
        for (int l = 0; l < n; l++)
            x[i + l] = e[l];
        sum = lanes_add(sum, lanes_load_part(e, n, 0.0F));
    }
    const float total = lanes_sum(sum);
    for (int32_t i = 0; i < count; i++)
        x[i] = x[i] / total;
}

static void sigmoid(float *x, int32_t count)
{
    for (int32_t i = 0; i < count; i += LANES) {
        const int n = tsr_smaller(count - i, LANES);
        float y[LANES];
        lanes_store(y, lanes_sigmoid(lanes_load_part(x + i, n, 0.0F)));
        for (int l = 0; l < n; l++)
            x[i + l] = y[l];
    }
}

/* The largest of `count` choices that is not taken; the first of equals. */
static int32_t best_of(const float *choice, const bool *taken, int32_t count)
{
    int32_t best = -1;

    for (int32_t i = 0; i < count; i++) {
        if (!taken[i] && (best < 0 || choice[i] > choice[best]))
            best = i;
    }
    return best;
}

/* The sum of a group's two largest choices; of one, if there is but one. */
static float group_score(const float *choice, int32_t size)
{
    bool taken[TSR_MAX_EXPERTS] = {false};
    const int32_t first = best_of(choice, taken, size);

    if (size == 1)
        return choice[0];
    taken[first] = true;
    return choice[first] + choice[best_of(choice, taken, size)];
}

/* Experts outside the best groups get the choice -inf. */
static void keep_groups(const tsr_router_args *a, float *choice)
{
    const int32_t size = a->router->gate->out / a->router->groups;
    float score[TSR_MAX_EXPERTS] = {0};
    bool kept[TSR_MAX_EXPERTS] = {false};

    if (a->router->top_groups == a->router->groups)
        return;
    for (int32_t g = 0; g < a->router->groups; g++)
        score[g] = group_score(choice + (size_t)g * (size_t)size, size);
    for (int32_t i = 0; i < a->router->top_groups; i++)
        kept[best_of(score, kept, a->router->groups)] = true;
    for (int32_t g = 0; g < a->router->groups; g++) {
        for (int32_t i = 0; i < size && !kept[g]; i++)
            choice[g * size + i] = -INFINITY;
    }
}

/* Fills one row of the answer. `score` are the weights, `choice` decides. */
static void choose_experts(const tsr_router_args *a, const float *score, const float *choice,
                           int32_t row)
{
    int32_t *expert = a->expert + (size_t)row * (size_t)a->router->top_k;
    float *weight = a->weight + (size_t)row * (size_t)a->router->top_k;
    bool taken[TSR_MAX_EXPERTS] = {false};
    float sum = 0.0F;

    for (int32_t k = 0; k < a->router->top_k; k++) {
        expert[k] = best_of(choice, taken, a->router->gate->out);
        taken[expert[k]] = true;
        weight[k] = score[expert[k]];
        sum += weight[k];
    }
    if (a->router->kind == TSR_ROUTER_SIGMOID)
        sum += 1e-20F;
    for (int32_t k = 0; k < a->router->top_k; k++) {
        if (a->router->normalise)
            weight[k] = weight[k] / sum;
        if (a->router->kind == TSR_ROUTER_SIGMOID)
            weight[k] = weight[k] * a->router->routed_scale;
    }
}

static void route_row(const tsr_router_args *a, float *logits, int32_t row)
{
    const int32_t experts = a->router->gate->out;
    float choice[TSR_MAX_EXPERTS] = {0};

    if (a->router->kind == TSR_ROUTER_SOFTMAX) {
        softmax(logits, experts);
        choose_experts(a, logits, logits, row);
        return;
    }
    sigmoid(logits, experts);
    for (int32_t e = 0; e < experts; e++)
        choice[e] = a->router->bias != NULL ? logits[e] + a->router->bias[e] : logits[e];
    keep_groups(a, choice);
    choose_experts(a, logits, choice, row);
}

static void router_share(const void *context, int32_t thread, int32_t threads)
{
    const router_rows *r = context;
    const tsr_thread_range mine = tsr_thread_share(r->rows, thread, threads);

    for (int64_t i = mine.first; i < mine.last; i++)
        route_row(r->a, r->logits + (size_t)i * (size_t)r->a->router->gate->out,
                  r->first + (int32_t)i);
}

tsr_status ISA(tsr_router_cpu)(tsr_device *device, const tsr_router_args *a, tsr_stream s)
{
    tsr_cpu_device *cpu = tsr_cpu(device);

    (void)s;
    for (int32_t first = 0; first < a->tokens; first += cpu->work.chunk) {
        const int32_t left = a->tokens - first;
        const router_rows rows = {
            .a = a,
            .logits = cpu->work.logits,
            .first = first,
            .rows = left < cpu->work.chunk ? left : cpu->work.chunk,
        };
        const tsr_linear_job job = {
            .y = rows.logits,
            .linear = a->router->gate,
            .x = (const float *)a->x + (size_t)first * (size_t)a->router->gate->in,
            .y_stride = (size_t)a->router->gate->out,
            .tokens = rows.rows,
        };
        ISA(tsr_linear_run)(cpu, &job, 1);
        tsr_threads_run(cpu->threads, rows.rows, router_share, &rows);
    }
    return TSR_OK;
}
