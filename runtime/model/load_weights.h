/*
 * The loader: reads what a rank holds, checks it and lays it out, a slice of time at a time, so
 * that all ranks can keep step while they load.
 */
#ifndef TSR_RUNTIME_MODEL_LOAD_WEIGHTS_H
#define TSR_RUNTIME_MODEL_LOAD_WEIGHTS_H

#include "comm/comm.h"
#include "kernels/device.h"
#include "proto/plan.h"
#include "runtime/base/status.h"
#include "runtime/base/stream.h"
#include "runtime/model/weights.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tsr_loader tsr_loader;

/* All pointers are borrowed; they outlive the loader. */
typedef struct tsr_loader_args {
    const tsr_plan *plan;
    tsr_device *device;
    tsr_weights *weights; /* opened; their views are filled */
    int32_t rank;
    int32_t deadline_ms; /* longest wait for a read, or for the device */
    tsr_comm *comm;      /* a refusal is said once in it, and ends it; NULL: alone */
    tsr_stream stream;   /* what puts the weights in order */
    size_t piece_bytes;  /* read at once; 0: TSR_LOAD_PIECE_BYTES, which the plan counts with */
    size_t share_bytes;  /* read and laid out by one of several threads; 0: TSR_LOAD_SHARE_BYTES */
} tsr_loader_args;

/*
 * Takes the ring and starts reading.
 *
 * TSR_ERR_CHECKPOINT, logged  the plan contradicts itself
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_loader_open(const tsr_loader_args *args, tsr_loader **ret_loader);

/*
 * Loads until everything is there or the clock (tsr_clock_ms) has passed `until_ms`.
 *
 * TSR_ERR_CHECKPOINT, logged with file and tensor  a short file, a NaN, an impossible scale
 * TSR_ERR_TIMEOUT, logged with file and tensor     the disk, or the device, does not answer
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_loader_run(tsr_loader *loader, int64_t until_ms, bool *ret_done);

/* Bytes of tensors laid out so far, and of all together. */
uint64_t tsr_loader_bytes(const tsr_loader *loader);
uint64_t tsr_loader_total(const tsr_loader *loader);

/* NULL is allowed. Where a read is stuck, what the reading thread may still touch is left behind
 * (read_ahead.h). */
void tsr_loader_close(tsr_loader *loader);

#endif
