/*
 * A job from its folder to its end. Whatever can be refused is refused on rank 0, and before a
 * weight is read:
 *
 *   rank 0   share --> checkpoint, prepare, plan --> begin --> weights, engine --> finish
 *              |                                 |                  |
 *   others   share ----------------------------> plan ------> weights, engine
 *
 * In front of the plan goes a notice that says whether there is one: the others then end with rank
 * 0's status and need not say a word. If `begin` fails, they are reading weights already, and the
 * abort reaches them at their next meeting.
 */
#include "launch/job/job.h"

#include "launch/cli/backends.h"
#include "launch/job/bind.h"
#include "launch/job/exchange_memory.h"
#include "launch/job/host.h"
#include "launch/job/ranks.h"
#include "launch/plan/plan_request.h"
#include "launch/report/path_report.h"
#include "launch/report/precision_map.h"
#include "launch/report/progress.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"
#include "runtime/model/model.h"
#include "runtime/plan/targets.h"

#include <stdlib.h>
#include <string.h>

enum { ENDING_PART = 5, MOST_ENDING_MS = 2000 };

/* Ranks a core beyond which not every rank owns sequences. */
enum { CROWD = 2 };

typedef struct job {
    const tsr_config *config;
    const tsr_launch_info *info;
    const tsr_job_hooks *hooks;
} job;

/* In front of the plan's bytes: whether there are any. */
typedef struct plan_notice {
    int32_t status;
    int32_t reserved;
    uint64_t bytes;
} plan_notice;

static tsr_spread spread_of(const char *name)
{
    if (strcmp(name, "round-robin") == 0)
        return TSR_SPREAD_ROUND_ROBIN;
    return strcmp(name, "first") == 0 ? TSR_SPREAD_FIRST : TSR_SPREAD_LEAST_LOADED;
}

/* What the devices of this job are asked for. */
static tsr_backend_ranks ranks_of(const job *j, const tsr_hosts *hosts)
{
    const tsr_host_share smallest = tsr_hosts_smallest(hosts);

    return (tsr_backend_ranks){
        .ranks = smallest.ranks_here,
        .on_card = smallest.card_ranks,
        .allowed = (int32_t)j->config->ranks_per_gpu,
        .crowd = tsr_hosts_crowd(hosts),
    };
}

/* What a rank has of what backs the plan: its share of this machine, or of a GPU. */
static void share_memory(const tsr_backend *backend, const tsr_host_share *smallest,
                         tsr_plan_request *request)
{
    if (request->memory_bytes != 0)
        return;
    if (backend->host) {
        request->memory_bytes = smallest->memory_bytes;
        request->memory_is_shared = true;
    } else if (smallest->card_ranks > 1) {
        request->memory_bytes = request->target->memory_bytes / (uint64_t)smallest->card_ranks;
    }
}

/* The user's limits before what the job needs, and that before the defaults. */
static void ask_for(const tsr_job_needs *needs, tsr_plan_request *request)
{
    request->token_ids = needs->token_ids;
    request->kv_positions = needs->kv_positions;
    if (request->max_model_len == 0)
        request->max_model_len = needs->max_model_len;
    if (request->max_num_seqs == 0)
        request->max_num_seqs = needs->max_num_seqs;
    if (request->max_batched_tokens == 0)
        request->max_batched_tokens = needs->max_batched_tokens;
}

static tsr_status open_checkpoint(const job *j, tsr_problems *problems,
                                  tsr_checkpoint **ret_checkpoint)
{
    const char *folder = j->config->folder;
    const tsr_status st =
        j->hooks->locate != NULL ? j->hooks->locate(j->hooks->context, &folder) : TSR_OK;

    return st == TSR_OK ? tsr_checkpoint_open(folder, problems, ret_checkpoint) : st;
}

static tsr_status add_eos(const tsr_job_needs *needs, tsr_model_facts *model)
{
    if (!needs->has_eos || tsr_model_add_eos(model, needs->eos))
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR,
            "tokenizer_config.json: eos_token: its id %d is beyond the %d of the model, or there "
            "are more than %d ids that end an answer",
            needs->eos, model->vocab, TSR_MAX_EOS);
    return TSR_ERR_CHECKPOINT;
}

