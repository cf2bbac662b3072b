/*
 * Two things hold text back, one behind the other:
 *
 *   id -> detokenizer -> fresh -> stop strings -> text
 *         half a character        what may become one of them
 *
 * An end-of-sequence token and a stop id end an answer and are no text. After a stop string one
 * more output comes, that of the request being cancelled: what it would let go is dropped, it lies
 * behind the end.
 */
#include "launch/request/text_stream.h"

tsr_status tsr_text_stream_open(const tsr_tokenizer *tokenizer, bool skip_special,
                                const char *const *stops, size_t stop_count, bool include_stop,
                                tsr_text_stream *stream)
{
    *stream = (tsr_text_stream){
        .detokenizer = {.tokenizer = tokenizer, .skip_special = skip_special}, .matched = -1};
    if (stop_count == 0)
        return TSR_OK;
    return tsr_stop_strings_open(stops, stop_count, include_stop, &stream->stops);
}

tsr_status tsr_text_stream_echo(tsr_text_stream *stream, const int32_t *prompt, size_t count)
{
    tsr_detokenizer detokenizer = stream->detokenizer;
    tsr_status st = TSR_OK;

    for (size_t i = 0; i < count && st == TSR_OK; i++)
        st = tsr_detokenizer_push(&detokenizer, prompt[i], &stream->text);
    return st == TSR_OK ? tsr_detokenizer_finish(&detokenizer, &stream->text) : st;
}

static tsr_status pass_on(tsr_text_stream *stream)
{
    tsr_status st = TSR_OK;

    if (stream->stops == NULL)
        st = tsr_text_add(&stream->text, stream->fresh.bytes, stream->fresh.count);
    else if (stream->matched < 0)
        st = tsr_stop_strings_push(stream->stops, stream->fresh.bytes, stream->fresh.count,
                                   &stream->text, &stream->matched);
    tsr_text_clear(&stream->fresh);
    return st;
}

tsr_status tsr_text_stream_push(tsr_text_stream *stream, const tsr_output *output, bool *ret_cancel)
{
    const bool last = output->finish != TSR_FINISH_NONE;
    tsr_status st = TSR_OK;

    if (output->token >= 0 && output->finish != TSR_FINISH_STOP)
        st = tsr_detokenizer_push(&stream->detokenizer, output->token, &stream->fresh);
    if (st == TSR_OK && last)
        st = tsr_detokenizer_finish(&stream->detokenizer, &stream->fresh);
    if (st == TSR_OK)
        st = pass_on(stream);
    if (st == TSR_OK && last && stream->stops != NULL && stream->matched < 0)
        st = tsr_stop_strings_finish(stream->stops, &stream->text);
    if (st == TSR_OK)
        *ret_cancel = !last && stream->matched >= 0;
    return st;
}

void tsr_text_stream_close(tsr_text_stream *stream)
{
    tsr_stop_strings_close(stream->stops);
    tsr_text_close(&stream->fresh);
    tsr_text_close(&stream->text);
    *stream = (tsr_text_stream){.matched = -1};
}
