/*
 * From lines to requests and back. A request's id is the address of its answer:
 *
 *   line 8 of 3 prompts  -> live[2] -> requests 2 << 16 | 0, 2 << 16 | 1, 2 << 16 | 2
 *   token of 2 << 16 | 1 -> live[2]->choices[1]
 *   all three finished   -> one line of output, live[2] is free
 *
 * At most MAX_LIVE lines are held, so a file of any length takes bounded memory. A line that fails
 * is answered at once (its number becomes 0), but stays until the engine has let go of its other
 * prompts, which still carry its address.
 */
#include "launch/batch_file.h"

#include "launch/batch_answer.h"
#include "launch/line_file.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LIVE = 1024, PROMPT_BITS = 16, HTTP_SERVER_ERROR = 500 };

struct tsr_batch_file {
    tsr_line_file *in;
    FILE *out;
    const char *input; /* paths, for messages; borrowed */
    const char *output;
    const tsr_request_context *context;
    const char *model;
    tsr_batch_line *live[MAX_LIVE];
    size_t live_count;
    tsr_batch_line *submitting; /* has prompts the engine has not seen */
    size_t submitting_slot;
    bool ended;
    tsr_batch_counts counts;
};

tsr_status tsr_batch_file_open(const char *input, const char *output,
                               const tsr_request_context *context, const char *model,
                               tsr_batch_file **ret_batch)
{
    tsr_batch_file *batch = calloc(1, sizeof(*batch));
    if (batch == NULL)
        return TSR_ERR_MEMORY;

    tsr_status st = tsr_line_file_open(input, &batch->in);
    if (st != TSR_OK) {
        tsr_log(TSR_LOG_ERROR, "--input %s: cannot be read: %s", input, strerror(errno));
        goto undo_alloc;
    }
    st = TSR_ERR_OUTPUT;
    batch->out = fopen(output, "we");
    if (batch->out == NULL) {
        tsr_log(TSR_LOG_ERROR, "--output %s: cannot be written: %s", output, strerror(errno));
        goto undo_input;
    }
    batch->input = input;
    batch->output = output;
    batch->context = context;
    batch->model = model;
    *ret_batch = batch;
    return TSR_OK;

undo_input:
    tsr_line_file_close(batch->in);
undo_alloc:
    free(batch);
    return st;
}

static void close_line(tsr_batch_line *line)
{
    if (line == NULL)
        return;
    for (size_t i = 0; line->choices != NULL && i < line->generation.prompt_count; i++)
        tsr_text_stream_close(&line->choices[i].stream);
    free(line->choices);
    tsr_generation_close(&line->generation);
    json_decref(line->custom_id);
    free(line);
}

/* What was written is on disk line by line; a full disk ends the run. */
static tsr_status check_written(const tsr_batch_file *batch, tsr_status st)
{
    if (st == TSR_ERR_OUTPUT)
        tsr_log(TSR_LOG_ERROR, "--output %s: cannot be written: %s", batch->output,
                strerror(errno));
    return st;
}

static tsr_status fail_line(tsr_batch_file *batch, const json_t *custom_id,
                            const tsr_refusal *refusal)
{
    json_t *none = json_null();
    batch->counts.failed++;
    return check_written(batch, tsr_batch_error_write(custom_id != NULL ? custom_id : none,
                                                      batch->counts.lines, refusal, batch->out));
}

static tsr_body_kind kind_of(const json_t *line)
{
    const char *url = json_string_value(json_object_get(line, "url"));
    if (url == NULL)
        return TSR_BODY_BY_CONTENT;
    return strstr(url, "/chat/") != NULL ? TSR_BODY_CHAT : TSR_BODY_COMPLETION;
}

static tsr_status open_choices(tsr_batch_file *batch, tsr_batch_line *line)
{
    const tsr_generation *g = &line->generation;
    tsr_status st = TSR_OK;

    if (g->prompt_count == 0)
        return TSR_ERR_INTERNAL;
    line->choices = calloc(g->prompt_count, sizeof(*line->choices));
    if (line->choices == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < g->prompt_count && st == TSR_OK; i++)
        st = tsr_text_stream_open(batch->context->tokenizer, g->skip_special,
                                  (const char *const *)g->stops, g->stop_count, g->include_stop,
                                  &line->choices[i].stream);
    return st;
}

static void make_live(tsr_batch_file *batch, tsr_batch_line *line)
{
    size_t slot = 0;
    while (batch->live[slot] != NULL)
        slot++;
    batch->live[slot] = line;
    batch->live_count++;
    batch->submitting = line;
    batch->submitting_slot = slot;
}

