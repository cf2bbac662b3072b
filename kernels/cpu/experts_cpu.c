/*
 * The expert MLP over packed rows. Pairs of (row, slot) are sorted by expert, a counting sort that
 * keeps their order, and taken through the MLP a chunk of pairs at a time:
 *
 *   pairs    | e0 e0 e0 e1 e1 | e1 e1 e4 e4 e4 | e4 e7       chunks of C, groups of one expert
 *
 * Rows are read where they arrived, and each answer is written where it leaves from.
 */
#include "kernels/cpu/ops_cpu.h"

#include "kernels/cpu/mlp_cpu.h"
#include "kernels/cpu/stream_cpu.h"
#include "runtime/base/sizes.h"

#include <string.h>

static const int32_t *ids_of(const tsr_experts_block *b, int32_t row)
{
    const unsigned char *bytes =
        (const unsigned char *)b->rows + (size_t)row * b->experts->row_bytes;
    return (const int32_t *)(const void *)(bytes + (size_t)b->experts->hidden * sizeof(float));
}

/* The answer that a pair wants; negative: none. */
static int32_t answer_of(const tsr_experts_block *b, int32_t row, int32_t slot)
{
    return b->answer_of[(size_t)row * (size_t)b->experts->top_k + (size_t)slot];
}

/* The index into mlps of a pair that wants an answer; -1 where the id is not one of ours. */
static int32_t local_expert(const tsr_experts_block *b, int32_t row, int32_t slot)
{
    const int32_t id = ids_of(b, row)[slot];

    return id < 0 || id >= b->experts->experts ? -1 : b->experts->local_of[id];
}

/* Counts the pairs of each expert into first[expert + 1]; returns what does not belong here, or a
 * fault of no kind. */
static tsr_fault count_pairs(const tsr_device *device, const tsr_experts_block *b, int32_t *first)
{
    const tsr_work_shape *most = &device->shape;
    const int32_t rows = b->row_count[0];
    const int32_t slots = b->experts->top_k;
    const int32_t limit = tsr_smaller(most->max_rows, b->most_rows);
    int32_t pairs = 0;

    if (rows < 0 || rows > limit)
        return (tsr_fault){.kind = TSR_FAULT_ROWS, .value = rows, .limit = limit};
    memset(first, 0, ((size_t)b->experts->local + 1) * sizeof(*first));
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t k = 0; k < slots; k++) {
            if (answer_of(b, i, k) < 0)
                continue;
            const int32_t local = local_expert(b, i, k);
            tsr_fault fault = {.row = i, .slot = k, .limit = most->max_answers};
            fault.value = ids_of(b, i)[k];
            fault.kind = local < 0 ? TSR_FAULT_EXPERT : TSR_FAULT_ANSWERS;
            if (local < 0 || pairs == most->max_answers)
                return fault;
            pairs++;
            first[local + 1]++;
        }
    }
    return (tsr_fault){.kind = TSR_FAULT_NONE};
}

/* Sorts the pairs; afterwards first[e] .. first[e + 1] are those of expert e. Returns their
 * number. */
static int32_t sort_pairs(const tsr_cpu_work *w, const tsr_experts_block *b)
{
    int32_t *first = w->expert_first;

    for (int32_t e = 0; e < b->experts->local; e++)
        first[e + 1] += first[e];
    const int32_t pairs = first[b->experts->local];

    for (int32_t i = 0; i < b->row_count[0]; i++) {
        for (int32_t k = 0; k < b->experts->top_k; k++) {
            const int32_t answer = answer_of(b, i, k);
            if (answer < 0)
                continue;
            const int32_t at = first[local_expert(b, i, k)]++;
            w->source[at] = i;
            w->target[at] = answer;
        }
    }
    /* Each first[e] has moved to where e + 1 begins. */
    memmove(first + 1, first, (size_t)b->experts->local * sizeof(*first));
    first[0] = 0;
    return pairs;
}

/* The groups of pairs begin .. end, from expert *expert on, which moves to the last one met. */
static int32_t chunk_groups(const tsr_cpu_work *w, const tsr_experts_block *b, int32_t *expert,
                            int32_t begin, int32_t end)
{
    int32_t groups = 0;
    int32_t at = begin;

    while (at < end) {
        while (w->expert_first[*expert + 1] <= at)
            (*expert)++;
        const int32_t last =
            w->expert_first[*expert + 1] < end ? w->expert_first[*expert + 1] : end;
        w->group[groups++] = (tsr_mlp_group){
            .mlp = &b->experts->mlps[*expert], .first = at - begin, .count = last - at};
        at = last;
    }
    return groups;
}

tsr_status ISA(tsr_experts_cpu)(tsr_device *device, const tsr_experts_block *b, tsr_stream s)
{
    tsr_cpu_device *cpu = tsr_cpu(device);
    const tsr_cpu_work *w = &cpu->work;
    const tsr_fault fault = count_pairs(device, b, w->expert_first);
    int32_t expert = 0;

    (void)s;
    if (fault.kind != TSR_FAULT_NONE) {
        tsr_set_fault_cpu(cpu, fault);
        return TSR_OK;
    }
    const int32_t pairs = sort_pairs(w, b);
    for (int32_t begin = 0; begin < pairs; begin += w->chunk) {
        const int32_t end = pairs - begin < w->chunk ? pairs : begin + w->chunk;
        const tsr_mlp_rows m = {
            .out = b->answers,
            .x = b->rows,
            .source = w->source + begin,
            .target = w->target + begin,
            .group = w->group,
            .out_stride = (size_t)b->experts->hidden,
            .x_stride = b->experts->row_bytes / sizeof(float),
            .groups = chunk_groups(w, b, &expert, begin, end),
            .rows = end - begin,
        };
        ISA(tsr_mlp_run)(cpu, &m);
    }
    return TSR_OK;
}