/* Coordinator: from the folder to a plan that fits. */
static tsr_status make_plan(const job *j, const tsr_backend *backend, const tsr_hosts *hosts,
                            tsr_plan **ret_plan)
{
    const tsr_host_share smallest = tsr_hosts_smallest(hosts);
    const tsr_backend_ranks ranks = ranks_of(j, hosts);
    tsr_problems problems = {0};
    tsr_checkpoint *checkpoint = NULL;
    tsr_plan_request request = {0};
    tsr_job_needs needs = {0};
    bool fits = false;

    tsr_status st = tsr_backend_check(backend, &ranks);
    if (st == TSR_OK)
        st = open_checkpoint(j, &problems, &checkpoint);
    if (st == TSR_OK)
        st = j->hooks->prepare(j->hooks->context, checkpoint, ranks.ranks, &needs);
    if (st == TSR_OK)
        st = add_eos(&needs, &checkpoint->model);
    if (st == TSR_OK)
        st = tsr_plan_request_read(j->config, backend, NULL, ranks.ranks, &request);
    if (st == TSR_OK) {
        ask_for(&needs, &request);
        request.ranks_option = "mpirun -n";
        share_memory(backend, &smallest, &request);
        if (request.threads == 0)
            request.threads = smallest.threads;
        st = tsr_plan_build(checkpoint, &request, &problems, ret_plan, &fits);
    }
    tsr_problems_log(&problems);
    if (st == TSR_OK && fits && j->hooks->planned != NULL)
        st = j->hooks->planned(j->hooks->context, *ret_plan, &request);
    if (st == TSR_OK && fits && tsr_log_enabled(TSR_LOG_INFO)) {
        tsr_precision_map_print(*ret_plan, j->info->colour_err, stderr);
        tsr_path_report_print(*ret_plan, &request, stderr);
    }
    if (st == TSR_OK && !fits) {
        tsr_plan_close(*ret_plan);
        *ret_plan = NULL;
        st = TSR_ERR_CAPACITY;
    }
    tsr_checkpoint_close(checkpoint);
    tsr_problems_close(&problems);
    return st;
}

/* Rank 0 has the plan, or the reason why there is none; the others learn either. */
static tsr_status share_plan(tsr_comm *comm, tsr_status made, tsr_plan **plan)
{
    const bool coordinator = tsr_comm_rank(comm) == 0;
    unsigned char *bytes = NULL;
    size_t count = 0;

    if (coordinator && made == TSR_OK)
        made = tsr_plan_pack(*plan, &bytes, &count);
    plan_notice notice = {.status = (int32_t)made, .bytes = count};
    tsr_status st = tsr_comm_broadcast(comm, 0, &notice, sizeof(notice));
    if (st == TSR_OK && notice.status != TSR_OK)
        st = (tsr_status)notice.status;
    if (st == TSR_OK && !coordinator) {
        bytes = malloc((size_t)notice.bytes);
        st = bytes != NULL ? TSR_OK : TSR_ERR_MEMORY;
    }
    if (st == TSR_OK)
        st = tsr_comm_broadcast(comm, 0, bytes, (size_t)notice.bytes);
    if (st == TSR_OK && !coordinator)
        st = tsr_plan_unpack(bytes, (size_t)notice.bytes, plan);
    free(bytes);
    return st == TSR_OK && *plan == NULL ? TSR_ERR_INTERNAL : st;
}

/* One rank of the job. Source, sink and stats are rank 0's. */
typedef struct rank_run {
    const job *job;
    tsr_comm *comm;
    const tsr_backend *backend;
    tsr_host_share share;
    tsr_plan *plan;
    tsr_source source;
    tsr_sink sink;
    const tsr_guides *guides;
    tsr_engine_stats stats;
    tsr_watch *watch; /* NULL: nobody asks */
    bool coordinator;
    bool ran; /* the engine, to its end */
} rank_run;

/* A step's timeout is over when the job is: its last part is for ending. */
static int32_t longest_wait_ms(const tsr_config *config)
{
    const int32_t ms = (int32_t)config->step_timeout * 1000;

    return ms - tsr_smaller(ms / ENDING_PART, MOST_ENDING_MS);
}

