/* Numbers of the config.json files that the models were released with. */
#include "runtime/synthetic/shape_table.h"

#include "runtime/synthetic/synthetic.h"

#include <string.h>

#define QWEN3                                                                                      \
    .family = TSR_FAMILY_QWEN3_MOE, .head_dim = 128, .kv_heads = 4, .experts = 128, .top_k = 8,    \
    .vocab = 151936, .max_positions = 40960, .qk_norm = true, .rope_theta = 1e6
#define GLM4                                                                                       \
    .family = TSR_FAMILY_GLM4_MOE, .head_dim = 128, .q_heads = 96, .kv_heads = 8, .top_k = 8,      \
    .shared_experts = 1, .vocab = 151552, .max_positions = 131072, .rope_theta = 1e6

static const tsr_synthetic_shape shapes[] = {
    {QWEN3, .name = "qwen3-30b-a3b", .hidden = 2048, .layers = 48, .q_heads = 32,
     .expert_intermediate = 768, .dense_intermediate = 6144},
    {QWEN3, .name = "qwen3-235b-a22b", .hidden = 4096, .layers = 94, .q_heads = 64,
     .expert_intermediate = 1536, .dense_intermediate = 12288},
    {.name = "qwen3-coder-480b-a35b",
     .family = TSR_FAMILY_QWEN3_MOE,
     .hidden = 6144,
     .layers = 62,
     .q_heads = 96,
     .kv_heads = 8,
     .head_dim = 128,
     .experts = 160,
     .top_k = 8,
     .expert_intermediate = 2560,
     .dense_intermediate = 8192,
     .vocab = 151936,
     .max_positions = 262144,
     .qk_norm = true,
     .rope_theta = 1e7},
    {GLM4, .name = "glm-4.5-air", .hidden = 4096, .layers = 46, .experts = 128,
     .expert_intermediate = 1408, .dense_intermediate = 10944, .dense_layers = 1,
     .routed_scale = 1.0},
    {GLM4, .name = "glm-4.5", .hidden = 5120, .layers = 92, .experts = 160, .qk_norm = true,
     .expert_intermediate = 1536, .dense_intermediate = 12288, .dense_layers = 3,
     .routed_scale = 2.5},
    {.name = "tiny-qwen3",
     .family = TSR_FAMILY_QWEN3_MOE,
     .hidden = 128,
     .layers = 4,
     .q_heads = 4,
     .kv_heads = 2,
     .head_dim = 32,
     .experts = 8,
     .top_k = 2,
     .expert_intermediate = 64,
     .dense_intermediate = 192,
     .vocab = 512,
     .max_positions = 512,
     .qk_norm = true,
     .rope_theta = 1e6},
    {.name = "tiny-glm4",
     .family = TSR_FAMILY_GLM4_MOE,
     .hidden = 128,
     .layers = 4,
     .q_heads = 4,
     .kv_heads = 2,
     .head_dim = 32,
     .experts = 8,
     .top_k = 2,
     .expert_intermediate = 64,
     .dense_intermediate = 256,
     .dense_layers = 1,
     .shared_experts = 1,
     .vocab = 512,
     .max_positions = 512,
     .routed_scale = 1.0,
     .rope_theta = 1e6},
};
enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

const char *tsr_synthetic_shape_name(size_t index)
{
    return index < SHAPES ? shapes[index].name : NULL;
}

const tsr_synthetic_shape *tsr_synthetic_shape_find(const char *name)
{
    for (size_t i = 0; i < SHAPES; i++) {
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    }
    return NULL;
}

void tsr_synthetic_facts(const tsr_synthetic_shape *shape, tsr_model_facts *ret_facts)
{
    const bool glm = shape->family == TSR_FAMILY_GLM4_MOE;

    *ret_facts = (tsr_model_facts){
        .family = shape->family,
        .router = glm ? TSR_ROUTER_SIGMOID : TSR_ROUTER_SOFTMAX,
        .layers = shape->layers,
        .hidden = shape->hidden,
        .vocab = shape->vocab,
        .q_heads = shape->q_heads,
        .kv_heads = shape->kv_heads,
        .head_dim = shape->head_dim,
        .dense_intermediate = shape->dense_intermediate,
        .expert_intermediate = shape->expert_intermediate,
        .shared_intermediate = shape->shared_experts * shape->expert_intermediate,
        .experts = shape->experts,
        .top_k = shape->top_k,
        .qk_norm = shape->qk_norm,
        .qkv_bias = glm,
    };
    for (int32_t l = 0; l < shape->layers; l++)
        ret_facts->sparse[l] = l >= shape->dense_layers;
}
