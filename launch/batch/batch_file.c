/*
 * From lines to requests and back. A request's id is the address of its answer:
 *
 *   line 8 of 3 prompts  -> live[2] -> requests 2 << 16 | 0, 2 << 16 | 1, 2 << 16 | 2
 *   token of 2 << 16 | 1 -> live[2]->choices[1]
 *   all three finished   -> one line of output, live[2] is free
 *
 * Lines are held up to a number and up to an amount of memory, and read for so long between two
 * steps: no file and no line of one holds up the ranks. A line that fails is answered at once (its
 * number becomes 0), but stays until the engine has let go of its other prompts, which still carry
 * its address.
 */
#include "launch/batch/batch_file.h"

#include "launch/batch/batch_answer.h"
#include "launch/batch/batch_answered.h"
#include "launch/batch/batch_line.h"
#include "launch/files/line_file.h"
#include "launch/files/line_scan.h"
#include "launch/files/output_file.h"
#include "launch/job/signals.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_LIVE = 1024,
    PROMPT_BITS = 16,
    READ_MS = 20,            /* of lines that come to nothing, between two steps */
    PUSH_BYTES = 64 << 10,   /* errors are written by so many */
    FIRST_BYTES = 256 << 10, /* of output are taken at the start: an error needs no more memory */
    TURN_MS = 10
};

static const size_t max_waiting_bytes = (size_t)8 << 20;

struct tsr_batch_file {
    tsr_batch_args args;
    tsr_line_file *in;
    tsr_output_file *out;
    tsr_batch_answered *answered; /* NULL: nothing is resumed */
    tsr_batch_line *live[MAX_LIVE];
    size_t live_count;
    size_t live_bytes;
    size_t failed_live;         /* lines whose other prompts are to be let go */
    tsr_batch_line *submitting; /* has prompts the engine has not seen */
    size_t submitting_slot;
    bool ended;
    tsr_batch_counts counts;
};

static tsr_status open_output(tsr_batch_file *batch)
{
    const tsr_output_args args = {
        .option = "--output", .path = batch->args.output, .deadline_ms = batch->args.deadline_ms};
    char *room = malloc(FIRST_BYTES);
    tsr_status st = room != NULL ? tsr_output_file_open(&args, &batch->out) : TSR_ERR_MEMORY;

    if (st == TSR_OK && batch->args.resume)
        st = tsr_batch_answered_open(&batch->answered);
    if (st == TSR_OK && batch->args.resume) {
        const tsr_line_keeper keeper = tsr_batch_answered_keeper(batch->answered);
        st = tsr_output_file_resume(batch->out, &keeper);
    }
    if (st == TSR_OK) {
        memset(room, ' ', FIRST_BYTES);
        st = tsr_text_add(tsr_output_file_text(batch->out), room, FIRST_BYTES);
        tsr_text_clear(tsr_output_file_text(batch->out));
    }
    free(room);
    return st;
}

tsr_status tsr_batch_file_open(const tsr_batch_args *args, tsr_batch_file **ret_batch)
{
    tsr_batch_file *batch = calloc(1, sizeof(*batch));
    if (batch == NULL)
        return TSR_ERR_MEMORY;

    batch->args = *args;
    tsr_status st = tsr_line_file_open(args->input, &batch->in);
    if (st == TSR_ERR_ARG)
        tsr_log(TSR_LOG_ERROR, "--input %s: cannot be read: %s", args->input, strerror(errno));
    if (st == TSR_OK)
        st = open_output(batch);
    if (st == TSR_OK)
        *ret_batch = batch;
    else
        tsr_batch_file_close(batch);
    return st;
}

/* A line that comes to nothing. */
static tsr_status fail_line(tsr_batch_file *batch, const tsr_line_scan *scan,
                            const tsr_refusal *refusal)
{
    batch->counts.failed++;
    return tsr_batch_error_add(scan->custom_id, scan->custom_id_bytes, batch->counts.lines, refusal,
                               tsr_output_file_text(batch->out));
}

static void make_live(tsr_batch_file *batch, tsr_batch_line *line)
{
    size_t slot = 0;
    while (batch->live[slot] != NULL)
        slot++;
    batch->live[slot] = line;
    batch->live_count++;
    batch->live_bytes += line->bytes;
    batch->submitting = line;
    batch->submitting_slot = slot;
}

static void free_slot(tsr_batch_file *batch, size_t slot)
{
    tsr_batch_line *line = batch->live[slot];

    if (line == NULL)
        return;
    if (batch->submitting == line)
        batch->submitting = NULL;
    batch->failed_live -= line->number == 0;
    batch->live_bytes -= line->bytes;
    batch->live_count--;
    batch->live[slot] = NULL;
    tsr_batch_line_close(line);
}

