/*
 * Counting which experts a step reads, where that stands: in the rows that have arrived at a layer,
 * in device memory, until the next layer's arrive. So the step stops at every layer and its rows are
 * looked at, piece by piece.
 *
 *   device   arrived_rows  | x | ids | ... |   answer_of | slots |
 *                             v                   v
 *   host                  | piece of rows     | piece of answer_of |  --> which experts --> tally
 *
 * Private to this folder.
 */
#ifndef TSR_RUNTIME_MODEL_ROUTING_COUNT_H
#define TSR_RUNTIME_MODEL_ROUTING_COUNT_H

#include "runtime/model/model.h"

typedef struct tsr_routing_count {
    tsr_routing_tally *tally; /* what the next step is counted for; NULL: nobody asks */
    void *rows;               /* host memory of the device: a piece of rows, then of answer_of */
    int64_t met[TSR_MAX_EXPERTS]; /* rows for each expert, in one layer and round */
    tsr_watched *watched;         /* what all steps are looked at for; NULL: nobody asks */
    tsr_counted_rows *counted;    /* what rows are counted for all along; NULL: nobody asks */
    int64_t stage_began_ns;
} tsr_routing_count;

#endif
