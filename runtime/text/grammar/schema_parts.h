/* A schema that is being read. Private to schema.c, schema_keywords.c, schema_object.c, schema_array.c
 * and schema_scalar.c. */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_SCHEMA_PARTS_H
#define TSR_RUNTIME_TEXT_GRAMMAR_SCHEMA_PARTS_H

#include "runtime/text/grammar/schema.h"

/* Where in the schema: a chain from the innermost part to the outermost. */
typedef struct tsr_schema_place {
    const struct tsr_schema_place *up;
    const char *name;
    size_t index; /* where there is no name */
    int depth;
} tsr_schema_place;

/* A part that a $ref speaks of. */
typedef struct tsr_schema_ref {
    const json_t *schema;
    const char *name; /* the $ref */
    int32_t routine;
} tsr_schema_ref;

typedef struct tsr_schema_reader {
    tsr_json_parts *parts;
    const json_t *root;
    tsr_schema_ref *refs; /* [ref_count], of TSR_GRAMMAR_ROUTINES */
    size_t ref_count;
} tsr_schema_reader;

/* What a keyword speaks of; bits. */
typedef enum tsr_keyword_kind {
    TSR_KEYWORD_TELLS = 1,
    TSR_KEYWORD_TYPE = 2,
    TSR_KEYWORD_VALUES = 4, /* enum, const */
    TSR_KEYWORD_REF = 8,
    TSR_KEYWORD_ANY = 16, /* anyOf, oneOf */
    TSR_KEYWORD_ALL = 32,
    TSR_KEYWORD_OBJECT = 64,
    TSR_KEYWORD_ARRAY = 128,
    TSR_KEYWORD_STRING = 256,
    TSR_KEYWORD_NUMBER = 512,
} tsr_keyword_kind;

/* The kinds of all keywords of a schema, an object; those that are not served are refused. */
unsigned tsr_schema_keywords(const tsr_schema_reader *reader, const json_t *schema,
                             const tsr_schema_place *place);

/* Refuses what stands at a place. */
__attribute__((format(printf, 3, 4))) void tsr_schema_refuse(const tsr_schema_reader *reader,
                                                             const tsr_schema_place *place,
                                                             const char *format, ...);

/* A part of what stands at `up`, by name, or by number where that is NULL. */
tsr_schema_place tsr_schema_inside(const tsr_schema_place *up, const char *name, size_t index);

/* Around all parts of one schema: behind the last, what they refer to is written. */
void tsr_schema_begin(tsr_schema_reader *reader, tsr_json_parts *parts, const json_t *root);
void tsr_schema_end(tsr_schema_reader *reader);

/* Each goes on at `next` and returns where it begins. */
int32_t tsr_schema_part(tsr_schema_reader *reader, const json_t *schema,
                        const tsr_schema_place *place, int32_t next);
int32_t tsr_schema_object(tsr_schema_reader *reader, const json_t *schema,
                          const tsr_schema_place *place, int32_t next);
int32_t tsr_schema_array(tsr_schema_reader *reader, const json_t *schema,
                         const tsr_schema_place *place, int32_t next);
int32_t tsr_schema_string(tsr_schema_reader *reader, const json_t *schema,
                          const tsr_schema_place *place, int32_t next);
int32_t tsr_schema_number(tsr_schema_reader *reader, const json_t *schema,
                          const tsr_schema_place *place, bool whole, int32_t next);

/* A number from 0 of a keyword, -1 where it is not given; refused where it is none. */
int64_t tsr_schema_count(const tsr_schema_reader *reader, const json_t *schema, const char *keyword,
                         const tsr_schema_place *place);

#endif
