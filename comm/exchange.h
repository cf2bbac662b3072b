/*
 * How rows travel: each row once to every rank that one of its slots names, and one answer row back
 * for every (row, slot).
 *
 *      rank 0                                   rank 1
 *      send_rows[t]  --- once per named rank --> arrived_rows[i], answer_of[i, k]
 *      send_ranks[t, k]                              |  (the caller computes)
 *      returned_rows[t, k] <-- one per (row, slot) - answers[answer_of[i, k]]
 *
 * An exchange is opened over a group (comm.h), whose rules hold here too. Several can be open, of
 * which one at a time travels:
 *
 *      begin(step)   dispatch  wait   return  wait      dispatch  wait   return  wait      begin ...
 *                    |----------- stage 0 --------|     |----------- stage 1 --------|
 *
 * Buffers belong to the exchange, which registers them once; every array below, counts included,
 * lies in its memory, so that on a GPU no host ever reads a count.
 */
#ifndef TSR_COMM_EXCHANGE_H
#define TSR_COMM_EXCHANGE_H

#include "comm/comm.h"
#include "runtime/base/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tsr_exchange tsr_exchange;

/* The dimensions of an exchange, the same on every rank. */
typedef struct tsr_exchange_shape {
    int32_t max_tokens;      /* most rows a rank sends at once, >= 1 */
    int32_t max_arrivals;    /* most rows that arrive at a rank at once, 1..size * max_tokens */
    int32_t slots;           /* K, ranks a row may name, >= 1 */
    size_t row_bytes;        /* of a sent row, a multiple of 16, <= 1 GiB */
    size_t return_row_bytes; /* of an answer row, likewise */
} tsr_exchange_shape;

/*
 * Addresses in the exchange's memory, fixed for its life, but for those of counts, which a dispatch may
 * change. With one rank what is sent is what has
 * arrived, and what is answered is what has returned: the same addresses.
 *
 * Rows arrive in order of (source rank, row). Those that name this rank are among them; one that
 * does not has no answer.
 */
typedef struct tsr_exchange_buffers {
    void *send_rows;              /* [max_tokens, row_bytes] written before dispatch */
    int32_t *send_ranks;          /* [max_tokens, slots] the rank of each slot, -1: none */
    const void *arrived_rows;     /* [arrived_capacity, row_bytes] */
    const int32_t *arrived_count; /* [1] */
    const int32_t *answer_of;     /* [arrived_capacity, slots] the number of an answer, each at most
                                     once; -1: not this rank's slot */
    const int32_t *answer_count;  /* [1] every number is below it; NULL where there are parts */
    void *answers;                /* [answer_capacity, return_row_bytes] by number, written before
                                     return; NULL where there are parts */
    void *const *answer_parts;    /* NULL, or [size] instead of answers: number n is row
                                     n % 2^answer_part_bits of part n >> answer_part_bits, which is
                                     where it returns to, maybe on another GPU */
    int32_t answer_part_bits;
    const void *returned_rows; /* [max_tokens, slots, return_row_bytes] read after return; rows of
                                  slots that name no rank are undefined */
    int32_t arrived_capacity;  /* max_arrivals */
    int32_t answer_capacity;   /* max_arrivals * slots */
} tsr_exchange_buffers;

/* Memory that a device computes in, where that is not the host's. `context` goes into every call;
 * errors are logged by whoever fails. */
typedef struct tsr_exchange_memory {
    void *context;
    tsr_status (*alloc)(void *context, size_t bytes, void **ret_memory);
    void (*release)(void *context, void *memory); /* NULL is allowed */
    /* Memory of the host that put reads. */
    tsr_status (*host_alloc)(void *context, size_t bytes, void **ret_memory);
    void (*host_release)(void *context, void *memory); /* NULL is allowed */
    /* In the order of the stream; `from` stays untouched until it has passed. */
    tsr_status (*put)(void *context, void *to, const void *from, size_t bytes, tsr_stream stream);
    bool is_cuda;        /* a GPU's, so that rows travel from GPU to GPU */
    bool may_share_card; /* is_cuda: with other ranks of the group */
    int32_t card;        /* is_cuda: which one, among those that are visible */
} tsr_exchange_memory;

/* Exchanges that the group opens from now on have their buffers there. Borrowed: outlives them. Not
 * collective. */
void tsr_exchange_use_memory(tsr_comm *comm, const tsr_exchange_memory *memory);

/* Whether several ranks may have their rows on GPUs: this build has NCCL, and so has this machine. */
bool tsr_exchange_reaches_cards(void);

/* Bytes that an exchange of this shape takes on each of so many ranks; the plan counts with it. */
uint64_t tsr_exchange_bytes(const tsr_exchange_shape *shape, int32_t ranks, bool on_gpus);

/*
 * Collective. Allocates and registers every buffer: `self` in a group of one, `nccl` between GPUs,
 * else the group's own exchange through host memory. Close before the comm.
 *
 * TSR_ERR_DEVICE  several ranks and the memory of a device, which no exchange here reaches
 * TSR_ERR_ARG (also when an index would not fit 31 bits), TSR_ERR_MEMORY, TSR_ERR_TIMEOUT,
 * TSR_ERR_PEER
 * TSR_ERR_MISMATCH  a peer gave another shape
 */
TSR_MUST_USE tsr_status tsr_exchange_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                          tsr_exchange **ret_exchange);

/* "self", "local", "mpi", "nccl". */
const char *tsr_exchange_name(const tsr_exchange *exchange);

tsr_exchange_buffers tsr_exchange_buffers_of(const tsr_exchange *exchange);

