/* Medians and tails; means hide what a user waits for. */
#include "launch/client/load_command.h"

#include "launch/client/load_client.h"
#include "launch/report/problem_list.h"
#include "runtime/base/log.h"

#include <stdlib.h>
#include <string.h>

static const double tails[] = {0.5, 0.9, 0.99};
static const char *const tail_names[] = {"p50", "p90", "p99"};
enum { TAILS = sizeof(tails) / sizeof(tails[0]), DEFAULT_VOCAB = 1000 };

bool tsr_load_is_asked(const tsr_config *config)
{
    return config->command == TSR_COMMAND_BENCH && config->folder != NULL &&
           strcmp(config->folder, "serve") == 0;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of times that were sorted. */
static double tail_of(const tsr_load_times *times, double share)
{
    if (times->count == 0)
        return 0;
    const size_t at = (size_t)(share * (double)(times->count - 1) + 0.5);
    return times->seconds[at];
}

static double mean_of(const tsr_load_times *times)
{
    double sum = 0;
    for (size_t i = 0; i < times->count; i++)
        sum += times->seconds[i];
    return times->count > 0 ? sum / (double)times->count : 0;
}

typedef struct times_row {
    const char *name;
    const char *key;
    const tsr_load_times *times;
} times_row;

static void print_times(const times_row *rows, size_t count, FILE *out)
{
    (void)fprintf(out, "\n  %-26s%10s%10s%10s%10s\n", "ms", "mean", tail_names[0], tail_names[1],
                  tail_names[2]);
    for (size_t i = 0; i < count; i++) {
        (void)fprintf(out, "  %-26s%10.1f", rows[i].name, mean_of(rows[i].times) * 1e3);
        for (size_t t = 0; t < TAILS; t++)
            (void)fprintf(out, "%10.1f", tail_of(rows[i].times, tails[t]) * 1e3);
        (void)fputc('\n', out);
    }
}

static json_t *times_json(const tsr_load_times *times)
{
    json_t *json = json_pack("{s:f}", "mean", mean_of(times) * 1e3);
    for (size_t t = 0; t < TAILS; t++)
        (void)json_object_set_new(json, tail_names[t], json_real(tail_of(times, tails[t]) * 1e3));
    return json;
}

static tsr_status report(const tsr_load_args *args, const tsr_load_result *r, bool as_json,
                         FILE *out)
{
    const times_row rows[] = {{"to the first token", "ttft_ms", &r->first},
                              {"from token to token", "itl_ms", &r->next},
                              {"to the end", "e2e_ms", &r->whole}};
    const size_t count = sizeof(rows) / sizeof(rows[0]);
    const double answered = (double)r->whole.count;

    if (as_json) {
        json_t *json =
            json_pack("{s:s, s:i, s:i, s:i, s:f, s:I, s:I, s:f, s:f}", "url", args->url, "clients",
                      args->clients, "requests", args->requests, "failed", r->failed, "wall_s",
                      r->wall_s, "input_tokens", (json_int_t)r->input_tokens, "output_tokens",
                      (json_int_t)r->output_tokens, "requests_per_s", answered / r->wall_s,
                      "output_tokens_per_s", (double)r->output_tokens / r->wall_s);
        for (size_t i = 0; i < count; i++)
            (void)json_object_set_new(json, rows[i].key, times_json(rows[i].times));
        return tsr_json_print(json, out);
    }
    (void)fprintf(out,
                  "%s: %d requests of %d + %d tokens by %d clients, %d failed, in %.2f s\n\n"
                  "  requests/s       %10.2f\n  output tokens/s  %10.1f\n  input tokens/s   "
                  "%10.1f\n",
                  args->url, args->requests, args->input_tokens, args->output_tokens, args->clients,
                  r->failed, r->wall_s, answered / r->wall_s, (double)r->output_tokens / r->wall_s,
                  (double)r->input_tokens / r->wall_s);
    print_times(rows, count, out);
    return tsr_print_end(out);
}

static void sort(tsr_load_times *times)
{
    if (times->count > 0)
        qsort(times->seconds, times->count, sizeof(double), by_size);
}

tsr_status tsr_load_command(const tsr_config *config, FILE *out)
{
    const tsr_load_args args = {
        .url = config->url,
        .model = config->served_model_name.count > 0 ? config->served_model_name.items[0] : NULL,
        .key = config->api_key.count > 0 ? config->api_key.items[0] : NULL,
        .clients = (int32_t)config->clients,
        .requests = (int32_t)config->requests,
        .input_tokens = (int32_t)config->input_tokens,
        .output_tokens = (int32_t)config->output_tokens,
        .vocab = config->vocab > 0 ? (int32_t)config->vocab : DEFAULT_VOCAB,
        .timeout_s = (int32_t)config->client_timeout,
    };
    tsr_load_result result = {0};

    tsr_status st = tsr_load_run(&args, &result);
    if (st != TSR_OK)
        return st;
    sort(&result.first);
    sort(&result.next);
    sort(&result.whole);
    st = report(&args, &result, config->json, out);
    if (st == TSR_OK && result.failed > 0) {
        tsr_log(TSR_LOG_ERROR, "%d of %d requests failed, the first: %s", result.failed,
                args.requests, result.error);
        st = TSR_ERR_PEER;
    }
    tsr_load_result_close(&result);
    return st;
}
