/* A growing string of bytes; always followed by a zero byte once something was added. */
#ifndef TSR_RUNTIME_BASE_TEXT_BUFFER_H
#define TSR_RUNTIME_BASE_TEXT_BUFFER_H

#include "runtime/base/status.h"

#include <stddef.h>

/* Zero-initialise; close with tsr_text_close. */
typedef struct tsr_text {
    char *bytes;
    size_t count;    /* without the zero byte */
    size_t capacity; /* of bytes */
} tsr_text;

/* Appends; TSR_ERR_MEMORY leaves the text as it was. */
TSR_MUST_USE tsr_status tsr_text_add(tsr_text *text, const char *bytes, size_t count);

/* Appends a zero-terminated string. */
TSR_MUST_USE tsr_status tsr_text_add_string(tsr_text *text, const char *string);

__attribute__((format(printf, 2, 3))) TSR_MUST_USE tsr_status
tsr_text_add_format(tsr_text *text, const char *format, ...);

/* Makes room for `more` bytes and the zero byte behind those that are there. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_text_reserve(tsr_text *text, size_t more);

/* Empties it; the memory stays. */
void tsr_text_clear(tsr_text *text);

/* Drops the first `count` bytes. */
void tsr_text_drop(tsr_text *text, size_t count);

void tsr_text_close(tsr_text *text);

#endif
