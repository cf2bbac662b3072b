/*
 * The modules a model must have, from its facts alone: every linear and vector, in plan order (by
 * layer, role, expert), with shape and canonical name.
 */
#ifndef TSR_RUNTIME_PLAN_MODULES_H
#define TSR_RUNTIME_PLAN_MODULES_H

#include "proto/plan.h"

enum { TSR_MODULE_NAME_BYTES = 128 };

/* "model.layers.3.mlp.experts.7.gate_proj" */
void tsr_module_name(const tsr_linear_plan *linear, char ret_name[TSR_MODULE_NAME_BYTES]);

/* "model.layers.3.self_attn.q_norm.weight" */
void tsr_vector_name(const tsr_vector_plan *vector, char ret_name[TSR_MODULE_NAME_BYTES]);

/* True for the linears that have a bias in this model. */
bool tsr_module_has_bias(const tsr_model_facts *model, tsr_role role);

/* True for the scales that stored keys and values are multiplied by. */
bool tsr_role_is_kv_scale(tsr_role role);

/*
 * All linears with layer, role, expert and shape set, and no tensor yet; the caller frees
 * *ret_linears. TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_modules_list(const tsr_model_facts *model,
                                         tsr_linear_plan **ret_linears, int32_t *ret_count);

/* All vectors, KV scales included; the caller frees *ret_vectors. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_vectors_list(const tsr_model_facts *model,
                                         tsr_vector_plan **ret_vectors, int32_t *ret_count);

#endif
