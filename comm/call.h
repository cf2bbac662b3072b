/*
 * What a rank says it is doing when it meets the others: compared with what they say, and shown in
 * messages. It crosses the wire as it lies in memory, so it has no padding.
 */
#ifndef TSR_COMM_CALL_H
#define TSR_COMM_CALL_H

#include "comm/exchange_ops.h"

#include <stdbool.h>

typedef enum tsr_call_kind {
    TSR_CALL_JOIN,
    TSR_CALL_LEAVE,
    TSR_CALL_BARRIER,
    TSR_CALL_BROADCAST,
    TSR_CALL_GATHER,
    TSR_CALL_EXCHANGE_OPEN,
    TSR_CALL_DISPATCH,
    TSR_CALL_RETURN,
} tsr_call_kind;

/* What a kind does not use is zero. */
typedef struct tsr_call {
    int32_t kind;
    int32_t root;         /* broadcast, gather */
    uint64_t bytes;       /* broadcast; gather: of all ranks */
    uint64_t step;        /* dispatch, return */
    int32_t stage;        /* dispatch, return */
    int32_t exchange;     /* number of the exchange */
    int32_t max_tokens;   /* open: the shape */
    int32_t max_arrivals; /* open: the shape */
    int32_t slots;        /* open: the shape */
    int32_t unused;
    uint64_t row_bytes;        /* open: the shape */
    uint64_t return_row_bytes; /* open: the shape */
} tsr_call;

tsr_call tsr_call_of_open(const tsr_exchange *exchange);

/* Of a dispatch or return of the exchange as it stands. */
tsr_call tsr_call_of_exchange(const tsr_exchange *exchange, tsr_call_kind kind);

enum { TSR_CALL_TEXT_BYTES = 192 };

/* "dispatch of step 7 stage 2"; always ends in a zero byte. */
void tsr_call_text(const tsr_call *call, char text[TSR_CALL_TEXT_BYTES]);

bool tsr_call_equal(const tsr_call *a, const tsr_call *b);

/* Logs that `peer` is at another call than `mine`; both are named. TSR_ERR_MISMATCH. */
TSR_MUST_USE tsr_status tsr_call_mismatch(const tsr_call *mine, int32_t peer,
                                          const tsr_call *theirs);

/* "1, 3", cut short where it is longer than `capacity`. */
void tsr_rank_list_text(const int32_t *ranks, int32_t count, size_t capacity, char *ret_text);

/* Logs that the `count` ranks in `missing` did not come within the deadline. TSR_ERR_TIMEOUT. */
TSR_MUST_USE tsr_status tsr_call_timeout(const tsr_call *mine, int32_t deadline_ms,
                                         const int32_t *missing, int32_t count);

#endif
