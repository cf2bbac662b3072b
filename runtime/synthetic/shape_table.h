/* Shapes as released, and two small ones: a row each. Private to this folder. */
#ifndef TSR_RUNTIME_SYNTHETIC_SHAPE_TABLE_H
#define TSR_RUNTIME_SYNTHETIC_SHAPE_TABLE_H

#include "runtime/base/model_facts.h"

#include <stdbool.h>

#include <stddef.h>

typedef struct tsr_synthetic_shape {
    const char *name;
    tsr_family family;
    int32_t hidden;
    int32_t layers;
    int32_t q_heads;
    int32_t kv_heads;
    int32_t head_dim;
    int32_t experts;
    int32_t top_k;
    int32_t expert_intermediate;
    int32_t dense_intermediate;
    int32_t dense_layers; /* the first ones */
    int32_t shared_experts;
    int32_t vocab;
    int32_t max_positions;
    bool qk_norm;
    double routed_scale;
    double rope_theta;
} tsr_synthetic_shape;

/* NULL when there is none. */
const tsr_synthetic_shape *tsr_synthetic_shape_find(const char *name);

/* As a reader of its config.json has them, but for what only config.json needs. */
void tsr_synthetic_facts(const tsr_synthetic_shape *shape, tsr_model_facts *ret_facts);

#endif
