/* Of the text side the engine needs what ends an answer, how many ids there are, and their bytes for guides. It
 * opens all of it, so that what the gateway would refuse is said by one of them. */
#include "launch/serve/engine_command.h"

#include "launch/job/job.h"
#include "launch/plan/plan_json.h"
#include "launch/request/text_side.h"
#include "launch/serve/engine_source.h"

#include <stdlib.h>

typedef struct engine {
    const tsr_config *config;
    tsr_text_side text;
    tsr_engine_source *source;
    const tsr_plan *plan;
    char *info; /* JSON of the plan */
} engine;

static tsr_status prepare(void *context, const tsr_checkpoint *checkpoint, int32_t ranks,
                          tsr_job_needs *ret_needs)
{
    engine *e = context;

    (void)ranks;
    const tsr_status st =
        tsr_text_side_open(e->config, checkpoint->folder, &checkpoint->generation, true, &e->text);
    if (st != TSR_OK)
        return st;
    *ret_needs = (tsr_job_needs){.token_ids = tsr_tokenizer_ids(e->text.tokenizer),
                                 .has_eos = e->text.eos >= 0,
                                 .eos = e->text.eos};
    return TSR_OK;
}

static tsr_status planned(void *context, const tsr_plan *plan, const tsr_plan_request *request)
{
    engine *e = context;
    json_t *json = tsr_plan_json(plan, request);

    e->info = json != NULL ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    return e->info != NULL ? TSR_OK : TSR_ERR_MEMORY;
}

static tsr_status begin(void *context, const tsr_plan *plan, tsr_source *ret_source,
                        tsr_sink *ret_sink)
{
    engine *e = context;

    e->plan = plan;
    *ret_source = tsr_engine_source_source(e->source);
    *ret_sink = tsr_engine_source_sink(e->source);
    return TSR_OK;
}

static tsr_status guides(void *context, const tsr_plan *plan, const tsr_guides **ret_guides)
{
    engine *e = context;

    const tsr_status st = tsr_text_side_open_guides(&e->text, plan->model.vocab);
    if (st == TSR_OK)
        *ret_guides = &e->text.guides;
    return st;
}

static void loading(void *context, uint64_t bytes, uint64_t total)
{
    const engine *e = context;
    tsr_engine_source_loading(e->source, bytes, total);
}

static tsr_status loaded(void *context, tsr_model *model)
{
    const engine *e = context;

    (void)model;
    return tsr_engine_source_ready(e->source, e->plan, e->info);
}

static tsr_status finish(void *context, tsr_status status, const tsr_engine_stats *stats)
{
    (void)context;
    (void)stats;
    return status;
}

tsr_status tsr_engine_command(const tsr_config *config, const tsr_launch_info *info, int fd)
{
    engine e = {.config = config};
    const tsr_job_hooks hooks = {.prepare = prepare,
                                 .planned = planned,
                                 .begin = begin,
                                 .guides = guides,
                                 .loading = loading,
                                 .loaded = loaded,
                                 .finish = finish,
                                 .context = &e};
    tsr_status st = TSR_OK;

    if (fd >= 0)
        st = tsr_engine_source_open(fd, &e.source);
    if (st == TSR_OK)
        st = tsr_job_run(config, info, &hooks);
    tsr_engine_source_close(e.source);
    tsr_text_side_close(&e.text);
    free(e.info);
    return st;
}