/* Counts a line that an earlier run has answered. */
static bool was_answered(tsr_batch_file *batch, const tsr_line_scan *scan)
{
    const bool found =
        batch->answered != NULL && scan->custom_id != NULL &&
        tsr_batch_answered_take(batch->answered, scan->custom_id, scan->custom_id_bytes);

    batch->counts.kept += found;
    return found;
}

/* Turns one line into a live one, or into a line of output that says why not. */
static tsr_status admit_line(tsr_batch_file *batch, const tsr_line *read)
{
    const tsr_line_scan scan = tsr_batch_line_scan(read);
    tsr_batch_line *line = NULL;
    tsr_refusal refusal = {0};

    if (was_answered(batch, &scan))
        return TSR_OK;
    const tsr_status st = tsr_batch_line_read(read, &scan, batch->args.context, &line, &refusal);
    if (st == TSR_OK) {
        line->number = batch->counts.lines;
        make_live(batch, line);
        return TSR_OK;
    }
    if (st != TSR_ERR_ARG)
        tsr_batch_fault(st, &refusal);
    return fail_line(batch, &scan, &refusal);
}

static bool is_blank(const tsr_line *line)
{
    for (size_t i = 0; i < line->count; i++) {
        if (strchr(" \t\r", line->bytes[i]) == NULL || line->bytes[i] == '\0')
            return false;
    }
    return line->loss == TSR_LINE_KEPT;
}

/* The next line that is not empty, if one comes within `wait_ms`. */
static tsr_status next_line(tsr_batch_file *batch, int32_t wait_ms, tsr_line_state *ret_state,
                            tsr_line *ret_line)
{
    tsr_status st = tsr_line_file_next(batch->in, wait_ms, ret_state, ret_line);

    while (st == TSR_OK && *ret_state == TSR_LINE_ONE && is_blank(ret_line))
        st = tsr_line_file_next(batch->in, 0, ret_state, ret_line);
    if (st == TSR_ERR_ARG)
        tsr_log(TSR_LOG_ERROR, "--input %s: cannot be read: %s", batch->args.input,
                strerror(errno));
    batch->ended = st != TSR_OK || *ret_state == TSR_LINE_END;
    batch->counts.lines += st == TSR_OK && *ret_state == TSR_LINE_ONE;
    return st;
}

static bool has_room(const tsr_batch_file *batch)
{
    return batch->live_count < MAX_LIVE && batch->live_bytes < TSR_MAX_BATCH_LINE_BYTES &&
           tsr_output_file_waiting(batch->out) < max_waiting_bytes;
}

/* Reads until there is something to submit, within `wait_ms` or a short while. */
static tsr_status find_line(tsr_batch_file *batch, int32_t wait_ms)
{
    const int64_t now_ms = tsr_clock_ms();
    const int64_t until_ms = now_ms + (wait_ms > READ_MS ? wait_ms : READ_MS);
    const int64_t wait_until_ms = now_ms + wait_ms;
    tsr_line_state state = TSR_LINE_ONE;
    tsr_line line;
    tsr_status st = TSR_OK;

    while (st == TSR_OK && state == TSR_LINE_ONE && batch->submitting == NULL && !batch->ended &&
           has_room(batch) && tsr_clock_ms() < until_ms) {
        const int64_t left_ms = wait_until_ms - tsr_clock_ms();
        st = next_line(batch, left_ms > 0 ? (int32_t)left_ms : 0, &state, &line);
        if (st == TSR_OK && state == TSR_LINE_ONE)
            st = admit_line(batch, &line);
    }
    return st == TSR_OK ? tsr_output_file_push(batch->out) : st;
}

/* The next prompt of the line that is being submitted. */
static tsr_request next_prompt(tsr_batch_file *batch)
{
    tsr_batch_line *line = batch->submitting;
    const size_t index = line->submitted++;
    const size_t copies = (size_t)line->generation.copies;
    const tsr_ids *prompt = &line->generation.prompts[index / copies];
    tsr_request request = line->generation.request;

    request.id = (uint64_t)batch->submitting_slot << PROMPT_BITS | index;
    request.prompt = prompt->ids;
    request.prompt_tokens = (int32_t)prompt->count;
    request.seed += index % copies; /* where one was given */
    if (line->submitted == line->choice_count)
        batch->submitting = NULL;
    return request;
}

