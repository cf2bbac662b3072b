/*
 * `tessera inspect`: what a checkpoint holds, in what precision, and whether its tensors bear out
 * what it declares. Reads headers only.
 *
 * As JSON:
 *   { "folder", "proven": bool, "files", "tensors", "stored_bytes",
 *     "model": { "family", "layers", "hidden", "vocab", "q_heads", "kv_heads", "head_dim",
 *                "experts", "top_k", "expert_intermediate", "shared_intermediate",
 *                "dense_intermediate", "max_positions" },
 *     "declared": { "source", "quant_algo", "keys", "excludes", "kv_cache" },
 *     "formats": [ { "algo", "linears", "bytes" } ],
 *     "layers": [ { "layer", "sparse", "modules": { "q_proj": "FP8", ... } } ],
 *     "problems": [ { "severity", "text" } ] }
 * A module is "contradicted" where the tensors say otherwise, and "mixed" where a layer's experts
 * differ. A checkpoint that cannot be read has "folder", "proven": false and "problems" only.
 */
#ifndef TSR_LAUNCH_PLAN_INSPECT_COMMAND_H
#define TSR_LAUNCH_PLAN_INSPECT_COMMAND_H

#include "runtime/base/status.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct tsr_inspect_args {
    const char *folder;
    const char *html; /* a page of the same beside it; NULL: none */
    bool json;
    bool colour;
    FILE *out;
} tsr_inspect_args;

/*
 * TSR_ERR_CHECKPOINT  invalid, contradictory or not served; everything found was printed
 * TSR_ERR_ARG, TSR_ERR_OUTPUT, logged: the page
 */
TSR_MUST_USE tsr_status tsr_inspect(const tsr_inspect_args *args);

#endif