/* Turns one parsed line into a live one, or into a line of output that says why not. */
static tsr_status admit_request(tsr_batch_file *batch, json_t *json)
{
    json_t *custom_id = json_object_get(json, "custom_id");
    const json_t *body = json_object_get(json, "body");
    tsr_refusal refusal = {0};
    tsr_status st = TSR_OK;

    tsr_batch_line *line = calloc(1, sizeof(*line));
    if (line == NULL)
        return TSR_ERR_MEMORY;
    line->number = batch->counts.lines;
    line->custom_id = custom_id != NULL ? json_incref(custom_id) : json_null();

    if (!json_is_string(custom_id))
        st = tsr_refuse(&refusal, "invalid_value", "custom_id", "custom_id: expected a string");
    else if (body == NULL)
        st = tsr_refuse(&refusal, "invalid_value", "body", "body: missing");
    else
        st =
            tsr_request_body_read(body, kind_of(json), batch->context, &line->generation, &refusal);
    if (st == TSR_OK)
        st = open_choices(batch, line);
    if (st == TSR_OK) {
        make_live(batch, line);
        return TSR_OK;
    }
    if (st == TSR_ERR_ARG)
        st = fail_line(batch, custom_id, &refusal);
    close_line(line);
    return st;
}

/* Bytes of the mark that some editors put in front of a file. */
static size_t mark_bytes(const tsr_line *line)
{
    static const char mark[] = "\xef\xbb\xbf";
    const size_t bytes = sizeof(mark) - 1;
    return line->number == 1 && line->count >= bytes && memcmp(line->bytes, mark, bytes) == 0
               ? bytes
               : 0;
}

