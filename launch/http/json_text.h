/* JSON written piece by piece. What is added after memory has run out is dropped, and the status says
 * so: it is looked at once, in the end. */
#ifndef TSR_LAUNCH_HTTP_JSON_TEXT_H
#define TSR_LAUNCH_HTTP_JSON_TEXT_H

#include "runtime/base/status.h"
#include "runtime/base/text_buffer.h"

#include <jansson.h>

/* Zero-initialise; close the text. */
typedef struct tsr_json_text {
    tsr_text text;
    tsr_status status;
} tsr_json_text;

/* JSON as it is. */
__attribute__((format(printf, 2, 3))) void tsr_json_add(tsr_json_text *json, const char *format,
                                                        ...);

/* A string; bytes that are no UTF-8 become U+FFFD. */
void tsr_json_add_string(tsr_json_text *json, const char *bytes, size_t count);

/* A string, or null. */
void tsr_json_add_word(tsr_json_text *json, const char *word);

/* A value, as Python's json.dumps has it but for spaces. */
void tsr_json_add_value(tsr_json_text *json, const json_t *value);

#endif
