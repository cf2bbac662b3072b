/* What a tensor of the plan is called in the files, for messages. */
#ifndef TSR_RUNTIME_MODEL_TENSOR_NAME_H
#define TSR_RUNTIME_MODEL_TENSOR_NAME_H

#include "proto/plan.h"

#include <stddef.h>

enum { TSR_TENSOR_NAME_BYTES = 160 };

/* Whose tensor it is. */
typedef struct tsr_tensor_owner {
    int32_t layer;  /* -1: not of a layer */
    int32_t expert; /* -1: not a routed expert */
    tsr_role role;
} tsr_tensor_owner;

/*
 * "model.layers.3.mlp.experts.17.up_proj.weight_scale": `suffix` is "weight_scale". Vectors have no
 * suffix of their own: pass "".
 */
void tsr_tensor_name(tsr_tensor_owner owner, const char *suffix,
                     char ret_name[TSR_TENSOR_NAME_BYTES]);

#endif
