/*
 * `tessera plan`: whether a checkpoint fits, what each rank would hold, and how each module would
 * be computed there. Reads headers only; needs neither GPU nor MPI.
 *
 * As JSON:
 *   { "folder", "target", "memory_bytes", "fits": bool, "kv_format", "workspace_is_estimate": bool,
 *     "limits": { "max_model_len", "max_num_seqs", "max_batched_tokens", "exchange_tokens",
 *                 "kv_block_tokens", "kv_blocks", "logit_rows", "threads" },
 *     "ranks": [ { "rank", "weights_bytes", "kv_bytes", "workspace_bytes", "buffers_bytes",
 *                "loading_bytes" } ],
 *     "layers": [ { "layer", "modules": { "q_proj": { "algo", "weights", "activations", "path" },
 *                                         ... } } ],
 *     "problems": [ { "severity", "text" } ] }
 * A checkpoint that is refused has "folder", "fits": false and "problems" only.
 */
#ifndef TSR_LAUNCH_PLAN_PLAN_COMMAND_H
#define TSR_LAUNCH_PLAN_PLAN_COMMAND_H

#include "runtime/plan/plan_build.h"

#include <stdbool.h>
#include <stdio.h>

/*
 * TSR_ERR_CAPACITY    it does not fit; the plan was printed all the same
 * TSR_ERR_CHECKPOINT, TSR_ERR_ARG, TSR_ERR_DEVICE  with the problems printed
 */
TSR_MUST_USE tsr_status tsr_plan_show(const char *folder, const tsr_plan_request *request,
                                      bool json, bool colour, FILE *out);

#endif
