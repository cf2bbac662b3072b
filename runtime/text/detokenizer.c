/*
 * A byte goes out as soon as nothing that follows could change what it means:
 *
 *   token | 20 e2 82 |   out 20   held | e2 82 |
 *   token | ac 20 |      out e2 82 ac 20         a character that two tokens share
 *
 * At most three bytes wait. They are looked at again together with what comes, so that cutting text
 * into tokens never shows.
 */
#include "runtime/text/detokenizer.h"

#include "runtime/text/utf8.h"

#include <string.h>

/* Appends what is decided in `bytes`; an unfinished character at the end is held. */
static tsr_status take_bytes(tsr_detokenizer *detokenizer, const char *bytes, size_t count,
                             tsr_text *text)
{
    tsr_status st = TSR_OK;
    detokenizer->held_count = 0;
    while (st == TSR_OK && count > 0) {
        tsr_utf8_kind kind;
        const size_t step = tsr_utf8_step(bytes, count, &kind);
        if (kind == TSR_UTF8_WHOLE) {
            st = tsr_text_add(text, bytes, step);
        } else if (kind == TSR_UTF8_BROKEN) {
            st = tsr_text_add_string(text, TSR_UTF8_REPLACEMENT);
        } else {
            memcpy(detokenizer->held, bytes, step);
            detokenizer->held_count = step;
        }
        bytes += step;
        count -= step;
    }
    return st;
}

tsr_status tsr_detokenizer_push(tsr_detokenizer *detokenizer, int32_t id, tsr_text *text)
{
    const char *bytes = NULL;
    size_t count = 0;
    bool special = false;
    if (!tsr_tokenizer_bytes(detokenizer->tokenizer, id, &bytes, &count, &special))
        return TSR_OK;
    if (count == 0 || (special && detokenizer->skip_special))
        return TSR_OK;
    if (detokenizer->held_count == 0)
        return take_bytes(detokenizer, bytes, count, text);

    tsr_text joined = {0};
    tsr_status st = tsr_text_add(&joined, (const char *)detokenizer->held, detokenizer->held_count);
    if (st == TSR_OK)
        st = tsr_text_add(&joined, bytes, count);
    if (st == TSR_OK)
        st = take_bytes(detokenizer, joined.bytes, joined.count, text);
    tsr_text_close(&joined);
    return st;
}

tsr_status tsr_detokenizer_finish(tsr_detokenizer *detokenizer, tsr_text *text)
{
    if (detokenizer->held_count == 0)
        return TSR_OK;
    detokenizer->held_count = 0;
    return tsr_text_add_string(text, TSR_UTF8_REPLACEMENT);
}
