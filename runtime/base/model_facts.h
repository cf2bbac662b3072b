/*
 * The shape of a model, as plain numbers: what config.json said, with the defaults of its family
 * filled in. Shared by the checkpoint reader, the plan, its message and the forward pass.
 *
 * Letters used in shapes everywhere: T tokens, H hidden, V vocabulary, E experts, K experts per
 * token, I intermediate, D head_dim.
 */
#ifndef TSR_RUNTIME_BASE_MODEL_FACTS_H
#define TSR_RUNTIME_BASE_MODEL_FACTS_H

#include <stdbool.h>
#include <stdint.h>

enum { TSR_MAX_LAYERS = 512, TSR_MAX_EOS = 16, TSR_MAX_TOP_K = 64, TSR_MAX_EXPERTS = 4096 };

typedef enum tsr_family { TSR_FAMILY_QWEN3_MOE, TSR_FAMILY_GLM4_MOE, TSR_FAMILY_COUNT } tsr_family;

/* How router logits become K experts and their weights. */
typedef enum tsr_router_kind {
    TSR_ROUTER_SOFTMAX, /* softmax over all E, top K, optionally normalised */
    TSR_ROUTER_SIGMOID, /* sigmoid; chosen by score + bias in the best groups; weighted by score */
    TSR_ROUTER_KIND_COUNT
} tsr_router_kind;

typedef struct tsr_model_facts {
    tsr_family family;
    tsr_router_kind router;
    int32_t layers;              /* without MTP layers */
    int32_t mtp_layers;          /* behind the last one may stand so many, which are skipped */
    int32_t hidden;              /* H */
    int32_t vocab;               /* V, rows of the embedding */
    int32_t q_heads;             /* query heads */
    int32_t kv_heads;            /* key and value heads */
    int32_t head_dim;            /* D */
    int32_t rotary_dim;          /* the first dims of a head that rotate, even, <= D */
    int32_t dense_intermediate;  /* I of dense layers */
    int32_t expert_intermediate; /* I of one routed expert */
    int32_t shared_intermediate; /* I of the shared experts together, 0: none */
    int32_t experts;             /* E */
    int32_t top_k;               /* K */
    int32_t groups;              /* of experts; 1: no grouping */
    int32_t top_groups;          /* groups kept */
    int32_t max_positions;
    bool norm_top_k; /* weights of the K chosen sum to one */
    bool qk_norm;    /* RMSNorm of each query and key head before rotation */
    bool qkv_bias;
    bool tied_head;              /* lm_head is the embedding */
    bool sparse[TSR_MAX_LAYERS]; /* [layers] routed experts (true) or one dense MLP (false) */
    float routed_scale;          /* multiplies the routed weights after normalisation */
    float norm_eps;
    double rope_theta;
    int32_t eos[TSR_MAX_EOS];
    int32_t eos_count;
} tsr_model_facts;

#endif
