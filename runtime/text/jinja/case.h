/* Of letter case, what utf8proc does not have. */
#ifndef TSR_RUNTIME_TEXT_JINJA_CASE_H
#define TSR_RUNTIME_TEXT_JINJA_CASE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct tsr_jinja_special_case {
    int32_t code;
    int32_t upper[3]; /* up to the first zero */
    int32_t title[3];
} tsr_jinja_special_case;

/* NULL when the simple mapping holds. */
const tsr_jinja_special_case *tsr_jinja_special_case_of(int32_t code);

/* Counts as lower or upper case without being a letter of that category. */
bool tsr_jinja_is_other_lower(int32_t code);
bool tsr_jinja_is_other_upper(int32_t code);

#endif
