/* Rows of tables of known fields, in words. For files that hold such a table and nothing else that
 * would need these names. */
#ifndef TSR_RUNTIME_BASE_FIELD_ROWS_H
#define TSR_RUNTIME_BASE_FIELD_ROWS_H

#include "runtime/base/known_fields.h"

#define READ(name)                                                                                 \
    {                                                                                              \
        name, TSR_FIELD_READ, NULL                                                                 \
    }
#define IGNORED(name)                                                                              \
    {                                                                                              \
        name, TSR_FIELD_IGNORED, NULL                                                              \
    }
#define NEUTRAL(name, words)                                                                       \
    {                                                                                              \
        name, TSR_FIELD_NEUTRAL, words                                                             \
    }
/* All rows of an array. */
#define TABLE(rows)                                                                                \
    {                                                                                              \
        rows, sizeof(rows) / sizeof((rows)[0])                                                     \
    }

#endif
