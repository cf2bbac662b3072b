#include "runtime/text/jinja/unicode.h"

#include <string.h>
#include <utf8proc.h>

tsr_jinja_text tsr_jinja_text_of(const char *string)
{
    return (tsr_jinja_text){.bytes = string, .count = strlen(string)};
}

bool tsr_jinja_text_equal(tsr_jinja_text a, tsr_jinja_text b)
{
    return a.count == b.count && (a.count == 0 || memcmp(a.bytes, b.bytes, a.count) == 0);
}

bool tsr_jinja_text_is(tsr_jinja_text a, const char *string)
{
    return tsr_jinja_text_equal(a, tsr_jinja_text_of(string));
}

bool tsr_jinja_text_starts(tsr_jinja_text a, tsr_jinja_text prefix)
{
    return a.count >= prefix.count &&
           tsr_jinja_text_equal(tsr_jinja_text_part(a, 0, prefix.count), prefix);
}

bool tsr_jinja_text_ends(tsr_jinja_text a, tsr_jinja_text suffix)
{
    return a.count >= suffix.count &&
           tsr_jinja_text_equal(tsr_jinja_text_part(a, a.count - suffix.count, a.count), suffix);
}

/* UTF-8 sorts as its code points do. */
int tsr_jinja_text_compare(tsr_jinja_text a, tsr_jinja_text b)
{
    const size_t common = a.count < b.count ? a.count : b.count;
    const int order = common == 0 ? 0 : memcmp(a.bytes, b.bytes, common);
    if (order != 0)
        return order;
    return a.count < b.count ? -1 : a.count > b.count;
}

tsr_jinja_text tsr_jinja_text_part(tsr_jinja_text text, size_t from, size_t to)
{
    if (from > to || text.bytes == NULL)
        return (tsr_jinja_text){.bytes = "", .count = 0};
    return (tsr_jinja_text){.bytes = text.bytes + from, .count = to - from};
}

enum { LONG_NEEDLE = 16, HASH_BASE = 257, HASH_PRIME = 2147483647 };

static uint64_t hash_of(const char *bytes, size_t count)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < count; i++)
        hash = (hash * HASH_BASE + (unsigned char)bytes[i]) % HASH_PRIME;
    return hash;
}

/* By a rolling hash, since comparing a long needle at every byte could take for ever. */
static size_t find_long(tsr_jinja_text text, tsr_jinja_text needle, size_t from)
{
    const size_t last = text.count - needle.count;
    const uint64_t wanted = hash_of(needle.bytes, needle.count);
    uint64_t hash = hash_of(text.bytes + from, needle.count);
    uint64_t highest = 1; /* the weight of the byte that leaves */
    for (size_t i = 1; i < needle.count; i++)
        highest = highest * HASH_BASE % HASH_PRIME;

    for (size_t at = from;; at++) {
        if (hash == wanted && memcmp(text.bytes + at, needle.bytes, needle.count) == 0)
            return at;
        if (at == last)
            return SIZE_MAX;
        const uint64_t leaving = (unsigned char)text.bytes[at] * highest % HASH_PRIME;
        const uint64_t coming = (unsigned char)text.bytes[at + needle.count];
        hash = ((hash + HASH_PRIME - leaving) * HASH_BASE + coming) % HASH_PRIME;
    }
}

size_t tsr_jinja_text_find(tsr_jinja_text text, tsr_jinja_text needle, size_t from)
{
    if (from > text.count || needle.count > text.count - from)
        return SIZE_MAX;
    if (needle.count == 0)
        return from;
    if (needle.count > LONG_NEEDLE)
        return find_long(text, needle, from);

    const size_t last = text.count - needle.count;
    while (from <= last) {
        const char *hit = memchr(text.bytes + from, needle.bytes[0], last - from + 1);
        if (hit == NULL)
            return SIZE_MAX;
        if (memcmp(hit, needle.bytes, needle.count) == 0)
            return (size_t)(hit - text.bytes);
        from = (size_t)(hit - text.bytes) + 1;
    }
    return SIZE_MAX;
}

