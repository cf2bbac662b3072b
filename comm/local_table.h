/*
 * The table around which ranks of one process meet: what a collective call of a local group is made
 * of, be it control (comm_local) or rows (exchange_local).
 *
 *      sit            meet                     copy            leave
 *   put call and    all seats taken?        read what peers   last one clears
 *   data       -->  calls equal?       -->  put down      --> the table
 *                                       readers + 1          readers - 1
 *
 * Nobody leaves before everybody has copied, so what a rank put down stays while peers read it. A
 * rank that gives up closes the door first (no reader starts once there is a cause) and then waits
 * for the readers inside, who wait for nobody.
 */
#ifndef TSR_COMM_LOCAL_TABLE_H
#define TSR_COMM_LOCAL_TABLE_H

#include "comm/call.h"
#include "comm/comm_ops.h"

/*
 * A table with one seat for each of `ranks` members, who all live as long as it does: until the
 * last of them has got up (tsr_local_table_close). TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_local_table_open(int32_t ranks, int32_t deadline_ms,
                                             const tsr_comm_ops *ops, tsr_comm **ret_members);

/* Puts down what this rank is doing and what peers may read, without waiting. TSR_ERR_PEER */
TSR_MUST_USE tsr_status tsr_local_sit(tsr_comm *comm, const tsr_call *call, const void *data);

/*
 * Waits for all to sit down. After success this rank may read what they put down, and must leave.
 *
 * TSR_ERR_TIMEOUT, TSR_ERR_PEER, TSR_ERR_MISMATCH
 */
TSR_MUST_USE tsr_status tsr_local_meet(tsr_comm *comm);

/* What a rank put down; between meet and leave. */
const void *tsr_local_data(const tsr_comm *comm, int32_t rank);

/* When a rank sat down; between meet and leave. */
int64_t tsr_local_sat_ns(const tsr_comm *comm, int32_t rank);

/* Waits for all to have copied. TSR_ERR_TIMEOUT, TSR_ERR_PEER */
TSR_MUST_USE tsr_status tsr_local_leave(tsr_comm *comm);

/* A meeting with nothing to copy. */
TSR_MUST_USE tsr_status tsr_local_pass(tsr_comm *comm, const tsr_call *call);

/* Waits for those still copying, who wait for nobody, so that what was put down may go. */
void tsr_local_await_readers(tsr_comm *comm);

/* The table's entries of a group. */
void tsr_local_abort(tsr_comm *comm, tsr_status cause);
tsr_status tsr_local_cause(tsr_comm *comm);
int32_t tsr_local_ender(const tsr_comm *comm);
void tsr_local_table_close(tsr_comm *comm);

#endif
