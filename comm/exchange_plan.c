/* Counts, then running sums, then indices; exchange_plan.h draws both sides. */
#include "comm/exchange_plan.h"

#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

tsr_status tsr_send_plan_refuse(int32_t row, int32_t slot, int32_t rank, int32_t ranks)
{
    tsr_log(TSR_LOG_ERROR,
            "exchange: row %" PRId32 " slot %" PRId32 " names rank %" PRId32
            " of a group of %" PRId32,
            row, slot, rank, ranks);
    return TSR_ERR_ARG;
}

/* True when no earlier slot of the row names the same rank. */
static bool is_first_naming(const int32_t *row, int32_t slot)
{
    for (int32_t k = 0; k < slot; k++) {
        if (row[k] == row[slot])
            return false;
    }
    return true;
}

/* Counts of rank r into [r + 1], so that a running sum makes them starts. */
static tsr_status count_all(int32_t ranks, int32_t tokens, int32_t slots, const int32_t *send_ranks,
                            tsr_send_plan *plan)
{
    for (int32_t t = 0; t < tokens; t++) {
        const int32_t *row = send_ranks + (ptrdiff_t)t * slots;
        for (int32_t k = 0; k < slots; k++) {
            if (row[k] < -1 || row[k] >= ranks)
                return tsr_send_plan_refuse(t, k, row[k], ranks);
            if (row[k] < 0)
                continue;
            plan->answer_first[row[k] + 1]++;
            if (is_first_naming(row, k))
                plan->row_first[row[k] + 1]++;
        }
    }
    return TSR_OK;
}

tsr_status tsr_send_plan_build(int32_t ranks, int32_t tokens, int32_t slots,
                               const int32_t *send_ranks, tsr_send_plan *plan)
{
    const size_t bytes = ((size_t)ranks + 1) * sizeof(int32_t);
    memset(plan->row_first, 0, bytes);
    memset(plan->answer_first, 0, bytes);
    const tsr_status st = count_all(ranks, tokens, slots, send_ranks, plan);
    if (st != TSR_OK)
        return st;

    for (int32_t r = 0; r < ranks; r++) {
        plan->row_first[r + 1] += plan->row_first[r];
        plan->answer_first[r + 1] += plan->answer_first[r];
    }

    /* Each start moves to its end while it is filled, which is the next one's start. */
    for (int32_t t = 0; t < tokens; t++) {
        const int32_t *row = send_ranks + (ptrdiff_t)t * slots;
        for (int32_t k = 0; k < slots; k++) {
            if (row[k] < 0)
                continue;
            plan->answers[plan->answer_first[row[k]]++] = t * slots + k;
            if (is_first_naming(row, k))
                plan->rows[plan->row_first[row[k]]++] = t;
        }
    }
    memmove(plan->row_first + 1, plan->row_first, bytes - sizeof(int32_t));
    memmove(plan->answer_first + 1, plan->answer_first, bytes - sizeof(int32_t));
    plan->row_first[0] = 0;
    plan->answer_first[0] = 0;
    return TSR_OK;
}

void tsr_answer_plan_build(const tsr_answer_plan *plan)
{
    int32_t next = 0;
    for (int32_t source = 0; source < plan->ranks; source++) {
        plan->answer_first[source] = next;
        const ptrdiff_t begin = (ptrdiff_t)plan->row_first[source] * plan->slots;
        const ptrdiff_t end = (ptrdiff_t)plan->row_first[source + 1] * plan->slots;
        for (ptrdiff_t i = begin; i < end; i++)
            plan->answer_of[i] = plan->slot_ranks[i] == plan->rank ? next++ : -1;
    }
    plan->answer_first[plan->ranks] = next;
}
