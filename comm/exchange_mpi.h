/* The exchange that an MPI group brings, for comm_mpi.c's table; exchange.h says what it does. */
#ifndef TSR_COMM_EXCHANGE_MPI_H
#define TSR_COMM_EXCHANGE_MPI_H

#include "comm/exchange_ops.h"

/* Collective. TSR_ERR_MEMORY, TSR_ERR_TIMEOUT, TSR_ERR_PEER, TSR_ERR_MISMATCH */
TSR_MUST_USE tsr_status tsr_exchange_mpi_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                              tsr_exchange **ret_exchange);

#endif
