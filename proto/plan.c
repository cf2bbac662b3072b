/* The plan as a plain struct: names of roles, and its end. */
#include "proto/plan.h"

#include <stdlib.h>

static const char *const role_names[TSR_ROLE_COUNT] = {
    [TSR_ROLE_EMBED] = "embed_tokens",
    [TSR_ROLE_HEAD] = "lm_head",
    [TSR_ROLE_Q] = "q_proj",
    [TSR_ROLE_K] = "k_proj",
    [TSR_ROLE_V] = "v_proj",
    [TSR_ROLE_O] = "o_proj",
    [TSR_ROLE_ROUTER] = "router",
    [TSR_ROLE_GATE] = "gate_proj",
    [TSR_ROLE_UP] = "up_proj",
    [TSR_ROLE_DOWN] = "down_proj",
    [TSR_ROLE_SHARED_GATE] = "shared_experts.gate_proj",
    [TSR_ROLE_SHARED_UP] = "shared_experts.up_proj",
    [TSR_ROLE_SHARED_DOWN] = "shared_experts.down_proj",
    [TSR_ROLE_EXPERT_GATE] = "experts.gate_proj",
    [TSR_ROLE_EXPERT_UP] = "experts.up_proj",
    [TSR_ROLE_EXPERT_DOWN] = "experts.down_proj",
    [TSR_ROLE_FINAL_NORM] = "norm",
    [TSR_ROLE_INPUT_NORM] = "input_layernorm",
    [TSR_ROLE_POST_NORM] = "post_attention_layernorm",
    [TSR_ROLE_Q_NORM] = "q_norm",
    [TSR_ROLE_K_NORM] = "k_norm",
    [TSR_ROLE_ROUTER_BIAS] = "router bias",
    [TSR_ROLE_K_SCALE] = "k_scale",
    [TSR_ROLE_V_SCALE] = "v_scale",
};

const char *tsr_role_name(tsr_role role)
{
    return (unsigned)role < TSR_ROLE_COUNT ? role_names[role] : "unknown role";
}

bool tsr_role_is_linear(tsr_role role)
{
    return (unsigned)role < TSR_ROLE_FINAL_NORM;
}

void tsr_plan_close(tsr_plan *plan)
{
    if (plan == NULL)
        return;
    for (int32_t i = 0; plan->files != NULL && i < plan->file_count; i++)
        free(plan->files[i]);
    free(plan->files);
    free(plan->marks);
    free(plan->folder);
    free(plan->linears);
    free(plan->vectors);
    free(plan->expert_rank);
    free(plan->budget);
    free(plan);
}