/* The prompts of failed lines that the engine still has. */
static bool next_withdrawn(tsr_batch_file *batch, uint64_t *ret_id)
{
    for (size_t slot = 0; slot < MAX_LIVE && batch->failed_live > 0; slot++) {
        tsr_batch_line *line = batch->live[slot];
        while (line != NULL && line->number == 0 && line->withdrawn < line->submitted) {
            const size_t index = line->withdrawn++;
            *ret_id = (uint64_t)slot << PROMPT_BITS | index;
            if (line->choices[index].finish == TSR_FINISH_NONE)
                return true;
        }
    }
    return false;
}

/* Reads lines only where there is room for one. */
static tsr_status ask_for_prompt(void *context, const tsr_question *question, tsr_wish *ret_wish)
{
    tsr_batch_file *batch = context;
    const int32_t wait_ms = question->wait_ms;

    if (next_withdrawn(batch, &ret_wish->cancel)) {
        ret_wish->kind = TSR_WISH_CANCEL;
        return TSR_OK;
    }
    if (tsr_signals_drain()) {
        ret_wish->kind = TSR_WISH_DRAIN;
        return TSR_OK;
    }
    if (!question->room)
        return tsr_output_file_push(batch->out);
    const tsr_status st = find_line(batch, wait_ms);
    if (st != TSR_OK)
        return st;
    if (batch->submitting != NULL) {
        ret_wish->kind = TSR_WISH_REQUEST;
        ret_wish->request = next_prompt(batch);
        return TSR_OK;
    }
    const bool waits = tsr_output_file_waiting(batch->out) > 0;
    if (batch->ended && batch->live_count == 0 && !waits)
        ret_wish->kind = TSR_WISH_END;
    else if (waits && wait_ms > 0)
        (void)poll(NULL, 0, wait_ms < TURN_MS ? wait_ms : TURN_MS);
    return TSR_OK;
}

/* The engine would not take one prompt, or not end it: the whole line fails, answers of its other
 * prompts are dropped, and none of them begins. */
static tsr_status fail_live(tsr_batch_file *batch, size_t slot, const tsr_refusal *refusal)
{
    tsr_batch_line *line = batch->live[slot];

    const tsr_status st =
        tsr_batch_error_add(line->custom_id.bytes, line->custom_id.count, line->number, refusal,
                            tsr_output_file_text(batch->out));
    batch->counts.failed++;
    batch->failed_live++;
    line->number = 0;
    if (batch->submitting == line)
        batch->submitting = NULL;
    return st;
}

static tsr_status fail_output(tsr_batch_file *batch, size_t slot, const tsr_output *output)
{
    tsr_refusal refusal = {0};

    if (output->finish == TSR_FINISH_FAILED)
        tsr_batch_not_finite(output, &refusal);
    else if (output->finish == TSR_FINISH_STUCK)
        (void)tsr_refuse(&refusal, "no_token_left", NULL, "after %d tokens: %s",
                         output->output_tokens, output->refusal);
    else if (output->cause != TSR_OK)
        tsr_batch_fault(output->cause, &refusal);
    else
        (void)tsr_refuse(&refusal, "invalid_value", NULL, "%s", output->refusal);
    return fail_live(batch, slot, &refusal);
}

static tsr_status end_line(tsr_batch_file *batch, size_t slot)
{
    const tsr_batch_line *line = batch->live[slot];
    tsr_refusal refusal = {0};
    tsr_status st = TSR_OK;

    if (line->number != 0)
        st = tsr_batch_answer_add(line, batch->args.context->tokenizer, batch->args.model,
                                  tsr_output_file_text(batch->out));
    if (st == TSR_ERR_MEMORY) {
        tsr_batch_fault(st, &refusal);
        st = fail_live(batch, slot, &refusal);
    }
    free_slot(batch, slot);
    return st == TSR_OK ? tsr_output_file_push(batch->out) : st;
}

static tsr_status push_output(const tsr_batch_line *line, tsr_batch_choice *choice,
                              const tsr_output *output, bool *ret_cancel)
{
    const tsr_token_logprob token = {output->token, output->logprob};
    tsr_status st = TSR_OK;

    if (line->generation.logprobs && output->token >= 0)
        st = tsr_logprobs_add(&choice->logprobs, &token, output->top, 1);
    return st == TSR_OK ? tsr_text_stream_push(&choice->stream, output, ret_cancel) : st;
}

static tsr_batch_choice *choice_of(const tsr_batch_file *batch, uint64_t id)
{
    return &batch->live[id >> PROMPT_BITS]->choices[id & ((1U << PROMPT_BITS) - 1)];
}

