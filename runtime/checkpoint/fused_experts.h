/*
 * Experts of a layer in one tensor, as transformers 5 writes them where it does not keep the
 * original form:
 *
 *   model.layers.N.mlp.experts.gate_up_proj [E, 2 I, H]   expert e: I rows of gate, I rows of up
 *   model.layers.N.mlp.experts.down_proj    [E, H, I]     expert e: H rows
 *
 * What one expert has lies in one piece, so each becomes a tensor of its own over the same bytes.
 * Private to this folder.
 */
#ifndef TSR_RUNTIME_CHECKPOINT_FUSED_EXPERTS_H
#define TSR_RUNTIME_CHECKPOINT_FUSED_EXPERTS_H

#include "runtime/checkpoint/tensor_list.h"

/*
 * Replaces such tensors of a list whose names are canonical. Quantized ones, and those of another
 * shape, are refused by name.
 *
 * TSR_ERR_CHECKPOINT, TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_fused_experts_split(tsr_tensor_list *list, const tsr_model_facts *model,
                                                tsr_arena *memory, tsr_problems *problems);

#endif
