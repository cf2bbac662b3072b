/*
 * JSON Schema, as parts of a program: what every text of the program satisfies, where nothing in the
 * schema is passed over.
 *
 *   any        type (one or several), enum, const, anyOf, oneOf (as anyOf), allOf of one, $ref into the
 *              schema itself; true, false, {}
 *   object     properties in the order in which they stand, required, additionalProperties (behind
 *              them, and only where it is given, or where properties are not)
 *   array      items, prefixItems, minItems, maxItems
 *   string     minLength, maxLength, or pattern, or format (date, time, date-time, uuid, ipv4, email)
 *   number     minimum, maximum, exclusiveMinimum, exclusiveMaximum; those of numbers that need not be
 *              whole have to be whole themselves
 *
 * A schema without a type has the one that its keywords speak of. What only tells (title, default
 * ...) is passed over; any other keyword is refused by name and place.
 */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_SCHEMA_H
#define TSR_RUNTIME_TEXT_GRAMMAR_SCHEMA_H

#include "runtime/text/grammar/json_parts.h"

/* A value that satisfies the schema; why there is none becomes the program's refusal. */
int32_t tsr_schema_value(tsr_json_parts *parts, const json_t *schema, int32_t next);

#endif
