/* Numbers between two bounds, as parts of a program. */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_NUMBER_RANGE_H
#define TSR_RUNTIME_TEXT_GRAMMAR_NUMBER_RANGE_H

#include "runtime/text/grammar/json_parts.h"

/* No bound is further from 0. */
#define TSR_NUMBER_MOST INT64_C(999999999999999)

typedef struct tsr_number_range {
    int64_t least;
    int64_t most;
    bool above; /* least itself is left out */
    bool below;
} tsr_number_range;

/* Whole numbers. */
int32_t tsr_integer_within(tsr_json_parts *parts, const tsr_number_range *range, int32_t next);

/* Numbers with up to 16 digits behind the point, and without an exponent. */
int32_t tsr_number_within(tsr_json_parts *parts, const tsr_number_range *range, int32_t next);

#endif
