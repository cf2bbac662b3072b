/*
 * The expert MLP over packed rows. Pairs of (row, slot) are sorted by expert, a counting sort that
 * keeps their order, and taken through the MLP a chunk of pairs at a time:
 *
 *   pairs    | e0 e0 e0 e1 e1 | e1 e1 e4 e4 e4 | e4 e7       chunks of C, groups of one expert
 */
#include "kernels/cpu/ops_cpu.h"

#include "kernels/cpu/mlp_cpu.h"
#include "runtime/base/log.h"

#include <string.h>

static const int32_t *ids_of(const tsr_expert_mlp_args *a, int32_t row)
{
    const unsigned char *bytes = (const unsigned char *)a->rows + (size_t)row * a->row_bytes;
    return (const int32_t *)(const void *)(bytes + (size_t)a->hidden * sizeof(float));
}

/* The index into mlps of a pair that wants an answer; -1 where the id is not one of ours. */
static int32_t local_expert(const tsr_expert_mlp_args *a, int32_t row, int32_t slot)
{
    const int32_t id = ids_of(a, row)[slot];

    if (id < 0 || id >= a->experts || a->local_of[id] >= a->local_experts)
        return -1;
    return a->local_of[id];
}

/* The front door cannot see the experts: they stand in device memory. */
static tsr_status check_experts(const tsr_device *device, const tsr_expert_mlp_args *a)
{
    const tsr_work_shape *most = &device->shape;

    for (int32_t e = 0; e < a->local_experts; e++) {
        const tsr_mlp *mlp = &a->mlps[e];
        const int32_t width = mlp->gate.out;
        if (mlp->gate.in != a->hidden || mlp->up.in != a->hidden || mlp->down.out != a->hidden ||
            mlp->up.out != width || mlp->down.in != width || width > most->max_intermediate ||
            a->hidden > most->max_in || width > most->max_in) {
            tsr_log(TSR_LOG_ERROR,
                    "expert mlp: expert %d, [%d, %d], does not fit rows of %d or the workspace",
                    (int)e, (int)width, (int)mlp->gate.in, (int)a->hidden);
            return TSR_ERR_ARG;
        }
    }
    return TSR_OK;
}

/* Counts the pairs of each expert into first[expert + 1]; rejects what does not belong here. */
static tsr_status count_pairs(const tsr_device *device, const tsr_expert_mlp_args *a,
                              int32_t *first)
{
    const int32_t rows = a->row_count[0];
    int64_t pairs = 0;

    if (rows < 0 || rows > device->shape.max_rows) {
        tsr_log(TSR_LOG_ERROR, "expert mlp: %d rows, reserved were %d", (int)rows,
                (int)device->shape.max_rows);
        return TSR_ERR_ARG;
    }
    memset(first, 0, ((size_t)a->local_experts + 1) * sizeof(*first));
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t k = 0; k < a->top_k; k++) {
            if (a->answer_of[(size_t)i * (size_t)a->top_k + (size_t)k] < 0)
                continue;
            const int32_t local = local_expert(a, i, k);
            if (local < 0 || ++pairs > device->shape.max_answers) {
                tsr_log(TSR_LOG_ERROR,
                        "expert mlp: row %d, slot %d asks for expert %d, which is not here or one "
                        "answer more than the %d reserved",
                        (int)i, (int)k, (int)ids_of(a, i)[k], (int)device->shape.max_answers);
                return TSR_ERR_ARG;
            }
            first[local + 1]++;
        }
    }
    return TSR_OK;
}

/* Sorts the pairs; afterwards first[e] .. first[e + 1] are those of expert e. Returns their
 * number. */
static int32_t sort_pairs(const tsr_cpu_work *w, const tsr_expert_mlp_args *a)
{
    int32_t *first = w->expert_first;

    for (int32_t e = 0; e < a->local_experts; e++)
        first[e + 1] += first[e];
    const int32_t pairs = first[a->local_experts];

    for (int32_t i = 0; i < a->row_count[0]; i++) {
        for (int32_t k = 0; k < a->top_k; k++) {
            const int32_t answer = a->answer_of[(size_t)i * (size_t)a->top_k + (size_t)k];
            if (answer < 0)
                continue;
            const int32_t at = first[local_expert(a, i, k)]++;
            w->source[at] = i;
            w->target[at] = answer;
        }
    }
    /* Each first[e] has moved to where e + 1 begins. */
    memmove(first + 1, first, (size_t)a->local_experts * sizeof(*first));
    first[0] = 0;
    return pairs;
}

/* The groups of pairs begin .. end, from expert *expert on, which moves to the last one met. */
static int32_t chunk_groups(const tsr_cpu_work *w, const tsr_expert_mlp_args *a, int32_t *expert,
                            int32_t begin, int32_t end)
{
    int32_t groups = 0;
    int32_t at = begin;

    while (at < end) {
        while (w->expert_first[*expert + 1] <= at)
            (*expert)++;
        const int32_t last =
            w->expert_first[*expert + 1] < end ? w->expert_first[*expert + 1] : end;
        w->group[groups++] =
            (tsr_mlp_group){.mlp = &a->mlps[*expert], .first = at - begin, .count = last - at};
        at = last;
    }
    return groups;
}

tsr_status ISA(tsr_expert_mlp_cpu)(tsr_device *device, const tsr_expert_mlp_args *a, tsr_stream s)
{
    tsr_cpu_device *cpu = tsr_cpu(device);
    const tsr_cpu_work *w = &cpu->work;
    tsr_status st = check_experts(device, a);
    int32_t expert = 0;

    (void)s;
    if (st == TSR_OK)
        st = count_pairs(device, a, w->expert_first);
    if (st != TSR_OK)
        return st;
    const int32_t pairs = sort_pairs(w, a);
    for (int32_t begin = 0; begin < pairs; begin += w->chunk) {
        const int32_t end = pairs - begin < w->chunk ? pairs : begin + w->chunk;
        const tsr_mlp_rows m = {
            .out = a->answers,
            .x = a->rows,
            .source = w->source + begin,
            .target = w->target + begin,
            .group = w->group,
            .out_stride = (size_t)a->hidden,
            .x_stride = a->row_bytes / sizeof(float),
            .groups = chunk_groups(w, a, &expert, begin, end),
            .rows = end - begin,
        };
        ISA(tsr_mlp_run)(cpu, &m);
    }
    return TSR_OK;
}
