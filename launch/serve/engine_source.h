/*
 * The engine's end of the socket, on rank 0: the gateway's requests are the engine's source, its
 * tokens go back through the sink.
 *
 *   gateway --> | queue: taken from the socket, the engine has no room yet | --> engine
 *   gateway <-- | outputs of a step, sent before the next is planned |       <-- engine
 */
#ifndef TSR_LAUNCH_SERVE_ENGINE_SOURCE_H
#define TSR_LAUNCH_SERVE_ENGINE_SOURCE_H

#include "proto/plan.h"
#include "runtime/engine/engine.h"

typedef struct tsr_engine_source tsr_engine_source;

/* Takes a connected socket over and greets the gateway. TSR_ERR_MEMORY, TSR_ERR_INTERNAL, logged */
TSR_MUST_USE tsr_status tsr_engine_source_open(int fd, tsr_engine_source **ret_source);

/* While weights are read. That the gateway is gone is found out by the next question. */
void tsr_engine_source_loading(tsr_engine_source *source, uint64_t bytes, uint64_t total);

/* The engine begins; `info` is a JSON object about it. TSR_ERR_MEMORY, TSR_ERR_CAPACITY */
TSR_MUST_USE tsr_status tsr_engine_source_ready(tsr_engine_source *source, const tsr_plan *plan,
                                                const char *info);

/* Statuses: TSR_ERR_PEER, logged: the gateway is gone; TSR_ERR_MISMATCH, logged; TSR_ERR_MEMORY */
tsr_source tsr_engine_source_source(tsr_engine_source *source);
tsr_sink tsr_engine_source_sink(tsr_engine_source *source);

/* Sends what is left for as long as the gateway takes it. NULL is allowed. */
void tsr_engine_source_close(tsr_engine_source *source);

#endif
