/* Answers are written straight into the bytes that are sent: a stream has one object for every token
 * of every client. */
#include "launch/http/json_text.h"

#include "runtime/text/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { PIECE_BYTES = 512 };

void tsr_json_add(tsr_json_text *json, const char *format, ...)
{
    char piece[PIECE_BYTES];
    va_list args;

    va_start(args, format);
    const int bytes = vsnprintf(piece, sizeof(piece), format, args);
    va_end(args);
    if (json->status == TSR_OK && (bytes < 0 || (size_t)bytes >= sizeof(piece)))
        json->status = TSR_ERR_INTERNAL;
    if (json->status == TSR_OK)
        json->status = tsr_text_add(&json->text, piece, (size_t)bytes);
}

static void add_bytes(tsr_json_text *json, const char *bytes, size_t count)
{
    if (json->status == TSR_OK)
        json->status = tsr_text_add(&json->text, bytes, count);
}

static void add_escaped(tsr_json_text *json, char c)
{
    static const char named[] = "\"\\\n\r\t\b\f";
    static const char letters[] = "\"\\nrtbf";
    const char *at = c != '\0' ? strchr(named, c) : NULL;

    if (at != NULL)
        tsr_json_add(json, "\\%c", letters[at - named]);
    else
        tsr_json_add(json, "\\u%04x", (unsigned)(unsigned char)c);
}

void tsr_json_add_string(tsr_json_text *json, const char *bytes, size_t count)
{
    size_t plain = 0; /* bytes in front of `at` that stand for themselves */

    add_bytes(json, "\"", 1);
    for (size_t at = 0; at < count;) {
        tsr_utf8_kind kind;
        const size_t step = tsr_utf8_step(bytes + at, count - at, &kind);
        const bool control = (unsigned char)bytes[at] < ' ' || bytes[at] == '"' ||
                             bytes[at] == '\\' || bytes[at] == '\x7f';
        if (kind == TSR_UTF8_WHOLE && !control) {
            at += step;
            plain += step;
            continue;
        }
        add_bytes(json, bytes + at - plain, plain);
        plain = 0;
        if (kind != TSR_UTF8_WHOLE)
            add_bytes(json, TSR_UTF8_REPLACEMENT, sizeof(TSR_UTF8_REPLACEMENT) - 1);
        else
            add_escaped(json, bytes[at]);
        at += step;
    }
    add_bytes(json, bytes + count - plain, plain);
    add_bytes(json, "\"", 1);
}

void tsr_json_add_word(tsr_json_text *json, const char *word)
{
    if (word != NULL)
        tsr_json_add_string(json, word, strlen(word));
    else
        add_bytes(json, "null", 4);
}

static int add_dumped(const char *bytes, size_t count, void *context)
{
    tsr_json_text *json = context;
    add_bytes(json, bytes, count);
    return json->status == TSR_OK ? 0 : -1;
}

void tsr_json_add_value(tsr_json_text *json, const json_t *value)
{
    if (json->status == TSR_OK &&
        json_dump_callback(value, add_dumped, json, JSON_COMPACT | JSON_ENCODE_ANY) != 0)
        json->status = TSR_ERR_MEMORY;
}