static tsr_status take_batch_scores(void *context, const tsr_prompt_scores *scores)
{
    tsr_batch_file *batch = context;
    const size_t slot = (size_t)(scores->id >> PROMPT_BITS);
    tsr_refusal refusal = {0};

    if (batch->live[slot]->number == 0)
        return TSR_OK;
    const tsr_status st = tsr_logprobs_add(&choice_of(batch, scores->id)->logprobs, scores->token,
                                           scores->top, scores->count);
    if (st != TSR_ERR_MEMORY)
        return st;
    tsr_batch_fault(st, &refusal);
    return fail_live(batch, slot, &refusal);
}

static tsr_status take_batch_token(void *context, const tsr_output *output, bool *ret_cancel)
{
    tsr_batch_file *batch = context;
    const size_t slot = (size_t)(output->id >> PROMPT_BITS);
    tsr_batch_line *line = batch->live[slot];
    tsr_batch_choice *choice = choice_of(batch, output->id);
    tsr_refusal refusal = {0};
    tsr_status st = TSR_OK;

    *ret_cancel = false;
    choice->prompt_tokens = output->prompt_tokens;
    choice->output_tokens = output->output_tokens;
    if (output->token >= 0)
        choice->last_token = output->token;
    if (line->number != 0 &&
        (output->finish == TSR_FINISH_REFUSED || output->finish == TSR_FINISH_FAILED ||
         output->finish == TSR_FINISH_STUCK))
        st = fail_output(batch, slot, output);
    else if (line->number != 0)
        st = push_output(line, choice, output, ret_cancel);
    if (st == TSR_ERR_MEMORY && line->number != 0) {
        tsr_batch_fault(st, &refusal);
        st = fail_live(batch, slot, &refusal);
    }
    if (st != TSR_OK || output->finish == TSR_FINISH_NONE)
        return st;

    choice->finish = output->finish;
    line->finished++;
    const size_t wanted = line->number != 0 ? line->choice_count : line->submitted;
    return line->finished == wanted ? end_line(batch, slot) : TSR_OK;
}

tsr_source tsr_batch_file_source(tsr_batch_file *batch)
{
    return (tsr_source){.ask = ask_for_prompt, .context = batch};
}

tsr_sink tsr_batch_file_sink(tsr_batch_file *batch)
{
    return (tsr_sink){.token = take_batch_token, .scores = take_batch_scores, .context = batch};
}

/* Lines nobody has begun with, as many as there are now. */
static tsr_status fail_rest(tsr_batch_file *batch, const tsr_refusal *refusal)
{
    tsr_line_state state = TSR_LINE_ONE;
    tsr_line line;
    tsr_status st = TSR_OK;

    while (st == TSR_OK && state == TSR_LINE_ONE && !batch->ended) {
        st = next_line(batch, 0, &state, &line);
        if (st != TSR_OK || state != TSR_LINE_ONE)
            continue;
        const tsr_line_scan scan = tsr_batch_line_scan(&line);
        if (!was_answered(batch, &scan))
            st = fail_line(batch, &scan, refusal);
        if (st == TSR_OK && tsr_output_file_waiting(batch->out) > PUSH_BYTES)
            st = tsr_output_file_push(batch->out);
    }
    return st;
}

tsr_status tsr_batch_file_finish(tsr_batch_file *batch, tsr_status status,
                                 tsr_batch_counts *ret_counts)
{
    tsr_refusal refusal = {0};
    tsr_status st = TSR_OK;

    *ret_counts = (tsr_batch_counts){0};
    if (status != TSR_OK && batch->counts.lines == 0)
        return TSR_OK;
    tsr_batch_fault(status, &refusal);
    for (size_t slot = 0; slot < MAX_LIVE; slot++) {
        if (batch->live[slot] == NULL)
            continue;
        if (st == TSR_OK && batch->live[slot]->number != 0)
            st = fail_live(batch, slot, &refusal);
        free_slot(batch, slot);
    }
    if (st == TSR_OK)
        st = fail_rest(batch, &refusal);
    if (st == TSR_OK)
        st = tsr_output_file_finish(batch->out);
    if (st == TSR_OK)
        *ret_counts = batch->counts;
    return st;
}

void tsr_batch_file_close(tsr_batch_file *batch)
{
    if (batch == NULL)
        return;
    for (size_t slot = 0; slot < MAX_LIVE; slot++)
        tsr_batch_line_close(batch->live[slot]);
    tsr_output_file_close(batch->out);
    tsr_batch_answered_close(batch->answered);
    tsr_line_file_close(batch->in);
    free(batch);
}
