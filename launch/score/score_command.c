/* The hooks of a job whose answer is a file of logits. Rows go to their place in it as they come:
 * none are held, however long the sequences. */
#include "launch/score/score_command.h"

#include "launch/files/output_path.h"
#include "launch/job/job.h"
#include "launch/job/signals.h"
#include "launch/score/logits_file.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

typedef struct score {
    const tsr_config *config;
    tsr_arena *memory;
    tsr_token_file tokens;
    tsr_logits_file *out;
    size_t next;   /* sequence to submit */
    size_t failed; /* sequences whose logits are not finite */
} score;

/* One damaged weight fails every sequence: a few say which. */
enum { FAILURES_SAID = 3 };

/* Said before a weight is read, though the engine would refuse the sequence too. */
static tsr_status check_lengths(const score *s, const tsr_model_facts *model)
{
    const int64_t asked = s->config->max_model_len;
    const int64_t most = asked > 0 ? asked : model->max_positions;

    for (size_t i = 0; i < s->tokens.count; i++) {
        if (s->tokens.sequences[i].count <= most)
            continue;
        tsr_log(TSR_LOG_ERROR, "--tokens %s: sequence %zu has %d ids, but %s %lld",
                s->config->tokens, i, (int)s->tokens.sequences[i].count,
                asked > 0 ? "--max-model-len is" : "the positions of the model are",
                (long long)most);
        return TSR_ERR_ARG;
    }
    return TSR_OK;
}

static tsr_status prepare(void *context, const tsr_checkpoint *checkpoint, int32_t ranks,
                          tsr_job_needs *ret_needs)
{
    score *s = context;
    tsr_problems problems = {0};

    (void)ranks;
    tsr_status st = tsr_token_file_read(s->config->tokens, checkpoint->model.vocab, s->memory,
                                        &problems, &s->tokens);
    tsr_problems_log(&problems);
    tsr_problems_close(&problems);
    if (st == TSR_OK)
        st = check_lengths(s, &checkpoint->model);
    if (st == TSR_OK)
        *ret_needs = (tsr_job_needs){.max_model_len = s->tokens.longest};
    return st;
}

static tsr_status ask_for_sequence(void *context, const tsr_question *question, tsr_wish *ret_wish)
{
    score *s = context;

    if (s->next == s->tokens.count)
        ret_wish->kind = TSR_WISH_END;
    else if (tsr_signals_drain())
        ret_wish->kind = TSR_WISH_DRAIN;
    else if (question->room)
        ret_wish->kind = TSR_WISH_REQUEST;
    if (ret_wish->kind != TSR_WISH_REQUEST)
        return TSR_OK;
    ret_wish->request = (tsr_request){
        .id = s->next,
        .prompt = s->tokens.sequences[s->next].ids,
        .prompt_tokens = s->tokens.sequences[s->next].count,
        .top_p = 1.0F,
        .want_logits = true,
    };
    s->next++;
    return TSR_OK;
}

static tsr_status take_score_token(void *context, const tsr_output *output, bool *ret_cancel)
{
    score *s = context;
    const bool failed = output->finish == TSR_FINISH_FAILED;

    *ret_cancel = false;
    if (!failed && output->finish != TSR_FINISH_REFUSED)
        return TSR_OK;
    if (s->failed < FAILURES_SAID)
        tsr_log(TSR_LOG_ERROR, "--tokens %s: sequence %llu: %s", s->config->tokens,
                (unsigned long long)output->id, output->refusal);
    if (!failed)
        return TSR_ERR_ARG;
    s->failed++;
    tsr_logits_file_fail(s->out, (size_t)output->id);
    return TSR_OK;
}

static tsr_status take_logits(void *context, uint64_t id, int32_t first_position, int32_t rows,
                              const float *logits)
{
    score *s = context;
    return tsr_logits_file_write(s->out, (size_t)id, first_position, rows, logits);
}

static tsr_status begin(void *context, const tsr_plan *plan, tsr_source *ret_source,
                        tsr_sink *ret_sink)
{
    score *s = context;
    const tsr_status st =
        tsr_logits_file_open(s->config->out, &s->tokens, plan->model.vocab, &s->out);
    if (st != TSR_OK)
        return st;
    *ret_source = (tsr_source){.ask = ask_for_sequence, .context = s};
    *ret_sink = (tsr_sink){.token = take_score_token, .logits = take_logits, .context = s};
    return TSR_OK;
}

static tsr_status finish_score(void *context, tsr_status status, const tsr_engine_stats *stats)
{
    score *s = context;

    if (status != TSR_OK || stats == NULL)
        return status;
    if (s->next < s->tokens.count)
        tsr_log(TSR_LOG_WARN, "asked to drain: %zu of %zu sequences are scored", s->next,
                s->tokens.count);
    if (s->next == 0)
        return TSR_OK; /* and there is no file */
    tsr_status st = tsr_logits_file_finish(s->out, s->next);
    const double seconds = (double)stats->run_ns / 1e9;
    if (st == TSR_OK)
        tsr_log(TSR_LOG_INFO, "scored %zu sequences, %llu tokens in %.2f s, %.0f tokens/s", s->next,
                (unsigned long long)stats->prompt_tokens, seconds,
                seconds > 0 ? (double)stats->prompt_tokens / seconds : 0);
    if (st == TSR_OK && s->failed > 0) {
        tsr_log(TSR_LOG_ERROR,
                "%zu of %zu sequences have logits that are NaN or infinite: --out %s names them "
                "failed.N, the others logits.N",
                s->failed, s->next, s->config->out);
        st = TSR_ERR_CHECKPOINT;
    }
    return st;
}

tsr_status tsr_score_command_check(const tsr_config *config)
{
    if (config->tokens == NULL || config->out == NULL) {
        tsr_log(TSR_LOG_ERROR, "score needs --tokens FILE and --out FILE.safetensors");
        return TSR_ERR_ARG;
    }
    const tsr_named_path out = {.option = "--out", .path = config->out};
    const tsr_named_path tokens = {.option = "--tokens", .path = config->tokens};
    return tsr_output_path_check(&out, config->folder, &tokens, 1);
}

tsr_status tsr_score_command(const tsr_config *config, const tsr_launch_info *info)
{
    score s = {.config = config};

    tsr_status st = tsr_arena_open((size_t)1 << 20, &s.memory);
    if (st != TSR_OK)
        return st;
    const tsr_job_hooks hooks = {
        .prepare = prepare, .begin = begin, .finish = finish_score, .context = &s};
    st = tsr_job_run(config, info, &hooks);
    tsr_logits_file_close(s.out);
    tsr_arena_close(s.memory);
    return st;
}
