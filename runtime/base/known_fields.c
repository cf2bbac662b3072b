/* Neutral values are words of a row, so that a table reads like a table; a value is turned into the
 * word that stands for it, and numbers are compared as numbers. */
#include "runtime/base/known_fields.h"

#include "runtime/base/json_file.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_BYTES = 64 };

/* The word for a value that is no number; "" where there is none. */
static void word_of(const json_t *value, char word[WORD_BYTES])
{
    const char *text = json_string_value(value);
    const char *one = json_string_value(json_array_get(value, 0));
    const char *type = json_string_value(json_object_get(value, "type"));

    word[0] = '\0';
    if (json_is_boolean(value))
        (void)snprintf(word, WORD_BYTES, "%s", json_is_true(value) ? "true" : "false");
    else if ((text != NULL && text[0] == '\0') ||
             (json_is_array(value) && json_array_size(value) == 0) ||
             (json_is_object(value) && json_object_size(value) == 0))
        (void)snprintf(word, WORD_BYTES, "empty");
    else if (text != NULL)
        (void)snprintf(word, WORD_BYTES, "%s", text);
    else if (one != NULL && json_array_size(value) == 1)
        (void)snprintf(word, WORD_BYTES, "[%s]", one);
    else if (type != NULL && json_object_size(value) == 1)
        (void)snprintf(word, WORD_BYTES, "{%s}", type);
}

/* True when one of the words of the row, from `at` to its end, is this value. */
static bool is_word(const char *at, size_t count, const json_t *value, const char *word)
{
    if (!json_is_number(value))
        return strlen(word) == count && memcmp(word, at, count) == 0;
    char *end = NULL;
    const double number = strtod(at, &end);
    return end == at + count && number == json_number_value(value);
}

static bool is_neutral(const tsr_known_field *row, const json_t *value)
{
    char word[WORD_BYTES];

    word_of(value, word);
    for (const char *at = row->neutral; at != NULL; at++) {
        const size_t count = strcspn(at, "|");
        if (is_word(at, count, value, word))
            return true;
        at += count;
        if (*at == '\0')
            break;
    }
    return false;
}

tsr_field_verdict tsr_field_judge(const tsr_field_table *table, const char *name,
                                  const json_t *value)
{
    if (json_is_null(value))
        return TSR_FIELD_FINE;
    for (size_t i = 0; i < table->count; i++) {
        const tsr_known_field *row = &table->rows[i];
        if (strcmp(row->name, name) != 0)
            continue;
        return row->kind != TSR_FIELD_NEUTRAL || is_neutral(row, value) ? TSR_FIELD_FINE
                                                                        : TSR_FIELD_NOT_SERVED;
    }
    return TSR_FIELD_UNKNOWN;
}

const char *tsr_field_show_name(const char *name, char text[TSR_SHOWN_BYTES])
{
    size_t count = 0;

    for (; name[count] != '\0' && count < TSR_SHOWN_BYTES - 4; count++) {
        const unsigned char c = (unsigned char)name[count];
        text[count] = (char)(c < 0x20 || c == 0x7f ? '?' : c);
    }
    (void)snprintf(text + count, TSR_SHOWN_BYTES - count, "%s", name[count] != '\0' ? "..." : "");
    return text;
}

const char *tsr_field_show(const json_t *value, char text[TSR_SHOWN_BYTES])
{
    static const char *const kinds[] = {"an object", "a list", "text",  "a number",
                                        "a number",  "true",   "false", "null"};
    char shown[TSR_SHOWN_BYTES];

    const char *beyond = json_string_value(json_object_get(value, tsr_json_beyond));

    if (value == NULL)
        (void)snprintf(text, TSR_SHOWN_BYTES, "missing");
    else if (beyond != NULL)
        (void)snprintf(text, TSR_SHOWN_BYTES, "%.90s", tsr_field_show_name(beyond, shown));
    else if (json_is_string(value))
        (void)snprintf(text, TSR_SHOWN_BYTES, "\"%.90s\"",
                       tsr_field_show_name(json_string_value(value), shown));
    else if (json_is_integer(value))
        (void)snprintf(text, TSR_SHOWN_BYTES, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        (void)snprintf(text, TSR_SHOWN_BYTES, "%.10g", json_real_value(value));
    else
        (void)snprintf(text, TSR_SHOWN_BYTES, "%s", kinds[json_typeof(value)]);
    return text;
}
