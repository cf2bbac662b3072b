/* /metrics, in Prometheus' text format 0.0.4: every number under our name and, unless --metrics-compat
 * says otherwise, under vLLM's. */
#include "launch/gateway/gateway_parts.h"

#include <string.h>

enum { OK_STATUS = 200 };

/* Where numbers are written to, and under which labels. */
typedef struct board {
    tsr_json_text text;
    const char *labels; /* model_name="...",engine="0" */
    bool vllm;
} board;

static void head(board *b, const char *name, const char *type, const char *help)
{
    tsr_json_add(&b->text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A number under both names; the second may be NULL. */
typedef struct named {
    const char *own;
    const char *vllm;
    const char *type;
    const char *help;
} named;

static void add_number(board *b, const named *n, double value)
{
    head(b, n->own, n->type, n->help);
    tsr_json_add(&b->text, "%s{%s} %.17g\n", n->own, b->labels, value);
    if (!b->vllm || n->vllm == NULL)
        return;
    head(b, n->vllm, n->type, n->help);
    tsr_json_add(&b->text, "%s{%s} %.17g\n", n->vllm, b->labels, value);
}

static void add_histogram_as(board *b, const char *name, const char *help, const tsr_histogram *h)
{
    uint64_t below = 0;

    head(b, name, "histogram", help);
    for (size_t i = 0; i < h->bound_count; i++) {
        below += h->counts[i];
        tsr_json_add(&b->text, "%s_bucket{%s,le=\"%.10g\"} %llu\n", name, b->labels, h->bounds[i],
                     (unsigned long long)below);
    }
    tsr_json_add(&b->text, "%s_bucket{%s,le=\"+Inf\"} %llu\n%s_sum{%s} %.9g\n%s_count{%s} %llu\n",
                 name, b->labels, (unsigned long long)h->count, name, b->labels, h->sum, name,
                 b->labels, (unsigned long long)h->count);
}

static void add_histograms(board *b, const tsr_metrics *metrics)
{
    static const struct {
        tsr_histogram_kind kind;
        const char *own;
        const char *vllm;
        const char *help;
    } rows[] = {
        {TSR_HISTOGRAM_FIRST_TOKEN, "tessera_time_to_first_token_seconds",
         "vllm:time_to_first_token_seconds", "From a request to its first token."},
        {TSR_HISTOGRAM_INTER_TOKEN, "tessera_inter_token_latency_seconds",
         "vllm:inter_token_latency_seconds", "From one token of an answer to the next."},
        {TSR_HISTOGRAM_INTER_TOKEN, NULL, "vllm:time_per_output_token_seconds",
         "An older name of inter_token_latency_seconds."},
        {TSR_HISTOGRAM_PER_TOKEN, "tessera_request_time_per_output_token_seconds",
         "vllm:request_time_per_output_token_seconds",
         "Mean time of a token of an answer, its first left out."},
        {TSR_HISTOGRAM_WHOLE, "tessera_e2e_request_latency_seconds",
         "vllm:e2e_request_latency_seconds", "From a request to its last token."},
        {TSR_HISTOGRAM_QUEUE, "tessera_request_queue_time_seconds",
         "vllm:request_queue_time_seconds", "From the engine's having a request to its start."},
        {TSR_HISTOGRAM_PREFILL, "tessera_request_prefill_time_seconds",
         "vllm:request_prefill_time_seconds", "From its start to its first token."},
        {TSR_HISTOGRAM_DECODE, "tessera_request_decode_time_seconds",
         "vllm:request_decode_time_seconds", "From its first token to its last."},
        {TSR_HISTOGRAM_COMPUTE, "tessera_request_inference_time_seconds",
         "vllm:request_inference_time_seconds", "From its start to its last token."},
        {TSR_HISTOGRAM_PROMPT_TOKENS, "tessera_request_prompt_tokens", "vllm:request_prompt_tokens",
         "Tokens of a prompt."},
        {TSR_HISTOGRAM_OUTPUT_TOKENS, "tessera_request_generation_tokens",
         "vllm:request_generation_tokens", "Tokens of an answer."},
        {TSR_HISTOGRAM_LONGEST, "tessera_request_max_num_generation_tokens",
         "vllm:request_max_num_generation_tokens", "Tokens of the longest answer of a request."},
        {TSR_HISTOGRAM_COPIES, "tessera_request_params_n", "vllm:request_params_n",
         "Answers asked for each prompt."},
        {TSR_HISTOGRAM_MAX_TOKENS, "tessera_request_params_max_tokens",
         "vllm:request_params_max_tokens", "Tokens an answer may have."},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const tsr_histogram *h = &metrics->histograms[rows[i].kind];
        if (rows[i].own != NULL)
            add_histogram_as(b, rows[i].own, rows[i].help, h);
        if (b->vllm)
            add_histogram_as(b, rows[i].vllm, rows[i].help, h);
    }
}

static void add_outcomes(board *b, const tsr_metrics *metrics)
{
    static const char *const reasons[] = {"stop", "length", "abort", "error"};
    static const char *const names[] = {"tessera_requests_total", "vllm:request_success_total"};

    for (size_t n = 0; n < (b->vllm ? 2U : 1U); n++) {
        head(b, names[n], "counter", "Answers by why they ended.");
        for (int i = 0; i < TSR_OUTCOME_COUNT; i++)
            tsr_json_add(&b->text, "%s{%s,finished_reason=\"%s\"} %llu\n", names[n], b->labels,
                         reasons[i], (unsigned long long)metrics->outcomes[i]);
    }
}

static void add_http(board *b, const tsr_metrics *metrics)
{
    static const char name[] = "http_requests_total";

    head(b, name, "counter", "HTTP requests; status 499: the client left.");
    for (size_t i = 0; i < metrics->http_count; i++) {
        const tsr_http_count *c = &metrics->http[i];
        tsr_json_add(&b->text, "%s{handler=\"%s\",method=\"%s\",status=\"%d\"} %llu\n", name,
                     c->handler, c->method, c->status, (unsigned long long)c->count);
    }
}

/* Two that only vLLM's readers ask for: the size of a block, and the older name of a gauge. */
static void add_cache(board *b, const tsr_gateway *gateway)
{
    const tsr_engine_load *load = &gateway->load;
    const uint64_t blocks = load->kv_blocks;

    if (!b->vllm || blocks == 0)
        return;
    head(b, "vllm:gpu_cache_usage_perc", "gauge", "An older name of kv_cache_usage_perc.");
    tsr_json_add(&b->text, "vllm:gpu_cache_usage_perc{%s} %.17g\n", b->labels,
                 (double)load->kv_blocks_used / (double)blocks);
    head(b, "vllm:cache_config_info", "gauge", "The KV cache, in labels.");
    tsr_json_add(&b->text,
                 "vllm:cache_config_info{%s,block_size=\"%llu\",num_gpu_blocks=\"%llu\"} 1\n",
                 b->labels, (unsigned long long)gateway->facts.kv_tokens / blocks,
                 (unsigned long long)blocks);
}

static void add_load(board *b, const tsr_gateway *gateway)
{
    static const named running = {"tessera_requests_running", "vllm:num_requests_running", "gauge",
                                  "Answers that the engine computes."};
    static const named waiting = {"tessera_requests_waiting", "vllm:num_requests_waiting", "gauge",
                                  "Answers that wait for the engine."};
    static const named used = {"tessera_kv_cache_usage_ratio", "vllm:kv_cache_usage_perc", "gauge",
                               "Share of the KV cache that is used, 0 to 1."};
    static const named blocks_used = {"tessera_kv_blocks_used", NULL, "gauge",
                                      "Blocks of the KV cache that are used."};
    static const named blocks = {"tessera_kv_blocks", NULL, "gauge", "Blocks of the KV cache."};
    static const named steps = {"tessera_steps_total", NULL, "counter",
                                "Steps of this engine, which begins at 0 when it is restarted."};
    static const named preempted = {"tessera_preemptions_total", "vllm:num_preemptions_total",
                                    "counter", "Answers that had to give up their KV blocks."};
    static const named asked = {"tessera_prefix_cache_queries_total",
                                "vllm:prefix_cache_queries_total", "counter",
                                "Tokens of prompts that an earlier one might have computed."};
    static const named hit = {"tessera_prefix_cache_hits_total", "vllm:prefix_cache_hits_total",
                              "counter", "Tokens of prompts that an earlier one had computed."};
    const tsr_engine_load *load = &gateway->load;
    const double all = (double)load->kv_blocks;

    add_number(b, &running, load->running);
    add_number(b, &waiting, load->waiting);
    add_number(b, &used, all > 0 ? (double)load->kv_blocks_used / all : 0);
    add_number(b, &blocks_used, (double)load->kv_blocks_used);
    add_number(b, &blocks, all);
    add_number(b, &steps, (double)load->steps);
    add_number(b, &preempted, (double)load->preemptions);
    add_number(b, &asked, (double)load->prefix_queries);
    add_number(b, &hit, (double)load->prefix_hits);
    add_cache(b, gateway);
}

static void add_state(board *b, const tsr_gateway *gateway)
{
    static const named ready = {"tessera_ready", NULL, "gauge", "1: requests are taken."};
    static const named ranks = {"tessera_ranks", NULL, "gauge", "Ranks of the engine."};
    static const named read = {"tessera_load_bytes_read", NULL, "gauge",
                               "Bytes of weights that were read while loading; 0 when it is done."};
    static const named total = {"tessera_load_bytes", NULL, "gauge",
                                "Bytes of weights to read while loading; 0 when it is done."};
    static const named restarts = {"tessera_engine_restarts_total", NULL, "counter",
                                   "Engines that came after one was lost."};
    static const named connections = {"tessera_http_connections", NULL, "gauge",
                                      "Connections of clients."};
    static const named prompt = {"tessera_prompt_tokens_total", "vllm:prompt_tokens_total",
                                 "counter", "Tokens of prompts that were computed."};
    static const named output = {"tessera_generation_tokens_total", "vllm:generation_tokens_total",
                                 "counter", "Tokens of answers."};
    const tsr_metrics *metrics = &gateway->metrics;

    add_number(b, &ready, gateway->state == TSR_GATEWAY_READY ? 1 : 0);
    add_number(b, &ranks, gateway->facts.ranks);
    add_number(b, &read, (double)gateway->loading_bytes);
    add_number(b, &total, (double)gateway->loading_total);
    add_number(b, &restarts, (double)metrics->restarts);
    add_number(b, &connections, (double)tsr_http_server_connections(gateway->server));
    add_number(b, &prompt, (double)metrics->prompt_tokens);
    add_number(b, &output, (double)metrics->output_tokens);
}

/* How much more the busiest expert of a layer gets than the mean. */
static void add_experts(board *b, const tsr_engine_load *load)
{
    static const char name[] = "tessera_expert_imbalance_ratio";
    const size_t layers = load->layers > 0 ? (size_t)load->layers : 0;
    const size_t experts = layers > 0 ? load->expert_token_count / layers : 0;

    head(b, name, "gauge", "Tokens of a layer's busiest expert over those of its mean one.");
    for (size_t layer = 0; layer < layers && experts > 0; layer++) {
        uint64_t most = 0;
        uint64_t sum = 0;
        for (size_t e = 0; e < experts; e++) {
            const uint64_t tokens = load->expert_tokens[layer * experts + e];
            sum += tokens;
            most = tokens > most ? tokens : most;
        }
        if (sum > 0)
            tsr_json_add(&b->text, "%s{layer=\"%zu\"} %.4g\n", name, layer,
                         (double)most * (double)experts / (double)sum);
    }
}

/* The value of a label: backslash, quote and line end escaped. */
static void add_label_value(tsr_json_text *text, const char *value)
{
    for (; *value != '\0'; value++) {
        if (*value == '\n')
            tsr_json_add(text, "\\n");
        else
            tsr_json_add(text, *value == '"' || *value == '\\' ? "\\%c" : "%c", *value);
    }
}

void tsr_serve_metrics(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    tsr_json_text labels = {0};
    board b = {.vllm = strcmp(gateway->args.config->metrics_compat, "vllm") == 0};

    tsr_json_add(&labels, "model_name=\"");
    add_label_value(&labels, gateway->model_name);
    tsr_json_add(&labels, "\",engine=\"0\"");
    b.labels = labels.status == TSR_OK ? labels.text.bytes : "engine=\"0\"";
    add_state(&b, gateway);
    add_load(&b, gateway);
    add_outcomes(&b, &gateway->metrics);
    add_histograms(&b, &gateway->metrics);
    add_http(&b, &gateway->metrics);
    add_experts(&b, &gateway->load);
    tsr_text_close(&labels.text);
    if (b.text.status == TSR_OK)
        tsr_http_answer(exchange, &(tsr_http_reply){.status = OK_STATUS,
                                                    .type = "text/plain; version=0.0.4",
                                                    .bytes = b.text.text.bytes,
                                                    .count = b.text.text.count});
    else
        tsr_error_say(exchange, 503, "out_of_memory", "%s", tsr_status_text(b.text.status));
    tsr_text_close(&b.text.text);
}