/* A host has memory only where it was touched: a short run touches no more than it needs. */
static bool shares_prefixes(const rank_run *r)
{
    const tsr_config *config = r->job->config;
    const bool serves = config->command == TSR_COMMAND_SERVE;
    const bool runs_on_card = config->command == TSR_COMMAND_RUN && !r->backend->host;

    return !config->no_prefix_caching && (config->prefix_caching || serves || runs_on_card);
}

/* Ranks that outnumber the cores compute in turn, and every rank that owns sequences reads all dense
 * weights: no more of them than cores. A bench has room for as many on each as are its share. */
static int32_t owners_of(const rank_run *r)
{
    const tsr_config *config = r->job->config;
    const tsr_host_share *share = &r->share;
    const bool is_free = config->command != TSR_COMMAND_BENCH &&
                         spread_of(config->spread) == TSR_SPREAD_LEAST_LOADED;
    const bool is_crowded = is_free && r->backend->host && !share->bound &&
                            share->ranks_here == r->plan->ranks &&
                            share->cores * CROWD < share->ranks_here;

    return is_crowded ? share->cores : 0;
}

static tsr_status run_engine(rank_run *r, tsr_model *model)
{
    const tsr_config *config = r->job->config;
    const tsr_engine_options options = {
        .spread = spread_of(config->spread),
        .owners = owners_of(r),
        .seed = config->has_seed ? (uint64_t)config->seed : 0,
        .prefill_chunk = (int32_t)config->prefill_chunk,
        .prefix_cache = shares_prefixes(r),
        .guides = r->guides,
        .max_waiting = config->command == TSR_COMMAND_SERVE ? INT32_MAX : 0, /* the gateway's own */
    };
    const tsr_engine_args args = {
        .plan = r->plan,
        .model = model,
        .comm = r->comm,
        .options = &options,
        .source = r->coordinator ? &r->source : NULL,
        .sink = r->coordinator ? &r->sink : NULL,
        .counts_experts = config->command == TSR_COMMAND_SERVE,
    };
    tsr_status st = TSR_OK;

    if (config->report != NULL)
        st = tsr_watch_begin(r->plan, model, &r->watch);
    tsr_comm_set_deadline(r->comm, longest_wait_ms(config));
    if (st == TSR_OK)
        st = tsr_engine_run(&args, r->coordinator ? &r->stats : NULL);
    if (st == TSR_OK && r->watch != NULL)
        st = tsr_watch_gather(r->watch, r->comm);
    if (st == TSR_OK && r->watch != NULL && r->coordinator && r->job->hooks->watched != NULL)
        r->job->hooks->watched(r->job->hooks->context, r->watch);
    r->ran = st == TSR_OK;
    return st;
}

/* What the device's memory holds beside what was planned for it, driver and libraries included. */
static void say_memory(const rank_run *r, const tsr_model *model, const char *when)
{
    const tsr_rank_budget *plan = &r->plan->budget[tsr_comm_rank(r->comm)];
    const tsr_model_memory m = tsr_model_memory_in_use(model);
    const uint64_t other = plan->workspace_bytes + plan->buffers_bytes;

    if (r->backend->host || !r->coordinator)
        return;
    tsr_log(TSR_LOG_INFO,
            "memory %s: %.2f GB in use of %.2f planned: weights %.2f of %.2f, cache %.2f of %.2f, "
            "other %.2f and %.2f before the model, of %.2f",
            when, (double)(m.before + m.weights + m.kv + m.rest) / 1e9,
            (double)tsr_rank_budget_total(plan) / 1e9, (double)m.weights / 1e9,
            (double)plan->weights_bytes / 1e9, (double)m.kv / 1e9, (double)plan->kv_bytes / 1e9,
            (double)m.rest / 1e9, (double)m.before / 1e9, (double)other / 1e9);
}

static tsr_status open_model(const rank_run *r, tsr_device *device, const tsr_load_progress *report,
                             tsr_model **ret_model)
{
    const tsr_model_args args = {
        .plan = r->plan,
        .device = device,
        .comm = r->comm,
        .open_exchange = tsr_exchange_open,
        .progress = r->coordinator ? report : NULL,
    };
    return tsr_model_open(&args, ret_model);
}

/* Who is told how much of the weights is there. */
typedef struct loading {
    tsr_progress progress;
    const tsr_job_hooks *hooks;
} loading;

