/*
 * One pass that knows strings, brackets and, in the outermost object, keys and values:
 *
 *   { "custom_id" : "7" , "body" : { ... } }
 *     key         ^ value  key     ^ skipped: only brackets and strings are looked at
 *
 * It takes more than JSON is: numbers and words are whatever stands between the marks. A string is
 * taken for an id only where it is one of JSON, so that it can be written again as it stands.
 */
#include "launch/files/line_scan.h"

#include "runtime/text/utf8.h"

#include <string.h>

typedef enum field_name {
    OTHER,
    CUSTOM_ID,
    RESPONSE,
    ERROR,
} field_name;

typedef struct scanner {
    const char *bytes;
    size_t count;
    size_t at;
    size_t depth;
    bool value;       /* the next one of the outermost object is a value */
    field_name field; /* whose value */
    bool closed;      /* the outermost object is */
    bool broken;
    tsr_line_scan found;
} scanner;

static bool is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

/* From a quote to behind its partner; false when there is none. */
static bool pass_string(scanner *s, size_t *ret_first, size_t *ret_bytes)
{
    const size_t first = s->at++;

    while (s->at < s->count && s->bytes[s->at] != '"')
        s->at += s->bytes[s->at] == '\\' ? 2 : 1;
    if (s->at >= s->count)
        return false;
    s->at++;
    *ret_first = first;
    *ret_bytes = s->at - first;
    if (*ret_bytes - 2 > s->found.longest_string)
        s->found.longest_string = *ret_bytes - 2;
    return true;
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Bytes of the escape at `text`; 0 when it is none. */
static size_t escape_bytes(const char *text, size_t count)
{
    if (count < 2)
        return 0;
    if (text[1] != 'u')
        return is_one_of(text[1], "\"\\/bfnrt") ? 2 : 0;
    for (size_t i = 2; i < 6; i++) {
        if (i >= count || !is_hex(text[i]))
            return 0;
    }
    return 6;
}

/* Whether what stands between quotes is a string of JSON. */
static bool is_string(const char *text, size_t count)
{
    size_t at = 0;

    while (at < count) {
        size_t bytes = 1;
        if ((unsigned char)text[at] < 0x20)
            return false;
        if (text[at] == '\\')
            bytes = escape_bytes(text + at, count - at);
        if (bytes == 0)
            return false;
        at += bytes;
    }
    return tsr_utf8_valid_prefix(text, count) == count;
}

static field_name field_of(const char *key, size_t count)
{
    static const struct {
        const char *name;
        field_name field;
    } names[] = {{"custom_id", CUSTOM_ID}, {"response", RESPONSE}, {"error", ERROR}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (count == strlen(names[i].name) && memcmp(key, names[i].name, count) == 0)
            return names[i].field;
    }
    return OTHER;
}

/* A value of the outermost object that is not null; `text` may be an id. */
static void take_value(scanner *s, const char *text, size_t bytes)
{
    if (s->field == CUSTOM_ID) {
        s->found.custom_id = text;
        s->found.custom_id_bytes = text != NULL ? bytes : 0;
    }
    s->found.answered = s->found.answered || s->field == RESPONSE;
    s->found.failed = s->found.failed || s->field == ERROR;
    s->field = OTHER;
}

static void take_string(scanner *s)
{
    size_t first = 0;
    size_t bytes = 0;

    if (!pass_string(s, &first, &bytes)) {
        s->broken = true;
        return;
    }
    if (s->depth != 1)
        return;
    const char *text = s->bytes + first;
    if (s->value)
        take_value(s, is_string(text + 1, bytes - 2) ? text : NULL, bytes);
    else
        s->field = field_of(s->bytes + first + 1, bytes - 2);
}

static bool is_number(const char *text, size_t count)
{
    const size_t first = text[0] == '-' ? 1 : 0;
    size_t at = first;

    while (at < count && text[at] >= '0' && text[at] <= '9')
        at++;
    return at == count && count > first && (text[first] != '0' || count == first + 1);
}

/* A number or a word: up to the next mark. */
static void take_word(scanner *s)
{
    const size_t first = s->at;

    while (s->at < s->count && !is_one_of(s->bytes[s->at], " \t\r\n,:{}[]\""))
        s->at++;
    if (s->at == first) {
        s->at++; /* a mark that means nothing here */
        return;
    }
    const char *text = s->bytes + first;
    const size_t bytes = s->at - first;
    if (s->depth == 1 && s->value && !(bytes == 4 && memcmp(text, "null", 4) == 0))
        take_value(s, is_number(text, bytes) ? text : NULL, bytes);
}

static void take_mark(scanner *s, char mark)
{
    const bool opens = mark == '{' || mark == '[';

    s->at++;
    s->found.values += mark == ',' || opens;
    s->found.containers += opens;
    if (opens) {
        if (s->depth == 1 && s->value)
            take_value(s, NULL, 0);
        s->depth++;
        s->value = s->value && s->depth != 1;
        return;
    }
    if (mark == ':' || mark == ',') {
        if (s->depth == 1)
            s->value = mark == ':';
        return;
    }
    s->depth--;
    s->closed = s->depth == 0;
}

tsr_line_scan tsr_line_scan_read(const char *bytes, size_t count)
{
    scanner s = {.bytes = bytes, .count = count};

    while (s.at < count && !s.broken) {
        const char byte = bytes[s.at];
        if (byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n')
            s.at++;
        else if (s.depth == 0 && (s.closed || byte != '{'))
            s.broken = true;
        else if (byte == '"')
            take_string(&s);
        else if (is_one_of(byte, "{}[],:"))
            take_mark(&s, byte);
        else
            take_word(&s);
    }
    s.found.values++;
    s.found.whole = s.closed && !s.broken;
    return s.found;
}