size_t tsr_jinja_decode(tsr_jinja_text text, size_t at, int32_t *ret_code)
{
    const unsigned char first = (unsigned char)text.bytes[at];
    if (first < 0x80) {
        *ret_code = first;
        return 1;
    }
    const size_t left = text.count - at;
    utf8proc_int32_t code = 0;
    const utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)text.bytes + at,
                                                   (utf8proc_ssize_t)(left < 4 ? left : 4), &code);
    if (used < 1) {
        *ret_code = 0xFFFD;
        return 1;
    }
    *ret_code = code;
    return (size_t)used;
}

size_t tsr_jinja_decode_before(tsr_jinja_text text, size_t at, int32_t *ret_code)
{
    size_t from = at - 1;
    while (from > 0 && at - from < 4 && ((unsigned char)text.bytes[from] & 0xC0) == 0x80)
        from--;
    const size_t used = tsr_jinja_decode(text, from, ret_code);
    if (from + used == at)
        return used;
    *ret_code = 0xFFFD;
    return 1;
}

size_t tsr_jinja_encode(int32_t code, char *into)
{
    return (size_t)utf8proc_encode_char(code, (utf8proc_uint8_t *)into);
}

bool tsr_jinja_utf8_valid(tsr_jinja_text text)
{
    for (size_t at = 0; at < text.count;) {
        int32_t code = 0;
        const size_t used = tsr_jinja_decode(text, at, &code);
        if (used == 1 && code == 0xFFFD)
            return false;
        at += used;
    }
    return true;
}

size_t tsr_jinja_length(tsr_jinja_text text)
{
    size_t length = 0;
    for (size_t at = 0; at < text.count; length++) {
        int32_t code = 0;
        at += tsr_jinja_decode(text, at, &code);
    }
    return length;
}

size_t tsr_jinja_offset(tsr_jinja_text text, size_t index)
{
    size_t at = 0;
    for (; index > 0 && at < text.count; index--) {
        int32_t code = 0;
        at += tsr_jinja_decode(text, at, &code);
    }
    return at;
}

bool tsr_jinja_is_space(int32_t code)
{
    if (code < 0x80)
        return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20);
    return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
           code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool tsr_jinja_is_line_end(int32_t code)
{
    return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 ||
           code == 0x2028 || code == 0x2029;
}

bool tsr_jinja_is_printable(int32_t code)
{
    if (code < 0x80)
        return code >= 0x20 && code < 0x7F;
    const utf8proc_category_t category = utf8proc_category(code);
    return category != UTF8PROC_CATEGORY_CN && category != UTF8PROC_CATEGORY_CC &&
           category != UTF8PROC_CATEGORY_CF && category != UTF8PROC_CATEGORY_CS &&
           category != UTF8PROC_CATEGORY_CO && category != UTF8PROC_CATEGORY_ZS &&
           category != UTF8PROC_CATEGORY_ZL && category != UTF8PROC_CATEGORY_ZP;
}

/* Whether strip takes this code point away. */
static bool is_stripped(int32_t code, const tsr_jinja_text *chars)
{
    if (chars == NULL)
        return tsr_jinja_is_space(code);
    for (size_t at = 0; at < chars->count;) {
        int32_t other = 0;
        at += tsr_jinja_decode(*chars, at, &other);
        if (other == code)
            return true;
    }
    return false;
}

tsr_jinja_text tsr_jinja_strip(tsr_jinja_text text, const tsr_jinja_text *chars,
                               tsr_jinja_side side)
{
    size_t from = 0;
    size_t to = text.count;
    int32_t code = 0;
    while ((side & TSR_JINJA_SIDE_LEFT) != 0 && from < to) {
        const size_t used = tsr_jinja_decode(text, from, &code);
        if (!is_stripped(code, chars))
            break;
        from += used;
    }
    while ((side & TSR_JINJA_SIDE_RIGHT) != 0 && from < to) {
        const size_t used = tsr_jinja_decode_before(text, to, &code);
        if (!is_stripped(code, chars))
            break;
        to -= used;
    }
    return tsr_jinja_text_part(text, from, to);
}
