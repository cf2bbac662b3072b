/* generation_config.json: sampling defaults, and the ids that end an answer. */
#ifndef TSR_RUNTIME_CHECKPOINT_GENERATION_CONFIG_H
#define TSR_RUNTIME_CHECKPOINT_GENERATION_CONFIG_H

#include "runtime/base/model_facts.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/json_fields.h"

TSR_MUST_USE tsr_status tsr_generation_config_read(const tsr_fields *generation,
                                                   tsr_generation_defaults *ret_defaults);

/*
 * Adds the file's `eos_token_id`, one number or a list, to those of `facts` that it does not hold
 * yet. Used for generation_config.json first and config.json after it: an id of either ends an
 * answer.
 */
TSR_MUST_USE tsr_status tsr_eos_read(const tsr_fields *file, tsr_model_facts *facts);

#endif
