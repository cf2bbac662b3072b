/* Whether a value satisfies a JSON Schema, written from the definition of each keyword and knowing
 * nothing of grammars. What it does not know fails the test. */
#ifndef TSR_TESTS_TEXT_SCHEMA_CHECK_H
#define TSR_TESTS_TEXT_SCHEMA_CHECK_H

#include <jansson.h>
#include <stdbool.h>

/* `root` is where a $ref begins. */
bool schema_holds(const json_t *root, const json_t *schema, const json_t *value);

#endif
