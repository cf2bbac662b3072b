/* Doubles when it is full, so that adding byte by byte costs no more than adding at once; sizes are
 * checked before they are added, for the text may come from outside. */
#include "runtime/base/text_buffer.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tsr_status tsr_text_reserve(tsr_text *text, size_t more)
{
    if (more >= SIZE_MAX / 2 - text->count)
        return TSR_ERR_MEMORY;

    const size_t needed = text->count + more + 1;
    if (needed <= text->capacity)
        return TSR_OK;

    size_t capacity = text->capacity ? text->capacity : 64;
    while (capacity < needed)
        capacity *= 2;
    char *grown = realloc(text->bytes, capacity);
    if (grown == NULL)
        return TSR_ERR_MEMORY;
    text->bytes = grown;
    text->capacity = capacity;
    return TSR_OK;
}

tsr_status tsr_text_add(tsr_text *text, const char *bytes, size_t count)
{
    const tsr_status st = tsr_text_reserve(text, count);
    if (st != TSR_OK)
        return st;
    if (count > 0)
        memcpy(text->bytes + text->count, bytes, count);
    text->count += count;
    text->bytes[text->count] = '\0';
    return TSR_OK;
}

tsr_status tsr_text_add_string(tsr_text *text, const char *string)
{
    return tsr_text_add(text, string, strlen(string));
}

tsr_status tsr_text_add_format(tsr_text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    const int needed = vsnprintf(NULL, 0, format, args);
    va_end(args);

    const tsr_status st = needed < 0 ? TSR_ERR_INTERNAL : tsr_text_reserve(text, (size_t)needed);
    if (st == TSR_OK) {
        (void)vsnprintf(text->bytes + text->count, (size_t)needed + 1, format, again);
        text->count += (size_t)needed;
    }
    va_end(again);
    return st;
}

void tsr_text_clear(tsr_text *text)
{
    text->count = 0;
    if (text->bytes != NULL)
        text->bytes[0] = '\0';
}

void tsr_text_drop(tsr_text *text, size_t count)
{
    if (count == 0)
        return;
    memmove(text->bytes, text->bytes + count, text->count - count + 1);
    text->count -= count;
}

void tsr_text_close(tsr_text *text)
{
    free(text->bytes);
    *text = (tsr_text){0};
}
