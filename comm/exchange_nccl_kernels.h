/*
 * What an exchange between GPUs puts on a stream. Every call is a launch or two, the same ones for
 * the same sizes, so that a step can be recorded; none waits, none reads anything back.
 *
 *                 this rank                                a peer
 *   dispatch      list the rows of each target
 *                 notices: how many ----------------------> notices
 *                 wait for everybody's notices: where my rows go, and that the target is ready
 *                 rows, where answers go ----------------> arrived_rows, answer_of [first ..]
 *                 sent -----------------------------------> sent
 *   arrive        wait for everybody's sent; count
 *   (whoever computes an answer stores it -----------------> returned_rows [row, slot])
 *   return        returned -------------------------------> returned
 *                 wait for everybody's
 *
 * Rows and answers lie where they belong as soon as they are here: nothing is copied twice, and what
 * moves is what is there. Few rows, of every rank, need neither the first wait nor any word: one kernel
 * sends them as packets and takes apart those that come (exchange_nccl_packets.cuh). Arrive has
 * nothing left to do then, nor has return, where who reads answers takes them as they come.
 *
 * A kernel that waits has no more CTAs than a GPU holds at once, and leaves when the host lets go, or
 * when a fault was found.
 */
#ifndef TSR_COMM_EXCHANGE_NCCL_KERNELS_H
#define TSR_COMM_EXCHANGE_NCCL_KERNELS_H

#include "comm/exchange_nccl_layout.h"
#include "runtime/base/status.h"
#include "runtime/base/stream.h"

#include <stdbool.h>
#include <stdint.h>

/* Ranks whose GPUs reach each other's memory are fewer. */
enum { TSR_NCCL_MOST_RANKS = 128 };

/* What every kernel is given. */
typedef struct tsr_nccl_work {
    tsr_nccl_layout at;
    unsigned char *peer[TSR_NCCL_MOST_RANKS]; /* each one's window, as this rank reaches it */
    unsigned char *window;                    /* this rank's */
    unsigned char *block;
    tsr_nccl_fault *fault; /* of the host, as the device sees it */
    uint64_t row_bytes;
    uint64_t return_row_bytes;
    int32_t rank;
    int32_t ranks;
    int32_t slots;
    int32_t max_tokens;
    int32_t max_arrivals;
    int32_t alone; /* no other rank computes on this rank's GPU */
} tsr_nccl_work;

/* Writes where this rank reaches each peer's window to the block's peers. `handle` is NCCL's. */
TSR_MUST_USE tsr_status tsr_nccl_find_peers(const tsr_nccl_work *work, void *handle,
                                            tsr_stream stream);

/* Whether rows go as packets, of which no rank has more than `most`. */
static inline bool tsr_nccl_is_few(const tsr_nccl_work *work, int32_t most)
{
    return most <= work->at.few_rows;
}

TSR_MUST_USE tsr_status tsr_nccl_begin(const tsr_nccl_work *work, uint64_t step, tsr_stream stream);
/* No rank has more than `most` tokens, which all give alike. */
TSR_MUST_USE tsr_status tsr_nccl_dispatch(const tsr_nccl_work *work, int32_t tokens, int32_t most,
                                          tsr_stream stream);
/* `most`, `tokens` are the dispatch's. */
TSR_MUST_USE tsr_status tsr_nccl_arrive(const tsr_nccl_work *work, int32_t most, tsr_stream stream);
/* Nothing but packets there and back: each CTA serves one peer, `ctas` of them each. What is sent
 * is what dispatch would send to a peer that is named by all rows, and it is read by nobody. */
TSR_MUST_USE tsr_status tsr_nccl_bare_packets(const tsr_nccl_work *work, int32_t tokens,
                                              int32_t ctas, tsr_stream stream);
TSR_MUST_USE tsr_status tsr_nccl_return(const tsr_nccl_work *work, int32_t tokens, int32_t most,
                                        tsr_stream stream);
/* What dispatch and return of few rows put on the stream. */
TSR_MUST_USE tsr_status tsr_nccl_dispatch_few(const tsr_nccl_work *work, int32_t tokens,
                                              int32_t most, tsr_stream stream);
TSR_MUST_USE tsr_status tsr_nccl_take(const tsr_nccl_work *work, int32_t tokens, tsr_stream stream);
/* Every arrived row is the answer to each of its slots that is to be answered here: the first
 * return_row_bytes of it. */
TSR_MUST_USE tsr_status tsr_nccl_echo(const tsr_nccl_work *work, tsr_stream stream);
/* The same of few rows, and instead of a return: takes answers as who reads them would. */
TSR_MUST_USE tsr_status tsr_nccl_echo_and_take(const tsr_nccl_work *work, int32_t tokens,
                                               int32_t most, tsr_stream stream);

#endif