static void report_loading(void *context, uint64_t bytes, uint64_t total)
{
    loading *l = context;

    tsr_progress_report(&l->progress, bytes, total);
    if (l->hooks->loading != NULL)
        l->hooks->loading(l->hooks->context, bytes, total);
}

/* Weights, then the engine. Everything that this opens is closed again. */
static tsr_status serve_plan(rank_run *r)
{
    const tsr_plan *plan = r->plan;
    const tsr_config *config = r->job->config;
    const tsr_job_hooks *hooks = r->job->hooks;
    loading told = {.hooks = hooks};
    const tsr_load_progress report = {.report = report_loading, .context = &told};
    tsr_device *device = NULL;
    tsr_model *model = NULL;

    tsr_status st = r->backend->open(config, plan->limits.threads, r->share.card, &device);
    if (st == TSR_OK && r->coordinator)
        tsr_log(TSR_LOG_INFO, "%d rank%s of %s, over %s", plan->ranks, plan->ranks > 1 ? "s" : "",
                tsr_device_name(device), tsr_comm_name(r->comm));
    const tsr_exchange_memory memory =
        tsr_exchange_memory_on_card(device, r->share.card, config->ranks_per_gpu > 1);
    if (st == TSR_OK && !r->backend->host)
        tsr_exchange_use_memory(r->comm, &memory);
    if (st == TSR_OK && r->coordinator && hooks->opened != NULL)
        st = hooks->opened(hooks->context, device);
    told.progress = tsr_progress_start();
    if (st == TSR_OK)
        st = open_model(r, device, &report, &model);
    if (st == TSR_OK && r->coordinator && hooks->loaded != NULL)
        st = hooks->loaded(hooks->context, model);
    if (st == TSR_OK) {
        say_memory(r, model, "once loaded");
        st = run_engine(r, model);
    }
    if (st == TSR_OK)
        say_memory(r, model, "at the end");
    else
        tsr_comm_abort(r->comm, st);
    tsr_model_close(model);
    tsr_device_close(device);
    return st;
}

/* What is wrong with the requests is said here, before the weights are read. */
static tsr_status plan_and_begin(rank_run *r)
{
    const tsr_job_hooks *hooks = r->job->hooks;
    const tsr_launch_info *info = r->job->info;
    const char *backend = r->job->config->backend;
    tsr_hosts *hosts = NULL;
    tsr_status made = TSR_OK;

    tsr_status st = tsr_hosts_open(r->comm, !tsr_backend_of(backend)->host, &hosts);
    if (st == TSR_OK) {
        const tsr_backend_ranks ranks = ranks_of(r->job, hosts);
        r->backend = tsr_backend_find(backend, &ranks);
        r->share = tsr_hosts_share(hosts, tsr_comm_rank(r->comm));
        tsr_bind_rank(&r->share, !r->backend->host);
        if (r->coordinator) {
            tsr_hosts_say(hosts, info->mpi_network, info->nccl_network);
            made = make_plan(r->job, r->backend, hosts, &r->plan);
        }
        st = share_plan(r->comm, made, &r->plan);
    }
    tsr_hosts_close(hosts);
    if (st == TSR_OK && r->coordinator)
        st = hooks->begin(hooks->context, r->plan, &r->source, &r->sink);
    if (st == TSR_OK && r->coordinator && hooks->guides != NULL)
        st = hooks->guides(hooks->context, r->plan, &r->guides);
    return st;
}

static tsr_status rank_main(tsr_comm *comm, void *context)
{
    rank_run r = {.job = context, .comm = comm, .coordinator = tsr_comm_rank(comm) == 0};

    tsr_status st = plan_and_begin(&r);
    if (st == TSR_OK)
        st = serve_plan(&r);
    if (r.coordinator) {
        const tsr_job_hooks *hooks = r.job->hooks;
        const tsr_status finished = hooks->finish(hooks->context, st, r.ran ? &r.stats : NULL);
        st = st == TSR_OK ? finished : st;
    }
    tsr_watch_close(r.watch);
    tsr_plan_close(r.plan);
    return st;
}

tsr_status tsr_job_run(const tsr_config *config, const tsr_launch_info *info,
                       const tsr_job_hooks *hooks)
{
    job j = {.config = config, .info = info, .hooks = hooks};

    return tsr_ranks_run(config, info, rank_main, &j);
}
