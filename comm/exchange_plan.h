/*
 * Who gets which row: pure arithmetic on counts and indices, shared by the host backends.
 *
 *   send_ranks [T, K]          the sending side                the arriving side at rank 1
 *     row 0:  1  1 -1            rank 0: rows 2                  from rank 0: rows 0 2
 *     row 1: -1  0  3    --->    rank 1: rows 0 2         --->     answer_of  row 0: 0 1 -
 *     row 2:  0  1  1            rank 3: rows 1                               row 2: - 2 3
 *
 * A row goes once to each rank it names. Answers come one per (row, slot), in the order of (source
 * rank, row, slot), so that what goes back to one rank lies together on both sides.
 */
#ifndef TSR_COMM_EXCHANGE_PLAN_H
#define TSR_COMM_EXCHANGE_PLAN_H

#include "runtime/base/status.h"

#include <stdint.h>

/* The sending side. The arrays are the caller's; [T, K] is what build was called with. */
typedef struct tsr_send_plan {
    int32_t *row_first;    /* [ranks + 1] rows of rank r: rows[row_first[r] .. row_first[r + 1]) */
    int32_t *rows;         /* [T * min(K, ranks)] ascending for each rank */
    int32_t *answer_first; /* [ranks + 1] answers of rank r, likewise */
    int32_t *answers;      /* [T * K] the slot, row * K + k, that each answer is for */
} tsr_send_plan;

/*
 *   send_ranks  [tokens, slots] -1: none
 *
 * TSR_ERR_ARG, logged with the row and slot: a rank outside -1 .. ranks - 1. tokens * slots fits
 * 31 bits.
 */
TSR_MUST_USE tsr_status tsr_send_plan_build(int32_t ranks, int32_t tokens, int32_t slots,
                                            const int32_t *send_ranks, tsr_send_plan *plan);

/* Logs the row and slot that name a rank outside the group. TSR_ERR_ARG */
TSR_MUST_USE tsr_status tsr_send_plan_refuse(int32_t row, int32_t slot, int32_t rank,
                                             int32_t ranks);

/* The arriving side. */
typedef struct tsr_answer_plan {
    int32_t *answer_of;        /* [rows, slots] out: index of the answer; -1: another rank's slot */
    int32_t *answer_first;     /* [ranks + 1] out: the answers that go to each source */
    const int32_t *row_first;  /* [ranks + 1] the arrived rows of each source */
    const int32_t *slot_ranks; /* [rows, slots] as their senders wrote them */
    int32_t rank;              /* this one */
    int32_t ranks;
    int32_t slots;
} tsr_answer_plan;

/* Numbers the answers this rank will give. */
void tsr_answer_plan_build(const tsr_answer_plan *plan);

#endif
