/* The command line becomes the body of a request, so that there is one reader of requests and one
 * set of rules. The tokenizer is opened before there is a plan, which wants to know its ids. */
#include "launch/batch/run_command.h"

#include "launch/batch/batch_file.h"
#include "launch/batch/prompt_session.h"
#include "launch/files/output_path.h"
#include "launch/job/job.h"
#include "launch/report/run_report.h"
#include "launch/request/text_side.h"
#include "runtime/base/log.h"

#include <signal.h>

typedef struct run {
    const tsr_config *config;
    tsr_text_side text;
    tsr_batch_file *batch;      /* with --input */
    tsr_prompt_session session; /* with --prompt or --chat */
    tsr_run_report *report;     /* with --report */
} run;

tsr_status tsr_run_command_check(const tsr_config *config)
{
    const int given = (config->prompt != NULL) + (config->chat != NULL) + (config->input != NULL);

    if (given != 1) {
        tsr_log(TSR_LOG_ERROR, "run needs one of --prompt TEXT, --chat TEXT and --input FILE");
        return TSR_ERR_ARG;
    }
    if ((config->input != NULL) != (config->output != NULL)) {
        tsr_log(TSR_LOG_ERROR, "--input and --output belong together");
        return TSR_ERR_ARG;
    }
    if (config->system != NULL && config->chat == NULL) {
        tsr_log(TSR_LOG_ERROR, "--system belongs to --chat");
        return TSR_ERR_ARG;
    }
    if (config->input != NULL && (config->stop.count || config->max_tokens || config->ignore_eos)) {
        tsr_log(TSR_LOG_ERROR, "--stop, --max-tokens and --ignore-eos are for one prompt; with "
                               "--input they belong into the body of each line");
        return TSR_ERR_ARG;
    }
    if (config->resume && config->output == NULL) {
        tsr_log(TSR_LOG_ERROR, "--resume belongs to --output");
        return TSR_ERR_ARG;
    }
    const tsr_named_path report = {.option = "--report", .path = config->report};
    const tsr_named_path output = {.option = "--output", .path = config->output};
    const tsr_named_path named[] = {{.option = "--input", .path = config->input}, output};
    const tsr_status st = tsr_output_path_check(&output, config->folder, named, 1);
    return st == TSR_OK ? tsr_output_path_check(&report, config->folder, named, 2) : st;
}

static tsr_status prepare(void *context, const tsr_checkpoint *checkpoint, int32_t ranks,
                          tsr_job_needs *ret_needs)
{
    run *r = context;

    (void)ranks;
    /* a prompt goes to the model as it is: a template that we do not have is no reason to refuse */
    const tsr_status st = tsr_text_side_open(r->config, checkpoint->folder, &checkpoint->generation,
                                             r->config->prompt == NULL, &r->text);
    if (st != TSR_OK)
        return st;
    const int32_t eos = r->text.eos;
    if (eos < 0 && checkpoint->model.eos_count == 0)
        tsr_log(TSR_LOG_WARN, "no file of the checkpoint names an end-of-sequence token: only "
                              "their length ends answers");
    *ret_needs = (tsr_job_needs){
        .token_ids = tsr_tokenizer_ids(r->text.tokenizer), .has_eos = eos >= 0, .eos = eos};
    return TSR_OK;
}

/* The command line as the body of an OpenAI request: one way to read a request. */
static json_t *body_of(const tsr_config *config)
{
    json_t *body = json_object();
    bool good = body != NULL;

    if (config->prompt != NULL) {
        good = good && json_object_set_new(body, "prompt", json_string(config->prompt)) == 0;
    } else {
        json_t *messages = json_array();
        if (config->system != NULL)
            good =
                good && json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system",
                                                                  "content", config->system)) == 0;
        good = good && json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "user",
                                                                 "content", config->chat)) == 0;
        good = good && json_object_set(body, "messages", messages) == 0;
        json_decref(messages);
    }
    for (int32_t i = 0; i < config->stop.count && good; i++) {
        if (i == 0)
            good = json_object_set_new(body, "stop", json_array()) == 0;
        good = good && json_array_append_new(json_object_get(body, "stop"),
                                             json_string(config->stop.items[i])) == 0;
    }
    if (config->has_seed)
        good = good && json_object_set_new(body, "seed", json_integer(config->seed)) == 0;
    if (config->max_tokens > 0)
        good =
            good && json_object_set_new(body, "max_tokens", json_integer(config->max_tokens)) == 0;
    good = good && json_object_set_new(body, "ignore_eos", json_boolean(config->ignore_eos)) == 0;
    if (good)
        return body;
    json_decref(body);
    return NULL;
}

static int32_t deadline_ms_of(const tsr_config *config)
{
    return (int32_t)config->step_timeout * 1000;
}

static tsr_status open_session(run *r)
{
    tsr_generation generation = {0};
    tsr_refusal refusal = {0};
    json_t *body = body_of(r->config);
    if (body == NULL) {
        tsr_log(TSR_LOG_ERROR, "the prompt is not valid UTF-8");
        return TSR_ERR_ARG;
    }

    tsr_status st =
        tsr_request_body_read(body, TSR_BODY_BY_CONTENT, &r->text.context, &generation, &refusal);
    if (st == TSR_ERR_ARG)
        tsr_log(TSR_LOG_ERROR, "%s", refusal.message);
    if (st == TSR_OK) {
        if (r->config->max_tokens == 0 && r->text.context.generation.max_new_tokens == 0)
            generation.request.max_tokens =
                r->text.context.max_model_len - (int32_t)generation.prompts[0].count;
        st = tsr_prompt_session_open(&generation, r->text.tokenizer, deadline_ms_of(r->config),
                                     &r->session);
    }
    json_decref(body);
    return st;
}

