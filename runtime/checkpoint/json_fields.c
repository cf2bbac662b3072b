/* A rule is a struct of named fields, so that a range stands beside the name it is for. Of two
 * spellings of one field both may be given, and then they must agree. */
#include "runtime/checkpoint/json_fields.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 768, NAME_BYTES = 64 };

tsr_status tsr_fields_refuse(const tsr_fields *fields, const char *name, const char *format, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);

    tsr_problems_add(fields->problems, TSR_SEVERITY_ERROR, "%s: %s: %s", fields->file, name, text);
    return TSR_ERR_CHECKPOINT;
}

const json_t *tsr_fields_get(const tsr_fields *fields, const char *name)
{
    const json_t *value = fields->object;
    const char *dot = strchr(name, '.');

    for (; dot != NULL; name = dot + 1, dot = strchr(name, '.')) {
        char part[NAME_BYTES];
        (void)snprintf(part, sizeof(part), "%.*s", (int)(dot - name), name);
        value = json_object_get(value, part);
    }
    value = json_object_get(value, name);
    return json_is_null(value) ? NULL : value;
}

/* 1000000 and 1000000.0 are the same number, though not the same JSON. */
static bool same_value(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b) != 0;
}

tsr_status tsr_fields_find(const tsr_fields *fields, const char *name, const char *other,
                           const json_t **ret_value)
{
    const json_t *value = tsr_fields_get(fields, name);
    const json_t *second = other != NULL ? tsr_fields_get(fields, other) : NULL;

    if (value != NULL && second != NULL && !same_value(value, second))
        return tsr_fields_refuse(fields, name, "differs from %s, which is another spelling of it",
                                 other);
    *ret_value = value != NULL ? value : second;
    return TSR_OK;
}

tsr_status tsr_fields_int(const tsr_fields *fields, const tsr_int_rule *rule, int32_t *ret_value)
{
    const json_t *value = NULL;
    const tsr_status st = tsr_fields_find(fields, rule->name, rule->other, &value);
    if (st != TSR_OK)
        return st;

    if (value == NULL && rule->required)
        return tsr_fields_refuse(fields, rule->name, "is missing");
    if (value == NULL) {
        *ret_value = rule->otherwise;
        return TSR_OK;
    }
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < rule->smallest || number > rule->largest)
        return tsr_fields_refuse(fields, rule->name, "is not a whole number from %d to %d",
                                 rule->smallest, rule->largest);
    *ret_value = (int32_t)number;
    return TSR_OK;
}

tsr_status tsr_fields_number(const tsr_fields *fields, const tsr_number_rule *rule,
                             double *ret_value)
{
    const json_t *value = NULL;
    const tsr_status st = tsr_fields_find(fields, rule->name, rule->other, &value);
    if (st != TSR_OK)
        return st;

    if (value == NULL && rule->required)
        return tsr_fields_refuse(fields, rule->name, "is missing");
    if (value == NULL) {
        *ret_value = rule->otherwise;
        return TSR_OK;
    }
    const double number = json_number_value(value);
    if (!json_is_number(value) || !(number > rule->above) || !(number <= rule->largest))
        return tsr_fields_refuse(fields, rule->name, "is not a number %s %g and at most %g",
                                 rule->above < 0 ? "from" : "above",
                                 rule->above < 0 ? 0 : rule->above, rule->largest);
    *ret_value = number;
    return TSR_OK;
}

tsr_status tsr_fields_bool(const tsr_fields *fields, const char *name, bool otherwise,
                           bool *ret_value)
{
    const json_t *value = tsr_fields_get(fields, name);

    if (value != NULL && !json_is_boolean(value))
        return tsr_fields_refuse(fields, name, "is not true or false");
    *ret_value = value != NULL ? json_is_true(value) : otherwise;
    return TSR_OK;
}

tsr_status tsr_fields_text(const tsr_fields *fields, const char *name, const char **ret_text)
{
    const json_t *value = tsr_fields_get(fields, name);
    const char *text = json_string_value(value);

    if (value != NULL && (text == NULL || strlen(text) != json_string_length(value)))
        return tsr_fields_refuse(fields, name, "is not text");
    *ret_text = text;
    return TSR_OK;
}
