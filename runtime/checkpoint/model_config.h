/* config.json, in the spellings of transformers 4 and 5: the shape of the model, or a refusal. */
#ifndef TSR_RUNTIME_CHECKPOINT_MODEL_CONFIG_H
#define TSR_RUNTIME_CHECKPOINT_MODEL_CONFIG_H

#include "runtime/base/model_facts.h"
#include "runtime/checkpoint/json_fields.h"

/*
 * Everything but `eos`, which generation_config.h reads. What cannot be served is refused by its
 * field.
 *
 * TSR_ERR_CHECKPOINT  an error was added; *ret_facts is not written
 */
TSR_MUST_USE tsr_status tsr_model_config_read(const tsr_fields *config, tsr_model_facts *ret_facts);

/* As config.json spells it: "qwen3_moe"; never NULL. */
const char *tsr_family_name(tsr_family family);

#endif
