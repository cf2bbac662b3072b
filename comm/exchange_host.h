/*
 * The memory of an exchange between several ranks whose rows lie in host memory, in one block: what
 * the caller sees, and what exchange_local and exchange_mpi keep beside it.
 */
#ifndef TSR_COMM_EXCHANGE_HOST_H
#define TSR_COMM_EXCHANGE_HOST_H

#include "comm/exchange_block.h"
#include "comm/exchange_ops.h"
#include "comm/exchange_plan.h"
#include "runtime/base/sizes.h"

/* Writable faces of the buffers, and the books of one exchange. First member of a host exchange. */
typedef struct tsr_host_exchange {
    tsr_exchange base; /* first member */
    tsr_exchange_block block;

    unsigned char *send_rows;
    int32_t *send_ranks;
    unsigned char *arrived_rows;
    int32_t *answer_of;
    unsigned char *answers;
    unsigned char *returned_rows;

    int32_t arrived_count;
    int32_t answer_count;

    tsr_send_plan plan;
    int32_t *row_count;    /* [ranks] rows that each source sends here */
    int32_t *row_first;    /* [ranks + 1] of the arrived rows */
    int32_t *answer_first; /* [ranks + 1] of the answers given here */
    int32_t *slot_ranks;   /* [arrived_capacity, slots] as the senders wrote them */
    int64_t *waited_ns;    /* [ranks] */

    unsigned char *staged_rows;    /* [max_tokens * min(slots, ranks), row_bytes] by rank */
    int32_t *staged_ranks;         /* [max_tokens * min(slots, ranks), slots] by rank */
    unsigned char *staged_answers; /* [max_tokens * slots, return_row_bytes] by rank */
} tsr_host_exchange;

/* What the table's entries are called with. */
static inline tsr_host_exchange *tsr_host_exchange_of(tsr_exchange *exchange)
{
    return (tsr_host_exchange *)(void *)exchange;
}

/* The size of the block. */
uint64_t tsr_host_exchange_bytes(const tsr_exchange_shape *shape, int32_t ranks);

/*
 * Fills in a new exchange of the group: the base, and the block with everything that points into
 * it. The staged areas are touched by exchange_mpi alone, so that they cost only address space
 * elsewhere.
 *
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_host_exchange_init(tsr_host_exchange *x, tsr_comm *comm,
                                               const tsr_exchange_ops *ops,
                                               const tsr_exchange_shape *shape);

/*
 * After row_count is known: where each source's rows will lie, into row_first.
 *
 * Errors are logged.
 * TSR_ERR_MISMATCH  a source announced more rows than the shape allows
 * TSR_ERR_CAPACITY  more arrive together than the shape allows
 */
TSR_MUST_USE tsr_status tsr_host_exchange_place(tsr_host_exchange *x);

/* A wait that began at began_ns has had all of a rank at came_ns. */
static inline void tsr_host_exchange_waited(tsr_host_exchange *x, int32_t rank, int64_t began_ns,
                                            int64_t came_ns)
{
    x->waited_ns[rank] += tsr_larger_64(came_ns - began_ns, 0);
}

/* After slot_ranks and rows have arrived: numbers the answers. */
void tsr_host_exchange_number(tsr_host_exchange *x);

/* The block; the struct is its owner's. */
void tsr_host_exchange_release(tsr_host_exchange *x);

#endif
