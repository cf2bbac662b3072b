/* The text of one answer as its tokens come: ids -> characters -> what stop strings let through. */
#ifndef TSR_LAUNCH_REQUEST_TEXT_STREAM_H
#define TSR_LAUNCH_REQUEST_TEXT_STREAM_H

#include "runtime/engine/engine.h"
#include "runtime/text/detokenizer.h"
#include "runtime/text/stop_strings.h"

/* Zero-initialise; open once, close always. */
typedef struct tsr_text_stream {
    tsr_detokenizer detokenizer;
    tsr_stop_strings *stops; /* NULL: none */
    tsr_text fresh;          /* scratch: characters of the last token */
    tsr_text text;           /* everything that may be shown */
    int32_t matched;         /* index of the stop string that ended it, -1: none */
} tsr_text_stream;

/* `stops` are copied. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_text_stream_open(const tsr_tokenizer *tokenizer, bool skip_special,
                                             const char *const *stops, size_t stop_count,
                                             bool include_stop, tsr_text_stream *stream);

/* Puts a prompt in front of everything. Before the first output. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_text_stream_echo(tsr_text_stream *stream, const int32_t *prompt,
                                             size_t count);

/*
 * One output of the engine. An end-of-sequence token is not text. *ret_cancel true: a stop string
 * has ended the text. After the last output everything held back is in `text`.
 */
TSR_MUST_USE tsr_status tsr_text_stream_push(tsr_text_stream *stream, const tsr_output *output,
                                             bool *ret_cancel);

void tsr_text_stream_close(tsr_text_stream *stream);

#endif
