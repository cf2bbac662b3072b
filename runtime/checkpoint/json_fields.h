/*
 * Fields of a JSON object, read under a rule: its spellings, its range, what it is when left out.
 * What breaks the rule is added to the problems with file and field. null counts as left out.
 */
#ifndef TSR_RUNTIME_CHECKPOINT_JSON_FIELDS_H
#define TSR_RUNTIME_CHECKPOINT_JSON_FIELDS_H

#include "runtime/base/problems.h"
#include "runtime/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct tsr_fields {
    const json_t *object;
    const char *file; /* for messages */
    tsr_problems *problems;
} tsr_fields;

/* A field is a name, or a path: "rope_parameters.rope_theta". */
typedef struct tsr_int_rule {
    const char *name;
    const char *other; /* a second spelling, or NULL */
    int32_t smallest, largest;
    bool required;
    int32_t otherwise; /* when left out and not required */
} tsr_int_rule;

typedef struct tsr_number_rule {
    const char *name;
    const char *other;
    double above, largest; /* above < number <= largest */
    bool required;
    double otherwise;
} tsr_number_rule;

/* The value of a field, or NULL when it is left out. */
const json_t *tsr_fields_get(const tsr_fields *fields, const char *name);

/*
 * The value under either spelling (`other` may be NULL); *ret_value is NULL when left out.
 * Both with different values is an error.
 */
TSR_MUST_USE tsr_status tsr_fields_find(const tsr_fields *fields, const char *name,
                                        const char *other, const json_t **ret_value);

TSR_MUST_USE tsr_status tsr_fields_int(const tsr_fields *fields, const tsr_int_rule *rule,
                                       int32_t *ret_value);

TSR_MUST_USE tsr_status tsr_fields_number(const tsr_fields *fields, const tsr_number_rule *rule,
                                          double *ret_value);

TSR_MUST_USE tsr_status tsr_fields_bool(const tsr_fields *fields, const char *name, bool otherwise,
                                        bool *ret_value);

/* *ret_text is NULL when left out; it lives as long as the JSON. */
TSR_MUST_USE tsr_status tsr_fields_text(const tsr_fields *fields, const char *name,
                                        const char **ret_text);

/* Adds "FILE: NAME: TEXT" as an error; always TSR_ERR_CHECKPOINT. */
__attribute__((format(printf, 3, 4))) tsr_status
tsr_fields_refuse(const tsr_fields *fields, const char *name, const char *format, ...);

#endif
