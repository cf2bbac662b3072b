/* What may stand in the JSON files of a checkpoint, one table for each place. Private to this
 * folder. */
#ifndef TSR_RUNTIME_CHECKPOINT_FILE_FIELDS_H
#define TSR_RUNTIME_CHECKPOINT_FILE_FIELDS_H

#include "runtime/base/known_fields.h"
#include "runtime/checkpoint/json_fields.h"

extern const tsr_field_table tsr_fields_of_config;          /* config.json, of all families */
extern const tsr_field_table tsr_fields_of_rope;            /* its rope_parameters */
extern const tsr_field_table tsr_fields_of_generation;      /* generation_config.json */
extern const tsr_field_table tsr_fields_of_quantization;    /* either form of declaration */
extern const tsr_field_table tsr_fields_of_quantized_layer; /* a row of quantized_layers */

/*
 * Judges every field of an object: what is not served is an error, what is unknown a warning.
 * `more` is a second table, or NULL.
 */
TSR_MUST_USE tsr_status tsr_file_fields_check(const tsr_fields *fields,
                                              const tsr_field_table *table,
                                              const tsr_field_table *more);

#endif
