/* The exchange between GPUs: exchange.h says what it does. */
#ifndef TSR_COMM_EXCHANGE_NCCL_H
#define TSR_COMM_EXCHANGE_NCCL_H

#include "comm/exchange_ops.h"

/* Bytes of device memory that it takes on each of so many ranks, in every build. */
uint64_t tsr_exchange_nccl_bytes(const tsr_exchange_shape *shape, int32_t ranks);

/*
 * Collective. In comm->memory, which is there and CUDA's, and in memory of NCCL's.
 *
 * TSR_ERR_DEVICE  this build has no NCCL, the machine none or another one, a GPU is not reached
 * TSR_ERR_MEMORY, TSR_ERR_MISMATCH, TSR_ERR_TIMEOUT, TSR_ERR_PEER
 */
TSR_MUST_USE tsr_status tsr_exchange_nccl_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                               tsr_exchange **ret_exchange);

#endif
