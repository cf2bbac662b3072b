/*
 * Where everything lies in an exchange between GPUs, and what ranks tell each other there. Plain C,
 * the same for the host, for kernels and for tests.
 *
 *   window   what peers write into, at the same offsets on every rank
 *      notices [2, R, R]          how many rows each source has for each target, and in which form
 *      sent [R]                   whose rows are all here, and how many answers they want
 *      returned [R]               whose answers are all here
 *      arrived_rows, slot_ranks, origins    as their sources placed them
 *      returned_rows              as those who answer placed them
 *      row_packets [2, R]         few rows of each source, as packets
 *      answer_packets             few answers, as packets, by slot
 *
 *   block    what nobody else touches: rows to send, answers, numbers, state
 *
 * A packet is 16 bytes, of which 12 are of the row and 4 the epoch, so that it needs no word when it
 * has come. A rank that sends few rows sends packets and gets its answers as packets. It also says
 * how many answers it wants of the target, so that the target can number them as they come.
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
    int32_t told;   /* rows and answers, and the forms of the source */
    uint32_t step;  /* its lower half */
    int32_t stage;
} tsr_nccl_notice;

/* As many tokens at most are few, if they have no more slots. */
enum { TSR_NCCL_MOST_FEW = 256, TSR_NCCL_MOST_FEW_SLOTS = 32 };

/*
 * What a notice tells: rows come as packets, answers are to come as packets, and how many rows. Of
 * packets also how many answers:
 *
 *      | 0 | 1 | answers packed |        rows         |
 *      | 0 | 0 |                ... rows              |
 *          | 1 |                | rows (9) | answers (20) |      as packets
 */
enum {
    TSR_NCCL_ROWS_PACKED = 1 << 30,
    TSR_NCCL_ANSWERS_PACKED = 1 << 29,
    TSR_NCCL_ROWS = TSR_NCCL_ANSWERS_PACKED - 1,
    TSR_NCCL_ANSWER_BITS = 20,
    TSR_NCCL_ANSWERS = (1 << TSR_NCCL_ANSWER_BITS) - 1,
};

/* Offsets in the window and in the block, and their sizes. */
typedef struct tsr_nccl_layout {
    uint64_t notices;        /* tsr_nccl_notice [2, ranks, ranks]: epoch % 2, source, target */
    uint64_t sent;           /* tsr_nccl_notice [ranks] */
    uint64_t returned;       /* tsr_nccl_notice [ranks] */
    uint64_t notices_end;    /* what is read when somebody asks where the device is */
    uint64_t arrived_rows;   /* [max_arrivals, row_bytes] */
    uint64_t slot_ranks;     /* int32 [max_arrivals, slots] as their senders wrote them */
    uint64_t origins;        /* int32 [max_arrivals, 2] row at its source, and the number of the
                                first answer it wants among those its source wants */
    uint64_t returned_rows;  /* [max_tokens, slots, return_row_bytes] */
    uint64_t row_packets;    /* [2, ranks, few_rows, packets_of_row]: epoch % 2, source */
    uint64_t answer_packets; /* [few_answers, slots, packets_of_answer] */
    uint64_t window_bytes;

    uint64_t send_rows;      /* [max_tokens, row_bytes] */
    uint64_t send_ranks;     /* int32 [max_tokens, slots] */
    uint64_t answers;        /* [max_arrivals, slots, return_row_bytes] */
    uint64_t answer_of;      /* int32 [max_arrivals, slots] */
    uint64_t answer_to;      /* int32 [max_arrivals, slots, 2] whom each answer goes to, with
                               TSR_NCCL_ANSWERS_PACKED beside it; where there: row * slots + slot */
    uint64_t listed;         /* int32 [ranks, max_tokens, 2] the rows that go to each target, as
                               origins */
    uint64_t listed_answers; /* int32 [ranks] how many answers they want */
    uint64_t arrived_count;  /* int32 */
    uint64_t answer_count;   /* int32 */
    uint64_t wanted;         /* int32 tsr_nccl_wanted: in which forms answers are */
    uint64_t waited;         /* uint64 [ranks] clocks that notices of each were waited for */
    uint64_t done;  /* uint32 [ranks + 2] CTAs that are so far: by target, of a dispatch's first
                       kernel, of answers */
    uint64_t bare;  /* uint32 [ranks, TSR_EXCHANGE_BARE_CTAS] epochs of packets that are nobody's */
    uint64_t peers; /* void * [ranks] their windows, as this rank reaches them */
    uint64_t state; /* tsr_nccl_state */
    uint64_t block_bytes;

    int32_t few_rows;          /* so many tokens travel as packets, */
    int32_t few_answers;       /* and of so many tokens the answers */
    int32_t packets_of_origin; /* of each slot of a row: its number and its place at its source */
    int32_t packets_of_row;    /* those, then the row */
    int32_t packets_of_answer;
} tsr_nccl_layout;

tsr_nccl_layout tsr_nccl_layout_of(const tsr_exchange_shape *shape, int32_t ranks);

/* Where the device is. Nothing is written when rows have arrived or answers returned: notices and
 * packets tell. */
typedef struct tsr_nccl_state {
    uint64_t step;
    int32_t stage;  /* of the last dispatch, or -1: of none in this step */
    uint32_t epoch; /* likewise; the first is 1, and none is 0 */
    int32_t phase;  /* tsr_exchange_phase */
    int32_t let_go; /* the host's word: wait for nobody any more */
    int32_t failed; /* a fault was found: nothing moves any more */
    int32_t unused;
} tsr_nccl_state;

typedef enum tsr_nccl_wanted {
    TSR_NCCL_WANTS_PACKETS = 1,
    TSR_NCCL_WANTS_ROWS = 2,
} tsr_nccl_wanted;

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
 * Whom the dispatch or return under way still waits for.
 *
 *   notices      from the beginning of a window to notices_end
 *   ret_missing  [ranks]
 *
 * Returns how many; 0 as well when nothing is under way.
 */
int32_t tsr_nccl_missing(const tsr_nccl_layout *layout, int32_t ranks, const unsigned char *notices,
                         const tsr_nccl_state *state, int32_t *ret_missing);

#endif
