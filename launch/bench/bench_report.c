/* One row for each case, computed once and printed in either form. */
#include "launch/bench/bench_report.h"

#include "launch/bench/bench_bytes.h"
#include "launch/report/problem_list.h"

#include <jansson.h>

typedef struct report_row {
    const tsr_bench_case *of;
    int64_t tokens; /* of a step, of all ranks */
    double seconds; /* of a step */
    double tokens_per_s;
    tsr_bench_bytes bytes;
    double bytes_per_step; /* of rank 0 */
    double ratio;          /* of what the memory gives */
} report_row;

static double per_second(uint64_t bytes, int64_t ns)
{
    return ns > 0 ? (double)bytes * 1e9 / (double)ns : 0;
}

static report_row row_of(const tsr_bench_facts *f, int32_t index)
{
    const tsr_bench_case *c = &f->cases->of[index];
    const tsr_bench_result *result = tsr_bench_run_result(f->run, index);
    report_row row = {
        .of = c,
        .tokens = c->decode ? c->prompts : (int64_t)c->prompts * c->prompt_tokens,
        .seconds = (double)result->step_ns / 1e9,
        .bytes = tsr_bench_bytes_of(f->plan, f->cases, c, result),
    };

    row.tokens_per_s = (double)row.tokens / row.seconds;
    row.bytes_per_step = (double)(row.bytes.weights + row.bytes.kv);
    row.ratio = row.bytes_per_step / row.seconds / f->read_bandwidth;
    return row;
}

static bool is_measured(const tsr_bench_facts *f, int32_t index, bool decode)
{
    return f->cases->of[index].decode == decode && tsr_bench_run_result(f->run, index)->step_ns > 0;
}

static json_t *row_json(const tsr_bench_facts *f, const report_row *row)
{
    json_t *json = json_pack(
        "{s:f, s:f, s:f, s:f, s:I, s:I, s:f, s:f, s:f}", "tokens_per_s", row->tokens_per_s,
        "step_ms", 1e3 * row->seconds, "bytes_per_token", row->bytes_per_step / (double)row->tokens,
        "bytes_per_step", row->bytes_per_step, "weight_bytes", (json_int_t)row->bytes.weights,
        "kv_bytes", (json_int_t)row->bytes.kv, "experts_per_layer", row->bytes.experts,
        "read_bandwidth", f->read_bandwidth, "ratio", row->ratio);

    if (row->of->decode) {
        (void)json_object_set_new(json, "batch", json_integer(row->of->prompts));
        (void)json_object_set_new(json, "context", json_integer(f->cases->context));
    } else {
        (void)json_object_set_new(json, "prompts", json_integer(row->of->prompts));
        (void)json_object_set_new(json, "prompt_tokens", json_integer(row->of->prompt_tokens));
    }
    return json;
}

static json_t *stages_json(const tsr_stage_times *times)
{
    json_t *json = json_object();

    for (int s = 0; s < TSR_STAGES; s++) {
        if (times->ns[s] > 0)
            (void)json_object_set_new(json, tsr_stage_name((tsr_stage)s),
                                      json_real((double)times->ns[s] / 1e3));
    }
    return json;
}

static json_t *rows_json(const tsr_bench_facts *f, bool decode)
{
    json_t *list = json_array();

    for (int32_t i = 0; i < f->cases->count; i++) {
        if (!is_measured(f, i, decode))
            continue;
        const report_row row = row_of(f, i);
        json_t *json = row_json(f, &row);
        (void)json_object_set_new(json, "stages_us",
                                  stages_json(&tsr_bench_run_result(f->run, i)->times));
        (void)json_array_append_new(list, json);
    }
    return list;
}

static tsr_status print_bench_json(const tsr_bench_facts *f, FILE *out)
{
    return tsr_json_print(
        json_pack("{s:s, s:s, s:i, s:i, s:s, s:f, s:{s:I, s:f, s:f}, s:o, s:o}", "model", f->model,
                  "device", f->device, "ranks", f->plan->ranks, "layers", f->plan->model.layers,
                  "kv_format", tsr_kv_format_name(f->plan->kv_format), "read_bandwidth",
                  f->read_bandwidth, "load", "bytes", (json_int_t)f->load_bytes, "seconds",
                  (double)f->load_ns / 1e9, "bytes_per_s", per_second(f->load_bytes, f->load_ns),
                  "decode", rows_json(f, true), "prefill", rows_json(f, false)),
        out);
}

