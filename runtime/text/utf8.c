/* A lead byte tells how many follow and what the second may be; with that, overlong forms,
 * surrogates and code points beyond the last cannot arise, and need no check behind. */
#include "runtime/text/utf8.h"

#include <string.h>

/* What a lead byte promises: how many bytes, and the range of the second. */
typedef struct lead {
    size_t bytes; /* 0: begins no character */
    unsigned char low;
    unsigned char high;
} lead;

static lead lead_of(unsigned char byte)
{
    if (byte < 0x80)
        return (lead){.bytes = 1};
    if (byte < 0xc2)
        return (lead){.bytes = 0};
    if (byte < 0xe0)
        return (lead){2, 0x80, 0xbf};
    if (byte < 0xf0) /* E0 would be overlong, ED a surrogate */
        return (lead){3, byte == 0xe0 ? 0xa0 : 0x80, byte == 0xed ? 0x9f : 0xbf};
    if (byte < 0xf5) /* F0 would be overlong, F4 beyond the last code point */
        return (lead){4, byte == 0xf0 ? 0x90 : 0x80, byte == 0xf4 ? 0x8f : 0xbf};
    return (lead){.bytes = 0};
}

size_t tsr_utf8_step(const char *bytes, size_t count, tsr_utf8_kind *ret_kind)
{
    const lead l = lead_of((unsigned char)bytes[0]);
    if (l.bytes < 2) {
        *ret_kind = l.bytes == 1 ? TSR_UTF8_WHOLE : TSR_UTF8_BROKEN;
        return 1;
    }
    for (size_t i = 1; i < l.bytes; i++) {
        if (i == count) {
            *ret_kind = TSR_UTF8_UNFINISHED;
            return i;
        }
        const unsigned char byte = (unsigned char)bytes[i];
        const unsigned char low = i == 1 ? l.low : 0x80;
        const unsigned char high = i == 1 ? l.high : 0xbf;
        if (byte < low || byte > high) {
            *ret_kind = TSR_UTF8_BROKEN;
            return i;
        }
    }
    *ret_kind = TSR_UTF8_WHOLE;
    return l.bytes;
}

uint32_t tsr_utf8_decode(const char *bytes, size_t count)
{
    static const unsigned char lead_mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t code = (unsigned char)bytes[0] & lead_mask[count];
    for (size_t i = 1; i < count; i++)
        code = code << 6 | ((unsigned char)bytes[i] & 0x3fu);
    return code;
}

size_t tsr_utf8_valid_prefix(const char *bytes, size_t count)
{
    size_t at = 0;
    while (at < count) {
        tsr_utf8_kind kind;
        const size_t step = tsr_utf8_step(bytes + at, count - at, &kind);
        if (kind != TSR_UTF8_WHOLE)
            break;
        at += step;
    }
    return at;
}

tsr_status tsr_utf8_repair(const char *bytes, size_t count, tsr_text *out)
{
    tsr_status st = TSR_OK;
    while (st == TSR_OK && count > 0) {
        const size_t valid = tsr_utf8_valid_prefix(bytes, count);
        st = tsr_text_add(out, bytes, valid);
        bytes += valid;
        count -= valid;
        if (st == TSR_OK && count > 0) {
            tsr_utf8_kind kind;
            const size_t step = tsr_utf8_step(bytes, count, &kind);
            st = tsr_text_add_string(out, TSR_UTF8_REPLACEMENT);
            bytes += step;
            count -= step;
        }
    }
    return st;
}
