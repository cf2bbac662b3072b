/*
 * UTF-8, one character at a time, with the reference's view of broken bytes: each longest run that
 * begins a character without finishing it (or a single byte that begins none) is one U+FFFD.
 */
#ifndef TSR_RUNTIME_TEXT_UTF8_H
#define TSR_RUNTIME_TEXT_UTF8_H

#include "runtime/base/status.h"
#include "runtime/base/text_buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TSR_UTF8_REPLACEMENT "\xef\xbf\xbd"

typedef enum tsr_utf8_kind {
    TSR_UTF8_WHOLE,      /* a character */
    TSR_UTF8_BROKEN,     /* bytes that no continuation makes one: one U+FFFD */
    TSR_UTF8_UNFINISHED, /* the end came inside a character: more bytes may finish it */
} tsr_utf8_kind;

/* Bytes of what stands at `bytes`: 1 to 4 of the `count`, which is at least 1. */
size_t tsr_utf8_step(const char *bytes, size_t count, tsr_utf8_kind *ret_kind);

/* The code point of a whole character of `count` bytes. */
uint32_t tsr_utf8_decode(const char *bytes, size_t count);

/* Length of the longest prefix that is valid. */
size_t tsr_utf8_valid_prefix(const char *bytes, size_t count);

/* Appends the text with U+FFFD for what is broken, an unfinished end included. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_utf8_repair(const char *bytes, size_t count, tsr_text *out);

#endif
