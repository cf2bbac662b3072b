/* Strings and numbers. */
#include "runtime/text/grammar/number_range.h"
#include "runtime/text/grammar/regex.h"
#include "runtime/text/grammar/schema_parts.h"

#include <math.h>
#include <string.h>

#define DAY                                                                                        \
    "[1-9]\\d{3}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|"        \
    "02-(0[1-9]|1\\d|2[0-8]))"
#define CLOCK "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define OCTET "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define LABEL "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
#define WORD  "[a-zA-Z0-9_+-]+"

static const struct {
    const char *name;
    const char *pattern;
} formats[] = {
    {"date", "^" DAY "$"},
    {"date-time", "^" DAY "T" CLOCK "$"},
    {"email", "^" WORD "(\\." WORD ")*@" LABEL "(\\." LABEL ")+$"},
    {"ipv4", "^(" OCTET "\\.){3}" OCTET "$"},
    {"time", "^" CLOCK "$"},
    {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
};

static const char *pattern_of_format(const char *name)
{
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]) && name != NULL; i++) {
        if (strcmp(formats[i].name, name) == 0)
            return formats[i].pattern;
    }
    return NULL;
}

int32_t tsr_schema_string(tsr_schema_reader *reader, const json_t *schema,
                          const tsr_schema_place *place, int32_t next)
{
    const int64_t least = tsr_schema_count(reader, schema, "minLength", place);
    const int64_t most = tsr_schema_count(reader, schema, "maxLength", place);
    const json_t *given = json_object_get(schema, "pattern");
    const json_t *format = json_object_get(schema, "format");
    const char *pattern = json_string_value(given);
    const bool sized = least > 0 || most >= 0;

    if ((given != NULL) + (format != NULL) + sized > 1)
        tsr_schema_refuse(reader, place,
                          "pattern, format and lengths beside each other are not served");
    if (given != NULL && pattern == NULL)
        tsr_schema_refuse(reader, place, "pattern: expected a text");
    if (format != NULL)
        pattern = pattern_of_format(json_string_value(format));
    if (format != NULL && pattern == NULL)
        tsr_schema_refuse(reader, place, "format: %.64s is not served",
                          json_is_string(format) ? json_string_value(format) : "what is no text");
    if (reader->parts->program->status != TSR_OK || (most >= 0 && least > most))
        return TSR_NODE_NEVER;
    if (sized)
        return tsr_json_sized_string(reader->parts, least > 0 ? least : 0, most, next);
    if (pattern == NULL)
        return tsr_json_string(reader->parts, next);
    const int32_t start = tsr_regex_string(reader->parts, pattern, next);
    if (reader->parts->program->status == TSR_ERR_ARG && given != NULL) {
        tsr_grammar_program *p = reader->parts->program;
        char reason[TSR_GRAMMAR_REFUSAL];
        memcpy(reason, p->refusal, sizeof(reason));
        p->status = TSR_OK; /* said again, with its place */
        tsr_schema_refuse(reader, place, "pattern: %s", reason);
    }
    return start;
}

/* Narrows the range by a bound; numbers that need not be whole only take whole ones. */
static void narrow(const tsr_schema_reader *r, const json_t *schema, const char *keyword,
                   const tsr_schema_place *place, tsr_number_range *range, bool whole)
{
    const json_t *given = json_object_get(schema, keyword);
    const double bound = json_number_value(given);
    const bool is_least = strstr(keyword, "inimum") != NULL;
    const bool excluded = strncmp(keyword, "exclusive", strlen("exclusive")) == 0;
    const double edge = is_least ? ceil(bound) : floor(bound);
    const double most = (double)TSR_NUMBER_MOST;

    if (given == NULL)
        return;
    if (!json_is_number(given) || !isfinite(bound)) {
        tsr_schema_refuse(r, place, "%s: expected a number", keyword);
    } else if (edge != bound && !whole) {
        tsr_schema_refuse(r, place,
                          "%s: of numbers that need not be whole only whole bounds are "
                          "served",
                          keyword);
    } else if (is_least ? edge > most : edge < -most) { /* beyond every number */
        range->least = TSR_NUMBER_MOST;
        range->most = -TSR_NUMBER_MOST;
    } else if (is_least && edge >= (double)range->least) {
        range->above =
            (excluded && edge == bound) || (range->above && edge == (double)range->least);
        range->least = (int64_t)edge;
    } else if (!is_least && edge <= (double)range->most) {
        range->below = (excluded && edge == bound) || (range->below && edge == (double)range->most);
        range->most = (int64_t)edge;
    }
}

int32_t tsr_schema_number(tsr_schema_reader *reader, const json_t *schema,
                          const tsr_schema_place *place, bool whole, int32_t next)
{
    static const char *const bounds[] = {"minimum", "exclusiveMinimum", "maximum",
                                         "exclusiveMaximum"};
    tsr_number_range range = {-TSR_NUMBER_MOST, TSR_NUMBER_MOST, false, false};
    bool bounded = false;

    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        bounded = bounded || json_object_get(schema, bounds[i]) != NULL;
        narrow(reader, schema, bounds[i], place, &range, whole);
    }
    if (reader->parts->program->status != TSR_OK)
        return TSR_NODE_NEVER;
    if (!bounded)
        return whole ? tsr_json_integer(reader->parts, next) : tsr_json_number(reader->parts, next);
    return whole ? tsr_integer_within(reader->parts, &range, next)
                 : tsr_number_within(reader->parts, &range, next);
}
