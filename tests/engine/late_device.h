/*
 * A device that computes by itself, as a GPU does, made of a CPU's and of patience: what is put on a
 * stream waits there until somebody asks whether a mark behind it has been passed.
 *
 *   host     launch 1    launch 2    land 1                 land 2
 *   stream   | 1 ...     | 1 ... 2 ...  '- computes 1       '- computes 2
 *
 * Whoever reads a result before it landed reads nothing, and whoever writes what a launched step
 * has yet to read spoils it. Two steps may be under way. An exchange over it runs in the order of
 * the stream too, on top of the group's own.
 *
 * One such device a thread: the exchange finds the one that its thread opened last.
 */
#ifndef TSR_TESTS_ENGINE_LATE_DEVICE_H
#define TSR_TESTS_ENGINE_LATE_DEVICE_H

#include "comm/exchange.h"
#include "kernels/device.h"

/* What else may happen when a stream is looked at. */
typedef enum late_order {
    LATE_AS_LATE_AS_CAN_BE, /* nothing on the other streams */
    LATE_OTHERS_FIRST,      /* everything on the other streams, first: streams have no order. For
                               one rank: what stands there may wait for ranks that are elsewhere */
    LATE_NEVER,             /* nothing any more, once a step is on a stream */
} late_order;

/* Over a CPU device, which it owns from then on. */
tsr_status late_device_open(tsr_device *cpu, late_order order, tsr_device **ret_device);

/* Steps that were launched, their marks set, while an earlier one was still to compute. */
int32_t late_device_ahead(const tsr_device *device);

/* Steps that were played from a recording. */
int32_t late_device_replays(const tsr_device *device);

/* An opener of exchanges: tsr_model_args.open_exchange. */
tsr_status late_exchange_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                              tsr_exchange **ret_exchange);

#endif
