/*
 * The hooks of a job whose answer is how long it took.
 *
 *   --shape: make a checkpoint --> plan --> read bandwidth --> weights --> cases --> report
 *                                           nothing is on      remove the
 *                                           the device yet     checkpoint
 */
#include "launch/bench/bench_command.h"

#include "launch/bench/bench_comm.h"
#include "launch/bench/bench_report.h"
#include "launch/bench/bench_run.h"
#include "launch/bench/scratch_checkpoint.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <stdio.h>
#include <string.h>

/* What a pass reads to measure bandwidth: more than the caches of a machine, or of a GPU, hold. */
static const uint64_t pass_bytes = (uint64_t)4 << 30;
static const uint64_t host_pass_bytes = (uint64_t)1 << 30;

enum { DEVICE_BYTES = 128 };

typedef struct bench {
    const tsr_config *config;
    tsr_bench_cases cases;
    tsr_scratch_checkpoint scratch;
    tsr_bench_run *run;
    const tsr_plan *plan;
    char device[DEVICE_BYTES];
    double read_bandwidth;
    int64_t start_ns; /* a checkpoint that had to be made was there */
    int64_t loaded_ns;
} bench;

/* `tessera bench comm`; a folder of that name is ./comm. */
static bool is_of_exchange(const tsr_config *config)
{
    return config->folder != NULL && strcmp(config->folder, "comm") == 0;
}

/* `tessera bench serve`, which is no job. */
static bool is_of_server(const tsr_config *config)
{
    return config->folder != NULL && strcmp(config->folder, "serve") == 0;
}

tsr_status tsr_bench_command_check(const tsr_config *config)
{
    const bool beside = config->precision != NULL || config->layers > 0 || config->vocab > 0;
    tsr_bench_cases cases;

    if (is_of_exchange(config) || is_of_server(config))
        return TSR_OK;
    if ((config->folder != NULL) == (config->shape != NULL)) {
        tsr_log(TSR_LOG_ERROR, "bench needs either DIR or --shape NAME");
        return TSR_ERR_ARG;
    }
    if (config->shape == NULL && beside) {
        tsr_log(TSR_LOG_ERROR, "--precision, --layers and --vocab belong to --shape");
        return TSR_ERR_ARG;
    }
    const tsr_status st = tsr_bench_cases_read(config, &cases);
    if (st != TSR_OK || config->shape == NULL)
        return st;
    const tsr_synthetic_request request = tsr_scratch_request(config);
    return tsr_synthetic_check(&request);
}

static tsr_status locate(void *context, const char **ret_folder)
{
    bench *b = context;
    tsr_status st = TSR_OK;

    if (b->config->shape != NULL) {
        st = tsr_scratch_checkpoint_make(b->config, &b->scratch);
        if (st == TSR_OK)
            *ret_folder = b->scratch.folder;
    }
    b->start_ns = tsr_clock_ns();
    return st;
}

static tsr_status prepare(void *context, const tsr_checkpoint *checkpoint, int32_t ranks,
                          tsr_job_needs *ret_needs)
{
    const bench *b = context;
    return tsr_bench_needs(&b->cases, b->config, &checkpoint->model, ranks, ret_needs);
}

static tsr_status begin(void *context, const tsr_plan *plan, tsr_source *ret_source,
                        tsr_sink *ret_sink)
{
    bench *b = context;

    tsr_status st = tsr_bench_cases_check(&b->cases, plan);
    if (st == TSR_OK)
        st = tsr_bench_run_open(&b->cases, plan, 1, &b->run);
    if (st != TSR_OK)
        return st;
    b->plan = plan;
    *ret_source = tsr_bench_run_source(b->run);
    *ret_sink = tsr_bench_run_sink(b->run);
    return TSR_OK;
}

/* Not counted as loading. */
static tsr_status measure_device(void *context, tsr_device *device)
{
    bench *b = context;
    const bool host = tsr_device_flights(device) == 1; /* it computes only while it is called */
    const int64_t start_ns = tsr_clock_ns();

    (void)snprintf(b->device, sizeof(b->device), "%s", tsr_device_name(device));
    const tsr_status st =
        tsr_device_read_bandwidth(device, host ? host_pass_bytes : pass_bytes, &b->read_bandwidth);
    b->start_ns += tsr_clock_ns() - start_ns;
    return st;
}

static tsr_status use_model(void *context, tsr_model *model)
{
    bench *b = context;

    b->loaded_ns = tsr_clock_ns();
    tsr_scratch_checkpoint_remove(&b->scratch);
    tsr_bench_run_use(b->run, model);
    return TSR_OK;
}

static tsr_status finish_bench(void *context, tsr_status status, const tsr_engine_stats *stats)
{
    const bench *b = context;
    const bool made = b->config->shape != NULL;

    if (status != TSR_OK || stats == NULL)
        return status;
    tsr_bench_facts facts = {
        .model = made ? b->config->shape : b->config->folder,
        .device = b->device,
        .plan = b->plan,
        .cases = &b->cases,
        .run = b->run,
        .read_bandwidth = b->read_bandwidth,
        .load_ns = b->loaded_ns - b->start_ns,
    };
    for (int32_t i = 0; i < b->plan->file_count; i++)
        facts.load_bytes += b->plan->marks[i].bytes;
    return tsr_bench_report(&facts, b->config->json, stdout);
}

tsr_status tsr_bench_command(const tsr_config *config, const tsr_launch_info *info)
{
    bench b = {.config = config};
    const tsr_job_hooks hooks = {
        .locate = locate,
        .prepare = prepare,
        .begin = begin,
        .opened = measure_device,
        .loaded = use_model,
        .finish = finish_bench,
        .context = &b,
    };

    if (is_of_exchange(config))
        return tsr_bench_comm(config, info, stdout);
    tsr_status st = tsr_bench_cases_read(config, &b.cases);
    if (st == TSR_OK)
        st = tsr_job_run(config, info, &hooks);
    tsr_bench_run_close(b.run);
    tsr_scratch_checkpoint_remove(&b.scratch);
    return st;
}
