/* One row per role; %d stands for the expert. */
#include "runtime/model/tensor_name.h"

#include <stdio.h>

static const char *const name_of_role[TSR_ROLE_COUNT] = {
    [TSR_ROLE_EMBED] = "model.embed_tokens",
    [TSR_ROLE_HEAD] = "lm_head",
    [TSR_ROLE_Q] = "self_attn.q_proj",
    [TSR_ROLE_K] = "self_attn.k_proj",
    [TSR_ROLE_V] = "self_attn.v_proj",
    [TSR_ROLE_O] = "self_attn.o_proj",
    [TSR_ROLE_ROUTER] = "mlp.gate",
    [TSR_ROLE_GATE] = "mlp.gate_proj",
    [TSR_ROLE_UP] = "mlp.up_proj",
    [TSR_ROLE_DOWN] = "mlp.down_proj",
    [TSR_ROLE_SHARED_GATE] = "mlp.shared_experts.gate_proj",
    [TSR_ROLE_SHARED_UP] = "mlp.shared_experts.up_proj",
    [TSR_ROLE_SHARED_DOWN] = "mlp.shared_experts.down_proj",
    [TSR_ROLE_EXPERT_GATE] = "gate_proj",
    [TSR_ROLE_EXPERT_UP] = "up_proj",
    [TSR_ROLE_EXPERT_DOWN] = "down_proj",
    [TSR_ROLE_FINAL_NORM] = "model.norm.weight",
    [TSR_ROLE_INPUT_NORM] = "input_layernorm.weight",
    [TSR_ROLE_POST_NORM] = "post_attention_layernorm.weight",
    [TSR_ROLE_Q_NORM] = "self_attn.q_norm.weight",
    [TSR_ROLE_K_NORM] = "self_attn.k_norm.weight",
    [TSR_ROLE_ROUTER_BIAS] = "mlp.gate.e_score_correction_bias",
    [TSR_ROLE_K_SCALE] = "self_attn.k_proj.k_scale",
    [TSR_ROLE_V_SCALE] = "self_attn.v_proj.v_scale",
};

void tsr_tensor_name(tsr_tensor_owner owner, const char *suffix,
                     char ret_name[TSR_TENSOR_NAME_BYTES])
{
    char layer[40] = "";
    char expert[40] = "";
    if (owner.layer >= 0)
        (void)snprintf(layer, sizeof(layer), "model.layers.%d.", owner.layer);
    if (owner.expert >= 0)
        (void)snprintf(expert, sizeof(expert), "mlp.experts.%d.", owner.expert);
    (void)snprintf(ret_name, TSR_TENSOR_NAME_BYTES, "%s%s%s%s%s", layer, expert,
                   name_of_role[owner.role], suffix[0] != '\0' ? "." : "", suffix);
}
