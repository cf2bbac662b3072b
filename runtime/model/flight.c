/* The memory of one step under way; flight.h draws what moves. */
#include "runtime/model/flight.h"

#include "runtime/base/log.h"

static tsr_status take_host_memory(const tsr_plan *plan, tsr_device *device, tsr_flight *f)
{
    const tsr_batch_sizes most = tsr_batch_most(&plan->limits, plan->model.vocab);
    void *results = NULL;
    void *top = NULL;
    tsr_status st = tsr_device_host_alloc(device, tsr_batch_bytes(&most), &f->image);
    if (st == TSR_OK)
        st = tsr_device_host_alloc(device, (size_t)most.samples * sizeof(*f->results), &results);
    if (st == TSR_OK)
        st = tsr_device_host_alloc(device, (size_t)most.tops * sizeof(*f->top_results), &top);
    f->results = results;
    f->top_results = top;
    return st;
}

tsr_status tsr_flight_open(const tsr_plan *plan, const tsr_step *step, int32_t number,
                           tsr_flight *ret_flight)
{
    tsr_flight f = {
        .device = step->device,
        .block = step->array[TSR_STEP_BATCH][number],
        .logits = step->array[TSR_STEP_LOGITS][number],
        .masks = step->array[TSR_STEP_MASKS][number],
    };
    tsr_status st = take_host_memory(plan, step->device, &f);
    if (st == TSR_OK)
        st = tsr_device_mark_open(step->device, &f.put_mark);
    if (st == TSR_OK)
        st = tsr_device_mark_open(step->device, &f.mark);
    if (st == TSR_OK)
        *ret_flight = f;
    else
        tsr_flight_close(&f);
    return st;
}

static bool count_within(const char *what, int64_t value, int64_t limit)
{
    if (value >= 0 && value <= limit)
        return true;
    tsr_log(TSR_LOG_ERROR, "step: %s is %lld, the limit is %lld", what, (long long)value,
            (long long)limit);
    return false;
}

tsr_status tsr_flight_lay_out(tsr_flight *flight, const tsr_plan *plan,
                              const tsr_batch_sizes *count)
{
    const tsr_batch_sizes most = tsr_batch_most(&plan->limits, plan->model.vocab);
    if (!count_within("samples", count->samples, most.samples) ||
        !count_within("tops", count->tops, most.tops) ||
        !count_within("sequences", count->sequences, most.sequences) ||
        !count_within("tokens", count->tokens, most.tokens) ||
        !count_within("logit_rows", count->logit_rows, most.logit_rows) ||
        !count_within("blocks", count->blocks, most.blocks) ||
        !count_within("prompts", count->prompts, most.prompts) ||
        !count_within("prompt_ids", count->prompt_ids, most.prompt_ids) ||
        !count_within("rules", count->rules, most.rules) ||
        !count_within("masks", count->masks, most.masks) ||
        !count_within("mask_words", count->mask_words, most.mask_words))
        return TSR_ERR_ARG;
    flight->batch = tsr_batch_over(flight->image, count);
    flight->on_device = tsr_batch_over(flight->block, count);
    return TSR_OK;
}

/* What indexes the text or an array is checked here: kernels trust it. */
static bool rows_fit(const tsr_batch *b, const tsr_text_table *text)
{
    for (int32_t t = 0; t < b->count.tokens; t++) {
        if (!count_within("a slot", b->slot[t], text->slots - 1) ||
            !count_within("a position", b->position[t], text->positions - 1))
            return false;
    }
    for (int32_t r = 0; r < b->count.logit_rows; r++) {
        if (!count_within("a row of logits", b->logit_row[r], b->count.tokens - 1))
            return false;
    }
    for (int32_t i = 0; i < b->count.samples; i++) {
        if (!count_within("a sampled row", b->sample[i].logit_row, b->count.logit_rows - 1) ||
            !count_within("a slot", b->sample[i].slot, text->slots - 1))
            return false;
    }
    return true;
}

static bool prompts_fit(const tsr_batch *b, const tsr_plan *plan, const tsr_text_table *text)
{
    int64_t ids = 0;
    for (int32_t p = 0; p < b->count.prompts; p++) {
        if (!count_within("a slot", b->prompt[p].slot, text->slots - 1) ||
            !count_within("a prompt", b->prompt[p].count, text->positions))
            return false;
        ids += b->prompt[p].count;
    }
    if (!count_within("prompt_ids", ids, b->count.prompt_ids))
        return false;
    for (int64_t i = 0; i < ids; i++) {
        if (!count_within("a token", b->prompt_id[i], plan->model.vocab - 1))
            return false;
    }
    return true;
}

static bool rules_fit(const tsr_batch *b, const tsr_plan *plan, const tsr_text_table *text)
{
    for (int32_t i = 0; i < b->count.rules; i++) {
        const tsr_token_rules *r = &b->rules[i];
        const char *wrong = tsr_rules_wrong(r, tsr_rules_bytes(r), plan->model.vocab);
        if (wrong != NULL)
            tsr_log(TSR_LOG_ERROR, "step: rules: %s", wrong);
        if (wrong != NULL || !count_within("a slot", r->slot, text->slots - 1))
            return false;
    }
    return true;
}

tsr_status tsr_flight_put(const tsr_flight *flight, const tsr_plan *plan,
                          const tsr_text_table *text, tsr_token_rules *rules, tsr_stream putting,
                          tsr_stream stream)
{
    const tsr_batch *b = &flight->batch;
    const int32_t *ids = b->prompt_id;
    if (!rows_fit(b, text) || !prompts_fit(b, plan, text) || !rules_fit(b, plan, text))
        return TSR_ERR_ARG;

    tsr_status st = tsr_device_put(flight->device, flight->block, flight->image,
                                   tsr_batch_device_bytes(&b->count), putting);
    if (st == TSR_OK)
        st = tsr_device_mark(flight->device, flight->put_mark, putting);
    if (st == TSR_OK)
        st = tsr_device_await(flight->device, flight->put_mark, stream);
    for (int32_t p = 0; st == TSR_OK && p < b->count.prompts; p++) {
        const size_t at = (size_t)b->prompt[p].slot * (size_t)text->positions;
        const size_t count = (size_t)b->prompt[p].count;
        st = tsr_device_put(flight->device, text->ids + at, ids, count * sizeof(*ids), stream);
        ids += count;
    }
    for (int32_t i = 0; st == TSR_OK && i < b->count.rules; i++)
        st = tsr_device_put(flight->device, rules + b->rules[i].slot, &b->rules[i],
                            tsr_rules_bytes(&b->rules[i]), stream);
    if (st == TSR_OK && b->count.masks > 0)
        st = tsr_device_put(flight->device, flight->masks, b->mask,
                            (size_t)b->count.masks * (size_t)b->count.mask_words * sizeof(*b->mask),
                            stream);
    return st;
}

void tsr_flight_close(tsr_flight *flight)
{
    if (flight->device == NULL)
        return;
    tsr_device_mark_close(flight->device, flight->mark);
    tsr_device_mark_close(flight->device, flight->put_mark);
    tsr_device_host_free(flight->device, flight->top_results);
    tsr_device_host_free(flight->device, flight->results);
    tsr_device_host_free(flight->device, flight->image);
    *flight = (tsr_flight){0};
}
