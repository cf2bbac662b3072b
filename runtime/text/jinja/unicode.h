/*
 * Text as Python sees it: lengths and positions are counted in code points, though the bytes are
 * UTF-8. Everything here tolerates invalid bytes: each stands for one U+FFFD.
 */
#ifndef TSR_RUNTIME_TEXT_JINJA_UNICODE_H
#define TSR_RUNTIME_TEXT_JINJA_UNICODE_H

#include "runtime/base/text_buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A view of bytes that someone else keeps alive. */
typedef struct tsr_jinja_text {
    const char *bytes;
    size_t count;
} tsr_jinja_text;

/* The view of a zero-terminated string. */
tsr_jinja_text tsr_jinja_text_of(const char *string);

bool tsr_jinja_text_equal(tsr_jinja_text a, tsr_jinja_text b);
bool tsr_jinja_text_is(tsr_jinja_text a, const char *string);
bool tsr_jinja_text_starts(tsr_jinja_text a, tsr_jinja_text prefix);
bool tsr_jinja_text_ends(tsr_jinja_text a, tsr_jinja_text suffix);

/* By code point: negative, zero or positive. */
int tsr_jinja_text_compare(tsr_jinja_text a, tsr_jinja_text b);

/* The part from byte `from` up to byte `to`. */
tsr_jinja_text tsr_jinja_text_part(tsr_jinja_text text, size_t from, size_t to);

/* Byte position of `needle` at or behind `from`, SIZE_MAX when there is none. */
size_t tsr_jinja_text_find(tsr_jinja_text text, tsr_jinja_text needle, size_t from);

bool tsr_jinja_utf8_valid(tsr_jinja_text text);

/* The code point at byte `at` (< count); returns how many bytes it takes. */
size_t tsr_jinja_decode(tsr_jinja_text text, size_t at, int32_t *ret_code);

/* The code point that ends before byte `at` (> 0); returns how many bytes it takes. */
size_t tsr_jinja_decode_before(tsr_jinja_text text, size_t at, int32_t *ret_code);

/* Returns how many of the four bytes were written. */
size_t tsr_jinja_encode(int32_t code, char *into);

/* Code points. */
size_t tsr_jinja_length(tsr_jinja_text text);

/* Byte position of the code point `index`; `count` when the text is shorter. */
size_t tsr_jinja_offset(tsr_jinja_text text, size_t index);

/* str.isspace, str.splitlines' ends of lines, str.isprintable for one code point. */
bool tsr_jinja_is_space(int32_t code);
bool tsr_jinja_is_line_end(int32_t code);
bool tsr_jinja_is_printable(int32_t code);

typedef enum tsr_jinja_side {
    TSR_JINJA_SIDE_LEFT = 1,
    TSR_JINJA_SIDE_RIGHT = 2,
    TSR_JINJA_SIDE_BOTH = 3,
} tsr_jinja_side;

/* str.strip; `chars` NULL means white space. */
tsr_jinja_text tsr_jinja_strip(tsr_jinja_text text, const tsr_jinja_text *chars,
                               tsr_jinja_side side);

/* str.upper and friends, appended to `out`. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_jinja_upper(tsr_jinja_text text, tsr_text *out);
TSR_MUST_USE tsr_status tsr_jinja_lower(tsr_jinja_text text, tsr_text *out);
TSR_MUST_USE tsr_status tsr_jinja_capitalize(tsr_jinja_text text, tsr_text *out);
TSR_MUST_USE tsr_status tsr_jinja_title(tsr_jinja_text text, tsr_text *out);

/* str.islower and str.isupper. */
bool tsr_jinja_all_lower(tsr_jinja_text text);
bool tsr_jinja_all_upper(tsr_jinja_text text);

#endif
