/*
 * A formula, no table, so that it can be asked about any number of ranks before there is a plan:
 * the budget and its advice try many. The plan carries the table all the same, and every rank
 * follows that.
 */
#include "runtime/plan/placement.h"

#include <stddef.h>

int32_t tsr_placement_rank(int32_t experts, int32_t ranks, int32_t expert)
{
    const int32_t each = experts / ranks;
    const int32_t larger = experts % ranks; /* ranks that hold one more */
    const int32_t in_larger = larger * (each + 1);

    if (expert < in_larger)
        return expert / (each + 1);
    return larger + (expert - in_larger) / each;
}

void tsr_placement_fill(const tsr_model_facts *model, int32_t ranks, int32_t *expert_rank)
{
    for (int32_t layer = 0; layer < model->layers; layer++) {
        int32_t *row = expert_rank + (size_t)layer * (size_t)model->experts;
        for (int32_t e = 0; e < model->experts; e++)
            row[e] = model->sparse[layer] ? tsr_placement_rank(model->experts, ranks, e) : -1;
    }
}
