/*
 * What one model family is: a table of facts, and the one function in which it differs. A family is
 * a file family_NAME.c and a row in model_config.c. Private to this folder.
 */
#ifndef TSR_RUNTIME_CHECKPOINT_FAMILY_H
#define TSR_RUNTIME_CHECKPOINT_FAMILY_H

#include "runtime/base/known_fields.h"
#include "runtime/base/model_facts.h"
#include "runtime/checkpoint/json_fields.h"

typedef struct tsr_family_rules {
    const char *model_type;   /* in config.json */
    const char *architecture; /* in config.json */
    tsr_family family;
    tsr_router_kind router;
    tsr_int_rule experts;
    tsr_field_table fields; /* of config.json, that only this family has */
    bool norm_top_k;        /* the class's defaults, where config.json leaves a field out */
    double norm_eps;
    double rotary_factor;
    /* Fills the facts that only this family has, `sparse` among them. */
    tsr_status (*read)(const tsr_fields *config, tsr_model_facts *facts);
} tsr_family_rules;

extern const tsr_family_rules tsr_family_qwen3_moe;
extern const tsr_family_rules tsr_family_glm4_moe;

#endif
