/* One prompt is a source of one request and a sink that prints. The text goes out as it comes:
 * whoever reads at the other end of a pipe sees it at once. The source has not ended before all of
 * it is out, so that a slow reader holds up no rank. */
#include "launch/batch/prompt_session.h"

#include "launch/job/signals.h"
#include "runtime/base/log.h"

#include <poll.h>
#include <unistd.h>

enum { TURN_MS = 10 };

tsr_status tsr_prompt_session_open(tsr_generation *generation, const tsr_tokenizer *tokenizer,
                                   int32_t deadline_ms, tsr_prompt_session *session)
{
    *session = (tsr_prompt_session){.generation = *generation};
    *generation = (tsr_generation){0};
    const tsr_generation *g = &session->generation;
    const tsr_status st =
        tsr_output_file_over(STDOUT_FILENO, "standard output", deadline_ms, &session->out);
    if (st != TSR_OK)
        return st;
    return tsr_text_stream_open(tokenizer, g->skip_special, (const char *const *)g->stops,
                                g->stop_count, g->include_stop, &session->stream);
}

static tsr_status ask_for_prompt(void *context, const tsr_question *question, tsr_wish *ret_wish)
{
    tsr_prompt_session *session = context;
    const bool written = tsr_output_file_waiting(session->out) == 0;

    if (session->finish != TSR_FINISH_NONE && written) {
        ret_wish->kind = TSR_WISH_END;
        return TSR_OK;
    }
    if (session->submitted) {
        (void)poll(NULL, 0, question->wait_ms < TURN_MS ? question->wait_ms : TURN_MS);
        return tsr_output_file_push(session->out);
    }
    if (tsr_signals_drain()) {
        ret_wish->kind = TSR_WISH_DRAIN;
        return TSR_OK;
    }
    ret_wish->kind = TSR_WISH_REQUEST;
    ret_wish->request = session->generation.request;
    ret_wish->request.prompt = session->generation.prompts[0].ids;
    ret_wish->request.prompt_tokens = (int32_t)session->generation.prompts[0].count;
    session->submitted = true;
    return TSR_OK;
}

/* Writes what is new. */
static tsr_status show(tsr_prompt_session *session, const tsr_output *output)
{
    const tsr_text *text = &session->stream.text;
    const size_t fresh = text->count - session->shown;
    const bool ended = output->finish != TSR_FINISH_NONE && session->finish == TSR_FINISH_NONE;
    tsr_status st = TSR_OK;
    if (fresh > 0)
        st = tsr_text_add(tsr_output_file_text(session->out), text->bytes + session->shown, fresh);
    if (st == TSR_OK && ended)
        st = tsr_text_add_string(tsr_output_file_text(session->out), "\n");
    if (st == TSR_OK)
        st = tsr_output_file_push(session->out);
    session->shown = text->count;
    session->finish = output->finish;
    return st;
}

static tsr_status take_prompt_token(void *context, const tsr_output *output, bool *ret_cancel)
{
    tsr_prompt_session *session = context;

    if (output->finish == TSR_FINISH_REFUSED) {
        tsr_log(TSR_LOG_ERROR, "the prompt is refused: %s", output->refusal);
        return TSR_ERR_ARG;
    }
    tsr_status st = tsr_text_stream_push(&session->stream, output, ret_cancel);
    if (st == TSR_OK)
        st = show(session, output);
    if (st == TSR_OK &&
        (output->finish == TSR_FINISH_FAILED || output->finish == TSR_FINISH_STUCK)) {
        tsr_log(TSR_LOG_ERROR, "the answer ends after %d tokens: %s", output->output_tokens,
                output->refusal);
        st = output->finish == TSR_FINISH_STUCK ? TSR_ERR_ARG : TSR_ERR_CHECKPOINT;
    }
    return st;
}

tsr_source tsr_prompt_session_source(tsr_prompt_session *session)
{
    return (tsr_source){.ask = ask_for_prompt, .context = session};
}

tsr_sink tsr_prompt_session_sink(tsr_prompt_session *session)
{
    return (tsr_sink){.token = take_prompt_token, .context = session};
}

void tsr_prompt_session_close(tsr_prompt_session *session)
{
    tsr_output_file_close(session->out);
    tsr_text_stream_close(&session->stream);
    tsr_generation_close(&session->generation);
}
