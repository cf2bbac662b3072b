/* The calls of an MPI group, for comm_mpi.c's table; comm.h and comm_ops.h say what they do. */
#ifndef TSR_COMM_MPI_CALLS_H
#define TSR_COMM_MPI_CALLS_H

#include "comm/mpi_world.h"

/* A meeting with nothing behind it: every rank comes to the same call, or all learn who did not. */
tsr_status tsr_mpi_meet(tsr_mpi_world *w, tsr_call call);

tsr_status tsr_mpi_barrier(tsr_comm *comm);
tsr_status tsr_mpi_broadcast(tsr_comm *comm, int32_t root, void *data, size_t bytes);
tsr_status tsr_mpi_gather(tsr_comm *comm, int32_t root, const void *send, const size_t *bytes_of,
                          void *recv);
tsr_status tsr_mpi_exchange_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                 tsr_exchange **ret_exchange);
tsr_status tsr_mpi_dispatch(tsr_exchange *exchange, tsr_stream stream);
tsr_status tsr_mpi_return(tsr_exchange *exchange, tsr_stream stream);
tsr_status tsr_mpi_wait(tsr_exchange *exchange, tsr_stream stream);
void tsr_mpi_exchange_close(tsr_exchange *exchange);

#endif
