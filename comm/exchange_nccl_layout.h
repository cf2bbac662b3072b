/*
 * Where everything lies in an exchange between GPUs, and what ranks tell each other there. Plain C,
 * the same for the host, for kernels and for tests.
 *
 *   window   what peers write into, at the same offsets on every rank
 *      notices [2, R, R]          how many rows each source has for each target
 *      sent [R]                   whose rows are all here
 *      returned [R]               whose answers are all here
 *      arrived_rows, answer_of    as their sources placed them
 *      returned_rows              as those who answer placed them
 *      coming_rows                the same of few rows: all ones where nothing has come
 *      row_packets [2, R]         few rows of each source, as packets
 *
 *   block    what nobody else touches: rows to send, lists, state
 *
 * Answers have no place of their own here: who computes one stores it where it is read, in the
 * window of the rank that asked. Each (source, row, slot) is a place that the source knows.
 *
 * Where no rank has many rows they go as packets, all of them to everybody, so that each has a
 * place that all know. A packet is 16 bytes, of which 12 are of the row and 4 the epoch: it needs no
 * word when it has come. Nor do answers then, whose words are none of them all ones.
 *
 * Whoever reads a notice knows its dispatch by the epoch, which every dispatch counts up; notices
 * of one dispatch and of the next lie apart, since a rank may still read the one while its peer is
 * at the other. Nobody can be two ahead: a dispatch waits for everybody's notices.
 */
#ifndef TSR_COMM_EXCHANGE_NCCL_LAYOUT_H
#define TSR_COMM_EXCHANGE_NCCL_LAYOUT_H

#include "comm/exchange.h"

#include <stdbool.h>
#include <stdint.h>

/* Written and read as one piece of 16 bytes. */
typedef struct tsr_nccl_notice {
    uint32_t epoch; /* of the dispatch; 0: none has come */
    int32_t told;   /* rows */
    uint32_t step;  /* its lower half */
    int32_t stage;
} tsr_nccl_notice;

/* As many tokens at most are few, if they have no more slots. */
enum { TSR_NCCL_MOST_FEW = 256, TSR_NCCL_MOST_FEW_SLOTS = 32 };

/* A word of an answer that has not come. */
#define TSR_NCCL_ABSENT 0xffffffffU

/* An answer goes to row `number % 2^24` of its source, whose rank is above. */
enum { TSR_NCCL_PART_BITS = 24, TSR_NCCL_PART_ROWS = 1 << TSR_NCCL_PART_BITS };

/* Offsets in the window and in the block, and their sizes. */
typedef struct tsr_nccl_layout {
    uint64_t notices;       /* tsr_nccl_notice [2, ranks, ranks]: epoch % 2, source, target */
    uint64_t sent;          /* tsr_nccl_notice [ranks] */
    uint64_t returned;      /* tsr_nccl_notice [ranks] */
    uint64_t notices_end;   /* what is read when somebody asks where the device is */
    uint64_t arrived_rows;  /* [max_arrivals, row_bytes] */
    uint64_t answer_of;     /* int32 [max_arrivals, slots] where each answer goes, or -1 */
    uint64_t returned_rows; /* [max_tokens, slots, return_row_bytes] */
    uint64_t coming_rows;   /* [few_rows, slots, return_row_bytes] directly behind them */
    uint64_t row_packets;   /* [2, ranks, few_rows, packets_of_row]: epoch % 2, source */
    uint64_t window_bytes;

    uint64_t send_rows;     /* [max_tokens, row_bytes] */
    uint64_t send_ranks;    /* int32 [max_tokens, slots] */
    uint64_t listed;        /* int32 [ranks, max_tokens] the rows that go to each target */
    uint64_t arrived_count; /* int32 */
    uint64_t waited;        /* uint64 [ranks] clocks that notices of each were waited for */
    uint64_t done;  /* uint32 [ranks + 1] CTAs that are so far: by target, of a dispatch's first
                       kernel */
    uint64_t bare;  /* uint32 [ranks, TSR_EXCHANGE_BARE_CTAS] epochs of packets that are nobody's */
    uint64_t peers; /* void * [ranks] their windows, as this rank reaches them */
    uint64_t parts; /* void * [ranks] likewise, where their answers return */
    uint64_t state; /* tsr_nccl_state */
    uint64_t block_bytes;

    int32_t few_rows;       /* so many tokens of each rank travel as packets */
    int32_t packets_of_row; /* one that says which slots, then the row */
} tsr_nccl_layout;

tsr_nccl_layout tsr_nccl_layout_of(const tsr_exchange_shape *shape, int32_t ranks);

/* Where the device is. Nothing is written when rows have arrived or answers returned: notices
 * tell. */
typedef struct tsr_nccl_state {
    uint64_t step;
    int32_t stage;  /* of the last dispatch, or -1: of none in this step */
    uint32_t epoch; /* likewise; the first is 1, and none is 0 */
    int32_t phase;  /* tsr_exchange_phase */
    int32_t let_go; /* the host's word: wait for nobody any more */
    int32_t failed; /* a fault was found: nothing moves any more; behind let_go */
    int32_t packed; /* rows of the last dispatch went as packets */
} tsr_nccl_state;

typedef enum tsr_nccl_fault_kind {
    TSR_NCCL_NO_FAULT,
    TSR_NCCL_RANK,     /* slot `slot` of row `row` names rank `peer` */
    TSR_NCCL_OVERFLOW, /* `row` rows come to this rank */
    TSR_NCCL_APART,    /* `peer` is at another step (`row`: its lower half) or stage (`slot`) */
} tsr_nccl_fault_kind;

/* What a kernel found wrong, the first one; in memory of the host. */
typedef struct tsr_nccl_fault {
    int32_t kind; /* tsr_nccl_fault_kind; written last */
    int32_t peer;
    int32_t row;
    int32_t slot;
    uint64_t step; /* where this rank was */
    int32_t stage;
    int32_t unused;
} tsr_nccl_fault;

/*
 * Whom the dispatch or return under way of `rank` still waits for, as far as notices tell: nothing
 * of answers to rows that went as packets.
 *
 *   notices      from the beginning of its window to notices_end
 *   ret_missing  [ranks]
 *
 * Returns how many; 0 as well when nothing is under way.
 */
int32_t tsr_nccl_missing(const tsr_nccl_layout *layout, int32_t ranks, int32_t rank,
                         const unsigned char *notices, const tsr_nccl_state *state,
                         int32_t *ret_missing);

#endif