/*
 * Names the step that the next dispatches belong to; they are its stages 0, 1, 2 ..., and a return
 * has its dispatch's stage. Not collective, but peers compare step and stage when rows travel, and
 * messages show them. TSR_ERR_ARG, TSR_ERR_PEER
 */
TSR_MUST_USE tsr_status tsr_exchange_begin(tsr_exchange *exchange, uint64_t step,
                                           tsr_stream stream);

/*
 * No rank sends more than `most` rows in each of the next dispatches; the same on every rank.
 * Until this is called they are max_tokens. Not collective. TSR_ERR_ARG
 */
TSR_MUST_USE tsr_status tsr_exchange_expect(tsr_exchange *exchange, int32_t most);

/*
 * Collective. Starts sending the first `tokens` rows; ordered after what is on the stream. The
 * arrived_ and answer_ arrays hold once tsr_exchange_wait has returned (on a GPU: for work put on
 * the stream later).
 *
 * TSR_ERR_ARG (no step, more tokens than are expected, a rank beyond size), TSR_ERR_TIMEOUT,
 * TSR_ERR_PEER
 * TSR_ERR_CAPACITY  more rows than max_arrivals come to this rank
 * TSR_ERR_MISMATCH  a peer is at another step, stage or call
 */
TSR_MUST_USE tsr_status tsr_exchange_dispatch(tsr_exchange *exchange, int32_t tokens,
                                              tsr_stream stream);

/* Collective, after a dispatch, when all answers have been written: starts sending them back, where
 * they are not there yet. Errors as above. */
TSR_MUST_USE tsr_status tsr_exchange_return(tsr_exchange *exchange, tsr_stream stream);

/*
 * Answers that their reader takes as they come. A word of 32 bits that is all ones has not come: it is
 * waited for, read and made all ones again, before the next dispatch. No answer has such a word; as a
 * float32 it is a NaN that no arithmetic of a GPU makes.
 */
typedef struct tsr_exchange_coming {
    void *rows; /* [tokens, slots, return_row_bytes] as returned_rows, of the last dispatch */
    const int32_t *ended; /* [2] in the device's memory: nothing comes any more when one is not 0 */
} tsr_exchange_coming;

/* Instead of a return, between GPUs where no rank sends many rows. False: answers have to be returned;
 * the same on every rank. */
bool tsr_exchange_hand_over(tsr_exchange *exchange, tsr_exchange_coming *ret_coming);

/*
 * Finishes what the last dispatch or return started, within the deadline. Between starting and
 * waiting the caller may compute on anything but the exchange's buffers.
 */
TSR_MUST_USE tsr_status tsr_exchange_wait(tsr_exchange *exchange, tsr_stream stream);

/*
 * For whom this rank has waited since the exchange was opened: [size] nanoseconds from the start of
 * each wait until all that a rank had to send was here; between GPUs from when this one had sent
 * until it was told what comes, of dispatches alone. Waits for several overlap. NULL in a group of
 * one. What the array holds may be older by what the device is at.
 */
const int64_t *tsr_exchange_waited_ns(tsr_exchange *exchange);

/*
 * Never waits. TSR_OK while all is well, also when rows are under way; else TSR_ERR_PEER or what is
 * wrong with the exchange itself, and the group has ended. For a caller that waits for a device,
 * which cannot hear of it.
 */
TSR_MUST_USE tsr_status tsr_exchange_poll(tsr_exchange *exchange);

enum { TSR_EXCHANGE_TEXT_BYTES = 80 };

/* What it is at, for messages that say "the ...": "dispatch of step 7 stage 2", or its arrival,
 * return or end; "start of step 7"; behind it whom it waits for, where only the exchange knows. Cut
 * to `capacity`, >= 1; always ends in a zero byte. Returns the stage, or -1: it is at none. */
int32_t tsr_exchange_text(const tsr_exchange *exchange, size_t capacity, char *text);

/*
 * For measuring: the first `tokens` rows to every peer, by plain copies of the driver and with no
 * word about them; nobody is to read what arrives. TSR_ERR_ARG where the exchange is not nccl's.
 */
TSR_MUST_USE tsr_status tsr_exchange_copy_plainly(tsr_exchange *exchange, int32_t tokens,
                                                  tsr_stream stream);

/*
 * For measuring: the first `tokens` rows to every peer as packets that nobody counts, lists or
 * numbers, by so many CTAs for each peer, and theirs taken apart; the least that a dispatch or return
 * can take. Collective; what has arrived is then lost, and the exchange only good for closing.
 * TSR_ERR_ARG where the exchange is not nccl's, or so many rows are no packets.
 */
TSR_MUST_USE tsr_status tsr_exchange_bare_packets(tsr_exchange *exchange, int32_t tokens,
                                                  int32_t ctas, tsr_stream stream);

/*
 * For measuring: every arrived row as the answer to each of its slots, as far as an answer is long,
 * stored as who computes answers would; where `coming` is not NULL, which hand_over gave, this rank's
 * are then taken as who reads them would. TSR_ERR_ARG where the exchange is not nccl's, or answers
 * are longer than rows.
 */
TSR_MUST_USE tsr_status tsr_exchange_echo(tsr_exchange *exchange, const tsr_exchange_coming *coming,
                                          tsr_stream stream);

/* Most CTAs of a peer there. */
enum { TSR_EXCHANGE_BARE_CTAS = 16 };

/*
 * Before a stream goes that the exchange works on: waits, within the deadline, until the stream has
 * passed everything or the group has ended. What is then still on it ends without waiting for
 * peers, and the exchange is only good for closing.
 */
void tsr_exchange_drain(tsr_exchange *exchange, tsr_stream stream);

/* Closing what was started and not waited for aborts the group. NULL is allowed. */
void tsr_exchange_close(tsr_exchange *exchange);

#endif
