/*
 * Lines that tests/house/dialect.q must find, each with the rule's name at its end, among lines that
 * it must not. Not compiled; lint.sh reads it.
 */
#include <ctype.h>
#include <jansson.h>
#include <stdbool.h>
#include <string.h>

typedef struct node {
    struct node *next;
    int value;
} node;

typedef int (*question)(int);

int takes(int value, const int *place);

bool planted_null(const node *n, question ask, const char *text)
{
    bool known = !n;                      // null
    const bool found = strchr(text, 'x'); // null

    if (n) // null
        known = true;
    if ((n->next)) // null
        known = false;
    if (!(ask))       // null
        return text;  // null
    if (known && ask) // null
        return false;
    if (n->next || known) // null
        return found;
    while (n) // null
        n = n->next;
    for (; text && *text; text++) // null
        known = !known;
    do
        n = n != NULL ? n->next : n;
    while (n);                    // null
    return text ? known : !known; // null
}

bool written_null(const node *n, question ask, const char *text, json_t *json)
{
    if (n == NULL || ask != NULL || (text != NULL && *text))
        return !n->value;
    if (!json_is_string(json) || (json_is_array(json) && n != NULL))
        return json_is_true(json) ? !strcmp(text, "x") : ask(1);
    return n->value && !json_is_null(json);
}

bool planted_beside(json_t *json, const node *n)
{
    return json_is_string(json) && n; // null
}

int planted_const(int value, const node *n)
{
    int twice = value * 2; // const
    node copy = *n;        // const

    for (int i = 0; i < value; i++) {
        int times = i * twice; // const
        value -= times + copy.value;
    }
    return value;
}

int written_const(int value, char letter)
{
    const int once = value;
    int counted = 0;
    int later;
    int seen = value;
    int shown = once;
    int *place = &counted;
    int row[2] = {once, value};

    later = toupper((unsigned char)letter); /* optimized, a macro with a local of its own */
    counted += later;
    seen++;
    return takes(*place, &shown) + row[0] + seen;
}
