/*
 * Ids to text as they come, never half a character: bytes that may still become one are held back;
 * bytes that cannot are given as U+FFFD, exactly where decoding everything at once would put it.
 */
#ifndef TSR_RUNTIME_TEXT_DETOKENIZER_H
#define TSR_RUNTIME_TEXT_DETOKENIZER_H

#include "runtime/base/status.h"
#include "runtime/base/text_buffer.h"
#include "runtime/text/tokenizer.h"

/* Zero-initialise but for the first two fields. */
typedef struct tsr_detokenizer {
    const tsr_tokenizer *tokenizer;
    bool skip_special;
    unsigned char held[4]; /* an unfinished character */
    size_t held_count;
} tsr_detokenizer;

/* Appends to `text` what the id completes. Unknown ids give nothing. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_detokenizer_push(tsr_detokenizer *detokenizer, int32_t id,
                                             tsr_text *text);

/* The end: what was held back becomes U+FFFD. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_detokenizer_finish(tsr_detokenizer *detokenizer, tsr_text *text);

#endif
