/* The same builder as a job's: what is shown is what would be counted there. Free memory is read
 * once, in front, so that the number shown is the number the limits were chosen by. */
#include "launch/plan/plan_command.h"

#include "launch/plan/plan_json.h"
#include "launch/report/path_report.h"
#include "launch/report/precision_map.h"
#include "launch/report/problem_list.h"
#include "runtime/plan/byte_count.h"
#include "runtime/plan/targets.h"

/* What is shown. `plan` is NULL where the checkpoint was refused. */
typedef struct proposal {
    const char *folder;
    const tsr_plan_request *request;
    tsr_plan *plan;
    bool fits;
    tsr_problems problems;
} proposal;

static void print_bytes(uint64_t bytes, FILE *out)
{
    char text[TSR_BYTE_COUNT_BYTES];

    (void)fprintf(out, "%12s", tsr_byte_count_text(bytes, text));
}

/* Neighbouring ranks that hold the same number of bytes share a line. */
static void print_ranks(const proposal *x, FILE *out)
{
    const tsr_plan *plan = x->plan;
    char ranks[32];

    (void)fprintf(out, "\n  %-10s%12s%12s%12s%12s%12s%12s%12s\n", "ranks", "weights", "KV",
                  x->request->target->exact_workspace ? "workspace" : "workspace~", "buffers",
                  "(loading)", "total", "of");
    for (int32_t first = 0, last; first < plan->ranks; first = last + 1) {
        const tsr_rank_budget *b = &plan->budget[first];
        for (last = first; last + 1 < plan->ranks; last++)
            if (plan->budget[last + 1].weights_bytes != b->weights_bytes)
                break;
        (void)snprintf(ranks, sizeof(ranks), last > first ? "%d-%d" : "%d", first, last);
        (void)fprintf(out, "  %-10s", ranks);
        print_bytes(b->weights_bytes, out);
        print_bytes(b->kv_bytes, out);
        print_bytes(b->workspace_bytes, out);
        print_bytes(b->buffers_bytes, out);
        print_bytes(b->loading_bytes, out);
        print_bytes(tsr_rank_budget_total(b), out);
        print_bytes(x->request->memory_bytes, out);
        (void)fputc('\n', out);
    }
    if (!x->request->target->exact_workspace)
        (void)fputs("  ~ an estimate\n", out);
    if (x->request->target->host)
        (void)fputs("  (loading) is over before KV, workspace and buffers are used: the larger "
                    "counts\n",
                    out);
}

static void print_limits(const proposal *x, FILE *out)
{
    const tsr_engine_limits *l = &x->plan->limits;

    (void)fprintf(out,
                  "\n  each rank serves %d sequences of up to %d positions, %d tokens a step;\n"
                  "  its KV cache holds %lld positions (%s) in blocks of %d\n",
                  l->max_num_seqs, l->max_model_len, l->max_batched_tokens,
                  (long long)l->kv_blocks * l->kv_block_tokens,
                  tsr_kv_format_name(x->plan->kv_format), l->kv_block_tokens);
}

static tsr_status print_text(const proposal *x, bool colour, FILE *out)
{
    if (x->plan != NULL) {
        (void)fprintf(out, "%s on %d %s rank%s: %s\n\n", x->folder, x->plan->ranks,
                      x->request->target->name, x->plan->ranks > 1 ? "s" : "",
                      x->fits ? "fits" : "does not fit");
        tsr_precision_map_print(x->plan, colour, out);
        print_ranks(x, out);
        print_limits(x, out);
        (void)fprintf(out, "\nhow it is computed on %s\n",
                      tsr_target_name(x->request->activations_of != NULL
                                          ? x->request->activations_of
                                          : x->request->target));
        tsr_path_report_print(x->plan, x->request, out);
        (void)fputc('\n', out);
    }
    tsr_problem_list_print(&x->problems, out);
    return tsr_print_end(out);
}

static tsr_status print_json(const proposal *x, FILE *out)
{
    json_t *json = json_pack("{s:s, s:b}", "folder", x->folder, "fits", x->fits);

    if (x->plan != NULL) {
        (void)json_object_set_new(json, "target", json_string(x->request->target->name));
        (void)json_object_set_new(json, "memory_bytes",
                                  json_integer((json_int_t)x->request->memory_bytes));
        (void)json_object_set_new(json, "workspace_is_estimate",
                                  json_boolean(!x->request->target->exact_workspace));
        json_t *plan = tsr_plan_json(x->plan, x->request);
        (void)json_object_update(json, plan);
        json_decref(plan);
    }
    (void)json_object_set_new(json, "problems", tsr_problem_list_json(&x->problems));
    return tsr_json_print(json, out);
}

tsr_status tsr_plan_show(const char *folder, const tsr_plan_request *request, bool json,
                         bool colour, FILE *out)
{
    tsr_plan_request counted = *request; /* the memory shown is the memory counted */
    proposal x = {.folder = folder, .request = &counted};
    tsr_checkpoint *checkpoint = NULL;
    tsr_status printed;
    tsr_status st = tsr_checkpoint_open(folder, &x.problems, &checkpoint);

    tsr_plan_request_count_memory(&counted);
    if (st == TSR_OK)
        st = tsr_plan_build(checkpoint, &counted, &x.problems, &x.plan, &x.fits);
    if (st == TSR_OK && !x.fits)
        st = TSR_ERR_CAPACITY;
    printed = json ? print_json(&x, out) : print_text(&x, colour, out);
    tsr_plan_close(x.plan);
    tsr_checkpoint_close(checkpoint);
    tsr_problems_close(&x.problems);
    return st == TSR_OK ? printed : st;
}
