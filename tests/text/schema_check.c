/* Each keyword is a function of schema and value; all of a schema's have to hold. */
#include "tests/text/schema_check.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef bool (*keyword_check)(const json_t *root, const json_t *schema, const json_t *given,
                              const json_t *value);

static bool is_type(const char *name, const json_t *value)
{
    const double number = json_number_value(value);

    return (strcmp(name, "object") == 0 && json_is_object(value)) ||
           (strcmp(name, "array") == 0 && json_is_array(value)) ||
           (strcmp(name, "string") == 0 && json_is_string(value)) ||
           (strcmp(name, "number") == 0 && json_is_number(value)) ||
           (strcmp(name, "integer") == 0 && json_is_number(value) &&
            number == (double)(json_int_t)number) ||
           (strcmp(name, "boolean") == 0 && json_is_boolean(value)) ||
           (strcmp(name, "null") == 0 && json_is_null(value));
}

static bool type(const json_t *root, const json_t *schema, const json_t *given, const json_t *value)
{
    (void)root;
    (void)schema;
    if (json_is_string(given))
        return is_type(json_string_value(given), value);
    for (size_t i = 0; i < json_array_size(given); i++) {
        if (is_type(json_string_value(json_array_get(given, i)), value))
            return true;
    }
    return false;
}

static bool equal(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b) != 0;
}

static bool of_enum(const json_t *root, const json_t *schema, const json_t *given,
                    const json_t *value)
{
    (void)root;
    (void)schema;
    for (size_t i = 0; i < json_array_size(given); i++) {
        if (equal(json_array_get(given, i), value))
            return true;
    }
    return false;
}

static bool of_const(const json_t *root, const json_t *schema, const json_t *given,
                     const json_t *value)
{
    (void)root;
    (void)schema;
    return equal(given, value);
}

static bool any_of(const json_t *root, const json_t *schema, const json_t *given,
                   const json_t *value)
{
    (void)schema;
    for (size_t i = 0; i < json_array_size(given); i++) {
        if (schema_holds(root, json_array_get(given, i), value))
            return true;
    }
    return false;
}

static bool ref(const json_t *root, const json_t *schema, const json_t *given, const json_t *value)
{
    char path[256];
    const json_t *at = root;
    char *rest = NULL;

    (void)schema;
    (void)snprintf(path, sizeof(path), "%s", json_string_value(given));
    (void)strtok_r(path, "/", &rest);
    for (const char *name; (name = strtok_r(NULL, "/", &rest)) != NULL;)
        at = json_object_get(at, name);
    return at != NULL && schema_holds(root, at, value);
}

static bool properties(const json_t *root, const json_t *schema, const json_t *given,
                       const json_t *value)
{
    const char *name = NULL;
    const json_t *one = NULL;

    (void)schema;
    json_object_foreach((json_t *)(uintptr_t)given, name, one)
    {
        const json_t *there = json_object_get(value, name);
        if (there != NULL && !schema_holds(root, one, there))
            return false;
    }
    return true;
}

static bool additional(const json_t *root, const json_t *schema, const json_t *given,
                       const json_t *value)
{
    const char *name = NULL;
    const json_t *one = NULL;

    json_object_foreach((json_t *)(uintptr_t)value, name, one)
    {
        if (json_object_get(json_object_get(schema, "properties"), name) == NULL &&
            !schema_holds(root, given, one))
            return false;
    }
    return true;
}

static bool required(const json_t *root, const json_t *schema, const json_t *given,
                     const json_t *value)
{
    (void)root;
    (void)schema;
    for (size_t i = 0; i < json_array_size(given) && json_is_object(value); i++) {
        if (json_object_get(value, json_string_value(json_array_get(given, i))) == NULL)
            return false;
    }
    return true;
}

static bool items(const json_t *root, const json_t *schema, const json_t *given,
                  const json_t *value)
{
    for (size_t i = json_array_size(json_object_get(schema, "prefixItems"));
         i < json_array_size(value); i++) {
        if (!schema_holds(root, given, json_array_get(value, i)))
            return false;
    }
    return true;
}

static bool prefix_items(const json_t *root, const json_t *schema, const json_t *given,
                         const json_t *value)
{
    (void)schema;
    for (size_t i = 0; i < json_array_size(value) && i < json_array_size(given); i++) {
        if (!schema_holds(root, json_array_get(given, i), json_array_get(value, i)))
            return false;
    }
    return true;
}

static size_t characters(const json_t *string)
{
    size_t count = 0;

    for (const char *c = json_string_value(string); *c != '\0'; c++)
        count += ((unsigned char)*c & 0xc0) != 0x80;
    return count;
}

#define SIZE_CHECK(name, is, size, compare)                                                        \
    static bool name(const json_t *root, const json_t *schema, const json_t *given,                \
                     const json_t *value)                                                          \
    {                                                                                              \
        (void)root;                                                                                \
        (void)schema;                                                                              \
        return !is(value) || (double)(size)compare json_number_value(given);                       \
    }
SIZE_CHECK(min_items, json_is_array, json_array_size(value), >=)
SIZE_CHECK(max_items, json_is_array, json_array_size(value), <=)
SIZE_CHECK(min_length, json_is_string, characters(value), >=)
SIZE_CHECK(max_length, json_is_string, characters(value), <=)
SIZE_CHECK(minimum, json_is_number, json_number_value(value), >=)
SIZE_CHECK(maximum, json_is_number, json_number_value(value), <=)
SIZE_CHECK(above, json_is_number, json_number_value(value), >)
SIZE_CHECK(below, json_is_number, json_number_value(value), <)

static bool tells(const json_t *root, const json_t *schema, const json_t *given,
                  const json_t *value)
{
    (void)root;
    (void)schema;
    (void)given;
    (void)value;
    return true;
}

static const struct {
    const char *name;
    keyword_check check;
} keywords[] = {
    {"$defs", tells},
    {"$ref", ref},
    {"additionalProperties", additional},
    {"anyOf", any_of},
    {"const", of_const},
    {"enum", of_enum},
    {"exclusiveMaximum", below},
    {"exclusiveMinimum", above},
    {"items", items},
    {"maxItems", max_items},
    {"maxLength", max_length},
    {"maximum", maximum},
    {"minItems", min_items},
    {"minLength", min_length},
    {"minimum", minimum},
    {"prefixItems", prefix_items},
    {"properties", properties},
    {"required", required},
    {"title", tells},
    {"type", type},
};

bool schema_holds(const json_t *root, const json_t *schema, const json_t *value)
{
    const char *name = NULL;
    const json_t *given = NULL;

    if (json_is_boolean(schema))
        return json_is_true(schema);
    json_object_foreach((json_t *)(uintptr_t)schema, name, given)
    {
        size_t i = 0;
        while (i < sizeof(keywords) / sizeof(keywords[0]) && strcmp(keywords[i].name, name) != 0)
            i++;
        if (i == sizeof(keywords) / sizeof(keywords[0]) ||
            !keywords[i].check(root, schema, given, value))
            return false;
    }
    return true;
}