static void name_case(const tsr_bench_facts *f, const tsr_bench_case *c, size_t capacity,
                      char *ret_name)
{
    (void)snprintf(ret_name, capacity, c->decode ? "%d at %d" : "%d x %d", c->prompts,
                   c->decode ? f->cases->context : c->prompt_tokens);
}

static void print_bench_rows(const tsr_bench_facts *f, bool decode, FILE *out)
{
    char name[64];
    bool any = false;

    for (int32_t i = 0; i < f->cases->count; i++) {
        if (!is_measured(f, i, decode))
            continue;
        const report_row row = row_of(f, i);
        if (!any)
            (void)fprintf(out, "\n  %-22s %10s %10s %9s %10s %10s %10s %7s\n",
                          decode ? "decode" : "prefill", "tokens/s", "ms/step", "experts",
                          "weights GB", "KV GB", "GB/s", "of read");
        any = true;
        name_case(f, row.of, sizeof(name), name);
        (void)fprintf(out, "  %-22s %10.1f %10.3f %9.1f %10.3f %10.3f %10.2f %6.1f%%\n", name,
                      row.tokens_per_s, 1e3 * row.seconds, row.bytes.experts,
                      (double)row.bytes.weights / 1e9, (double)row.bytes.kv / 1e9,
                      row.bytes_per_step / row.seconds / 1e9, 1e2 * row.ratio);
    }
}

static bool has_stage(const tsr_bench_facts *f, int stage)
{
    int64_t ns = 0;

    for (int32_t i = 0; i < f->cases->count; i++)
        ns += tsr_bench_run_result(f->run, i)->times.ns[stage];
    return ns > 0;
}

/* Where the time of a step goes, a column a stage. */
static void print_stages(const tsr_bench_facts *f, FILE *out)
{
    char name[64];

    (void)fprintf(out, "\n  %-22s", "microseconds a step");
    for (int s = 0; s < TSR_STAGES; s++) {
        if (has_stage(f, s))
            (void)fprintf(out, " %10s", tsr_stage_name((tsr_stage)s));
    }
    (void)fputs("\n", out);
    for (int32_t i = 0; i < f->cases->count; i++) {
        const tsr_bench_result *result = tsr_bench_run_result(f->run, i);
        if (!result->times.done)
            continue;
        name_case(f, &f->cases->of[i], sizeof(name), name);
        (void)fprintf(out, "  %-22s", name);
        for (int s = 0; s < TSR_STAGES; s++) {
            if (has_stage(f, s))
                (void)fprintf(out, " %10.1f", (double)result->times.ns[s] / 1e3);
        }
        (void)fputs("\n", out);
    }
}

tsr_status tsr_bench_report(const tsr_bench_facts *facts, bool json, FILE *out)
{
    const tsr_bench_facts *f = facts;

    if (json)
        return print_bench_json(f, out);
    (void)fprintf(out, "%s, %d layers, on %d rank%s of %s\n\n", f->model, f->plan->model.layers,
                  f->plan->ranks, f->plan->ranks > 1 ? "s" : "", f->device);
    (void)fprintf(out, "  %-22s %10.2f GB/s\n", "memory reads", f->read_bandwidth / 1e9);
    (void)fprintf(out, "  %-22s %10.2f GB/s, %.2f GB in %.2f s from the start\n", "load",
                  per_second(f->load_bytes, f->load_ns) / 1e9, (double)f->load_bytes / 1e9,
                  (double)f->load_ns / 1e9);
    print_bench_rows(f, true, out);
    print_bench_rows(f, false, out);
    print_stages(f, out);
    if (f->plan->ranks > 1)
        (void)fputs("\n  bytes and stages are those of rank 0, tokens those of all ranks\n", out);
    return tsr_print_end(out);
}