static tsr_status admit_line(tsr_batch_file *batch, const tsr_line *line)
{
    const size_t mark = mark_bytes(line);
    tsr_refusal refusal = {0};
    json_error_t error = {0};
    json_t *json = NULL;

    if (!line->too_long)
        json = json_loadb(line->bytes + mark, line->count - mark,
                          JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (json == NULL) {
        (void)tsr_refuse(&refusal, "invalid_json", NULL, "line %llu: not valid JSON: %s",
                         (unsigned long long)line->number,
                         line->too_long ? "longer than 64 MiB" : error.text);
        return fail_line(batch, NULL, &refusal);
    }
    const tsr_status st = admit_request(batch, json);
    json_decref(json);
    return st;
}

static bool is_blank(const tsr_line *line)
{
    for (size_t i = 0; i < line->count; i++) {
        if (strchr(" \t\r", line->bytes[i]) == NULL || line->bytes[i] == '\0')
            return false;
    }
    return !line->too_long;
}

/* Reads one line, if one comes within `wait_ms`. Empty lines are skipped. */
static tsr_status read_line(tsr_batch_file *batch, int32_t wait_ms, bool *ret_none)
{
    tsr_line_state state = TSR_LINE_END;
    tsr_line line = {0};

    const tsr_status st = tsr_line_file_next(batch->in, wait_ms, &state, &line);
    if (st != TSR_OK) {
        batch->ended = true;
        tsr_log(TSR_LOG_ERROR, "--input %s: cannot be read: %s", batch->input, strerror(errno));
        return st;
    }
    *ret_none = state == TSR_LINE_NONE;
    batch->ended = state == TSR_LINE_END;
    if (state != TSR_LINE_ONE || is_blank(&line))
        return TSR_OK;
    batch->counts.lines++;
    return admit_line(batch, &line);
}

static tsr_status next_request(void *context, int32_t wait_ms, tsr_request *ret_request,
                               bool *ret_more, bool *ret_ended)
{
    tsr_batch_file *batch = context;
    tsr_status st = TSR_OK;
    bool none = false;

    *ret_more = false;
    while (st == TSR_OK && !none && batch->submitting == NULL && !batch->ended &&
           batch->live_count < MAX_LIVE)
        st = read_line(batch, wait_ms, &none);
    if (st != TSR_OK)
        return st;

    tsr_batch_line *line = batch->submitting;
    *ret_ended = batch->ended && line == NULL;
    if (line == NULL)
        return TSR_OK;

    const size_t index = line->submitted++;
    *ret_request = line->generation.request;
    ret_request->id = (uint64_t)batch->submitting_slot << PROMPT_BITS | index;
    ret_request->prompt = line->generation.prompts[index].ids;
    ret_request->prompt_tokens = (int32_t)line->generation.prompts[index].count;
    *ret_more = true;
    if (line->submitted == line->generation.prompt_count)
        batch->submitting = NULL;
    return TSR_OK;
}

static tsr_status end_line(tsr_batch_file *batch, size_t slot)
{
    tsr_batch_line *line = batch->live[slot];
    const tsr_status st = tsr_batch_answer_write(line, batch->model, batch->out);

    close_line(line);
    batch->live[slot] = NULL;
    batch->live_count--;
    return check_written(batch, st);
}

/* The engine would not take one prompt: the whole line fails; answers of its other prompts are
 * dropped. */
static tsr_status refuse_line(tsr_batch_file *batch, size_t slot, const char *why)
{
    tsr_batch_line *line = batch->live[slot];
    tsr_refusal refusal = {0};

    (void)tsr_refuse(&refusal, "invalid_value", NULL, "%s", why);
    batch->counts.failed++;
    return check_written(
        batch, tsr_batch_error_write(line->custom_id, line->number, &refusal, batch->out));
}

/* One of its prompts has no next token: no answer is better than half of one. */
static tsr_status fail_not_finite(tsr_batch_file *batch, size_t slot, const tsr_output *output)
{
    const tsr_batch_line *line = batch->live[slot];
    tsr_refusal refusal = {0};

    (void)tsr_refuse(&refusal, "not_finite", NULL, "after %d tokens: %s", output->output_tokens,
                     output->refusal);
    refusal.status = HTTP_SERVER_ERROR;
    batch->counts.failed++;
    return check_written(
        batch, tsr_batch_error_write(line->custom_id, line->number, &refusal, batch->out));
}

static tsr_status take_batch_token(void *context, const tsr_output *output, bool *ret_cancel)
{
    tsr_batch_file *batch = context;
    const size_t slot = (size_t)(output->id >> PROMPT_BITS);
    tsr_batch_line *line = batch->live[slot];
    tsr_batch_choice *choice = &line->choices[output->id & ((1U << PROMPT_BITS) - 1)];

    *ret_cancel = false;
    choice->prompt_tokens = output->prompt_tokens;
    choice->output_tokens = output->output_tokens;
    if (output->token >= 0)
        choice->last_token = output->token;
    tsr_status st = TSR_OK;
    if (output->finish == TSR_FINISH_REFUSED && line->number != 0) {
        st = refuse_line(batch, slot, output->refusal);
        line->number = 0; /* its answer is written */
    } else if (output->finish == TSR_FINISH_FAILED && line->number != 0) {
        st = fail_not_finite(batch, slot, output);
        line->number = 0;
    } else {
        st = tsr_text_stream_push(&choice->stream, output, ret_cancel);
    }
    if (st != TSR_OK || output->finish == TSR_FINISH_NONE)
        return st;

    choice->finish = output->finish;
    line->finished++;
    if (line->finished < line->generation.prompt_count)
        return TSR_OK;
    if (line->number != 0)
        return end_line(batch, slot);
    close_line(line);
    batch->live[slot] = NULL;
    batch->live_count--;
    return TSR_OK;
}

tsr_source tsr_batch_file_source(tsr_batch_file *batch)
{
    return (tsr_source){.next = next_request, .context = batch};
}

tsr_sink tsr_batch_file_sink(tsr_batch_file *batch)
{
    return (tsr_sink){.token = take_batch_token, .context = batch};
}

tsr_status tsr_batch_file_finish(tsr_batch_file *batch, const char *reason,
                                 tsr_batch_counts *ret_counts)
{
    tsr_status st = TSR_OK;
    bool none = false;

    batch->submitting = NULL;
    for (size_t slot = 0; slot < MAX_LIVE && st == TSR_OK; slot++) {
        if (batch->live[slot] != NULL && batch->live[slot]->number != 0)
            st = refuse_line(batch, slot, reason);
        close_line(batch->live[slot]);
        batch->live[slot] = NULL;
    }
    batch->live_count = 0;
    while (st == TSR_OK && !batch->ended && !none) {
        st = read_line(batch, 0, &none);
        if (st == TSR_OK && batch->submitting != NULL) {
            st = refuse_line(batch, batch->submitting_slot, reason);
            close_line(batch->submitting);
            batch->live[batch->submitting_slot] = NULL;
            batch->live_count--;
            batch->submitting = NULL;
        }
    }
    const int closed = fclose(batch->out);
    batch->out = NULL;
    if (st == TSR_OK && closed != 0)
        st = check_written(batch, TSR_ERR_OUTPUT);
    if (st == TSR_OK)
        *ret_counts = batch->counts;
    return st;
}

void tsr_batch_file_close(tsr_batch_file *batch)
{
    if (batch == NULL)
        return;
    for (size_t slot = 0; slot < MAX_LIVE; slot++)
        close_line(batch->live[slot]);
    if (batch->out != NULL)
        (void)fclose(batch->out);
    tsr_line_file_close(batch->in);
    free(batch);
}