static tsr_status begin(void *context, const tsr_plan *plan, tsr_source *ret_source,
                        tsr_sink *ret_sink)
{
    run *r = context;
    tsr_status st = TSR_OK;

    const tsr_batch_args args = {
        .input = r->config->input,
        .output = r->config->output,
        .deadline_ms = deadline_ms_of(r->config),
        .resume = r->config->resume,
        .context = &r->text.context,
        .model = r->text.model_name,
    };
    tsr_text_side_set_length(&r->text, plan->limits.max_model_len);
    st = r->config->input != NULL ? tsr_batch_file_open(&args, &r->batch) : open_session(r);
    if (st == TSR_OK && r->report != NULL)
        st = tsr_run_report_begin(r->report, plan);
    if (st != TSR_OK)
        return st;
    *ret_source =
        r->batch != NULL ? tsr_batch_file_source(r->batch) : tsr_prompt_session_source(&r->session);
    *ret_sink =
        r->batch != NULL ? tsr_batch_file_sink(r->batch) : tsr_prompt_session_sink(&r->session);
    return TSR_OK;
}

static tsr_status guides(void *context, const tsr_plan *plan, const tsr_guides **ret_guides)
{
    run *r = context;

    const tsr_status st = tsr_text_side_open_guides(&r->text, plan->model.vocab);
    if (st == TSR_OK)
        *ret_guides = &r->text.guides;
    return st;
}

static void log_stats(const tsr_engine_stats *s)
{
    const double seconds = (double)s->run_ns / 1e9;
    const double first_ms =
        s->first_tokens > 0 ? (double)s->first_token_ns_sum / 1e6 / (double)s->first_tokens : 0;

    tsr_log(TSR_LOG_INFO,
            "%llu request%s, %llu prompt and %llu output tokens in %.2f s: %.1f output tokens/s, "
            "%.1f ms to the first token",
            (unsigned long long)s->requests, s->requests == 1 ? "" : "s",
            (unsigned long long)s->prompt_tokens, (unsigned long long)s->output_tokens, seconds,
            seconds > 0 ? (double)s->output_tokens / seconds : 0, first_ms);
    if (s->preemptions > 0)
        tsr_log(TSR_LOG_INFO,
                "%llu times a request lost its KV blocks to an older one and ran again: more "
                "memory or a lower --max-num-seqs saves that work",
                (unsigned long long)s->preemptions);
}

static void log_counts(const char *output, const tsr_batch_counts *counts)
{
    char kept[64] = "";

    if (counts->kept > 0)
        (void)snprintf(kept, sizeof(kept), ", %llu answered before",
                       (unsigned long long)counts->kept);
    tsr_log(TSR_LOG_INFO, "%s: %llu lines, %llu of them errors%s", output,
            (unsigned long long)counts->lines, (unsigned long long)counts->failed, kept);
}

static tsr_status finish_run(void *context, tsr_status status, const tsr_engine_stats *stats)
{
    run *r = context;
    tsr_status st = status;

    if (r->batch != NULL) {
        tsr_batch_counts counts = {0};
        /* a launcher that ends the job says so a second before it means it */
        if (status != TSR_OK)
            (void)signal(SIGTERM, SIG_IGN);
        const tsr_status written = tsr_batch_file_finish(r->batch, status, &counts);
        st = status == TSR_OK ? written : status;
        if (written == TSR_OK && (status == TSR_OK || counts.lines > 0))
            log_counts(r->config->output, &counts);
    }
    if (st == TSR_OK && stats != NULL)
        log_stats(stats);
    if (st == TSR_OK && stats != NULL && r->report != NULL)
        st = tsr_run_report_write(r->report, stats);
    return st;
}

static tsr_status measure_memory(void *context, tsr_device *device)
{
    run *r = context;
    return r->report != NULL ? tsr_run_report_measure(r->report, device) : TSR_OK;
}

static void keep_watch(void *context, const tsr_watch *watch)
{
    run *r = context;
    if (r->report != NULL)
        tsr_run_report_use(r->report, watch);
}

tsr_status tsr_run_command(const tsr_config *config, const tsr_launch_info *info)
{
    run r = {.config = config};
    const tsr_job_hooks hooks = {.prepare = prepare,
                                 .begin = begin,
                                 .guides = guides,
                                 .opened = measure_memory,
                                 .watched = keep_watch,
                                 .finish = finish_run,
                                 .context = &r};
    tsr_status st = TSR_OK;

    if (config->report != NULL && info->rank == 0)
        st = tsr_run_report_open(config->report, config->folder, &r.report);
    if (st == TSR_OK)
        st = tsr_job_run(config, info, &hooks);
    tsr_run_report_close(r.report);
    tsr_prompt_session_close(&r.session);
    tsr_batch_file_close(r.batch);
    tsr_text_side_close(&r.text);
    return st;
}
