/*
 * What a checkpoint declares about precision, from two files that should say the same.
 *
 *     hf_quant_config.json                 config.json
 *     { "quantization": {                  { "quantization_config": {
 *         "quant_algo",                        "quant_method", "quant_algo",
 *         "kv_cache_quant_algo",               "kv_cache_scheme",
 *         "exclude_modules",                   "ignore", "config_groups",
 *         "quantized_layers" } }               "quantized_layers" } }
 *
 * Either spelling of a member is read in either file, flat or below "quantization". Where both
 * files declare, hf_quant_config.json is used and differences are warnings.
 */
#ifndef TSR_RUNTIME_CHECKPOINT_QUANT_CONFIG_H
#define TSR_RUNTIME_CHECKPOINT_QUANT_CONFIG_H

#include "runtime/base/arena.h"
#include "runtime/checkpoint/checkpoint.h"

#include <jansson.h>

/*
 *   config    config.json
 *   hf_quant  hf_quant_config.json, or NULL when there is no such file
 *   memory    where names and rows are put
 *
 * TSR_ERR_CHECKPOINT  an error was added; *ret_declared is not written
 */
TSR_MUST_USE tsr_status tsr_quant_config_read(const json_t *config, const json_t *hf_quant,
                                              tsr_arena *memory, tsr_problems *problems,
                                              tsr_declarations *ret_declared);

#endif
