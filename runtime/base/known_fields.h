/*
 * What may stand in one place (a file, an object of it, the body of a request), as one table: a
 * field is read, without effect, or not served and legal only where it asks for nothing. What is in
 * no row is unknown, which is said and not refused, for files and clients bring fields of their own.
 */
#ifndef TSR_RUNTIME_BASE_KNOWN_FIELDS_H
#define TSR_RUNTIME_BASE_KNOWN_FIELDS_H

#include <jansson.h>
#include <stddef.h>

typedef enum tsr_field_kind {
    TSR_FIELD_READ,    /* whoever reads it checks it */
    TSR_FIELD_IGNORED, /* changes no answer */
    TSR_FIELD_NEUTRAL, /* not served: legal at null and at the values of its row */
} tsr_field_kind;

/*
 * `neutral` holds values that ask for nothing, divided by '|': a number, "true", "false", a word,
 * "empty" for "", [] and {}, "[word]" for a list of that word, "{word}" for {"type": word}.
 */
typedef struct tsr_known_field {
    const char *name;
    tsr_field_kind kind;
    const char *neutral; /* TSR_FIELD_NEUTRAL: may be NULL, then only null is legal */
} tsr_known_field;

typedef struct tsr_field_table {
    const tsr_known_field *rows; /* [count] */
    size_t count;
} tsr_field_table;

typedef enum tsr_field_verdict {
    TSR_FIELD_FINE,
    TSR_FIELD_UNKNOWN,    /* and not null */
    TSR_FIELD_NOT_SERVED, /* asks for something */
} tsr_field_verdict;

tsr_field_verdict tsr_field_judge(const tsr_field_table *table, const char *name,
                                  const json_t *value);

enum { TSR_SHOWN_BYTES = 96 };

/* A value or a name as messages show it: short, printable, in one line. */
const char *tsr_field_show(const json_t *value, char text[TSR_SHOWN_BYTES]);
const char *tsr_field_show_name(const char *name, char text[TSR_SHOWN_BYTES]);

#endif
