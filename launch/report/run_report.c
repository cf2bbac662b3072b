/*
 * What one looks at after a run: where its time went and what it could not have gone below, who
 * waited, which experts were asked, and in what precision all of it was computed.
 */
#include "launch/report/run_report.h"

#include "launch/files/output_file.h"
#include "launch/report/page.h"
#include "runtime/base/sizes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEADLINE_MS = 60000, DEVICE_BYTES = 128, LIGHT = 246, SPAN = 200 };

/* Of waits by pair: shades on which numbers are read; more ranks have no numbers. */
enum { WRITTEN_SPAN = 140, MOST_WRITTEN = 16 };

#define READ_BYTES ((uint64_t)256 << 20)

struct tsr_run_report {
    tsr_output_file *file;
    const char *path;
    const char *folder;
    const tsr_plan *plan;
    const tsr_watch *watch;
    double read_bandwidth;
    char device[DEVICE_BYTES];
};

tsr_status tsr_run_report_open(const char *path, const char *folder, tsr_run_report **ret_report)
{
    tsr_run_report *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return TSR_ERR_MEMORY;
    r->path = path;
    r->folder = folder;
    *ret_report = r;
    return TSR_OK;
}

tsr_status tsr_run_report_begin(tsr_run_report *report, const tsr_plan *plan)
{
    const tsr_output_args args = {
        .option = "--report", .path = report->path, .deadline_ms = DEADLINE_MS};

    report->plan = plan;
    return tsr_output_file_open(&args, &report->file);
}

tsr_status tsr_run_report_measure(tsr_run_report *report, tsr_device *device)
{
    (void)snprintf(report->device, sizeof(report->device), "%s", tsr_device_name(device));
    return tsr_device_read_bandwidth(device, READ_BYTES, &report->read_bandwidth);
}

void tsr_run_report_use(tsr_run_report *report, const tsr_watch *watch)
{
    report->watch = watch;
}

static void add_number(tsr_page *page, const char *name, int decimals, double value)
{
    tsr_page_add(page, "<tr><th>%s</th><td class=\"n\">%.*f</td></tr>\n", name, decimals, value);
}

static void add_summary(tsr_page *page, const tsr_run_report *r, const tsr_engine_stats *s)
{
    const double seconds = (double)s->run_ns / 1e9;

    tsr_page_add(page, "<p>%d rank%s of ", r->plan->ranks, r->plan->ranks > 1 ? "s" : "");
    tsr_page_text(page, r->device);
    tsr_page_add(page, "</p>\n<table>\n");
    add_number(page, "requests", 0, (double)s->requests);
    add_number(page, "prompt tokens", 0, (double)s->prompt_tokens);
    add_number(page, "output tokens", 0, (double)s->output_tokens);
    add_number(page, "seconds", 2, seconds);
    add_number(page, "output tokens/s", 1, seconds > 0 ? (double)s->output_tokens / seconds : 0);
    add_number(page, "ms to the first token, mean", 1,
               s->first_tokens > 0 ? (double)s->first_token_ns_sum / 1e6 / (double)s->first_tokens
                                   : 0);
    add_number(page, "steps", 0, (double)r->watch->own.steps);
    add_number(page, "steps looked at", 0, (double)r->watch->own.looked_at);
    tsr_page_add(page, "</table>\n");
}

/* The stage that reads a linear. */
static tsr_stage stage_of(tsr_role role)
{
    if (role >= TSR_ROLE_Q && role <= TSR_ROLE_O)
        return TSR_STAGE_ATTENTION;
    if (role == TSR_ROLE_ROUTER)
        return TSR_STAGE_CHOOSE;
    if (role >= TSR_ROLE_GATE && role <= TSR_ROLE_DOWN)
        return TSR_STAGE_DENSE;
    if (role >= TSR_ROLE_SHARED_GATE && role <= TSR_ROLE_SHARED_DOWN)
        return TSR_STAGE_SHARED;
    if (role >= TSR_ROLE_EXPERT_GATE && role <= TSR_ROLE_EXPERT_DOWN)
        return TSR_STAGE_EXPERTS;
    return TSR_STAGE_PREDICT;
}

/* Weights that rank 0 has read, in the steps that were looked at, by stage. */
static void count_bytes(const tsr_run_report *r, double bytes[TSR_STAGES])
{
    const tsr_model_facts *m = &r->plan->model;

    for (int32_t i = 0; i < r->plan->linear_count; i++) {
        const tsr_linear_plan *l = &r->plan->linears[i];
        const tsr_stage stage = stage_of(l->role);
        const double own = (double)(tsr_weight_bytes(l->format, l->out, l->in) +
                                    tsr_scale_bytes(l->format, l->out, l->in));
        double times = (double)r->watch->own.looked_at;
        if (l->role == TSR_ROLE_EMBED && !m->tied_head)
            times = 0;
        if (stage == TSR_STAGE_EXPERTS) {
            const int32_t at = l->layer * m->experts + l->expert;
            times = r->plan->expert_rank[at] == 0 ? (double)r->watch->own.reads[at] : 0;
        }
        bytes[stage] += own * times;
    }
}

static void add_stages(tsr_page *page, const tsr_run_report *r)
{
    const int64_t *ns = r->watch->ns[0];
    double bytes[TSR_STAGES] = {0};
    double sum = 0;

    count_bytes(r, bytes);
    for (int s = 0; s < TSR_STAGES; s++)
        sum += (double)ns[s];
    tsr_page_add(page,
                 "<h2>Time by stage, and what memory allows</h2>\n<p>Memory was read at %.1f GB/s "
                 "before the weights were there. A stage cannot be faster than its weights are "
                 "read, so far as no cache holds them.</p>\n<table class=\"stages\"><tr>"
                 "<th>stage</th><th class=\"n\">ms</th><th class=\"n\">of all</th><th></th><th "
                 "class=\"n\">weights, MB</th><th class=\"n\">ms at memory speed</th><th "
                 "class=\"n\">of the limit</th></tr>\n",
                 r->read_bandwidth / 1e9);
    for (int s = 0; s < TSR_STAGES; s++) {
        const double limit_ms = bytes[s] / r->read_bandwidth * 1e3;
        const double share = sum > 0 ? (double)ns[s] / sum : 0;
        if (ns[s] == 0)
            continue;
        tsr_page_add(page,
                     "<tr><td class=\"stage\">%s</td><td class=\"n\">%.2f</td><td class=\"n\">%.1f "
                     "%%</td><td><span class=\"bar\" style=\"width:%.1frem\"></span></td>",
                     tsr_stage_name((tsr_stage)s), (double)ns[s] / 1e6, 100 * share, 14 * share);
        if (bytes[s] > 0)
            tsr_page_add(page,
                         "<td class=\"n\">%.1f</td><td class=\"n\">%.2f</td><td class=\"n\">%.0f "
                         "%%</td></tr>\n",
                         bytes[s] / 1e6, limit_ms, 100 * limit_ms * 1e6 / (double)ns[s]);
        else
            tsr_page_add(page, "<td></td><td></td><td></td></tr>\n");
    }
    tsr_page_add(page,
                 "</table>\n<p class=\"note\">Of rank 0, in the steps that were looked at, "
                 "each of which waits for every stage. Weights as they are stored, the routed "
                 "experts' each time that rows came for them; keys and values are not counted."
                 "</p>\n");
}

static double loads_of(const tsr_run_report *r, int32_t rank)
{
    double tokens = 0;

    for (size_t i = 0; i < r->watch->cells; i++)
        tokens += r->plan->expert_rank[i] == rank ? (double)r->watch->own.tokens[i] : 0;
    return tokens;
}

static void add_ranks(tsr_page *page, const tsr_run_report *r)
{
    tsr_page_add(page, "<h2>Ranks</h2>\n<table class=\"ranks\"><tr><th class=\"n\">rank</th><th "
                       "class=\"n\">rows for its experts</th><th class=\"n\">experts, ms</th><th "
                       "class=\"n\">waits for rows, ms</th><th class=\"n\">waits for answers, ms"
                       "</th><th class=\"n\">waiting</th><th></th></tr>\n");
    for (int32_t rank = 0; rank < r->plan->ranks; rank++) {
        const int64_t *ns = r->watch->ns[rank];
        const double waits = (double)(ns[TSR_STAGE_ARRIVE] + ns[TSR_STAGE_RETURN]);
        double sum = 0;
        for (int s = 0; s < TSR_STAGES; s++)
            sum += (double)ns[s];
        const double share = sum > 0 ? waits / sum : 0;
        tsr_page_add(page,
                     "<tr><td class=\"n rank\">%d</td><td class=\"n\">%.0f</td><td "
                     "class=\"n\">%.1f</td><td class=\"n\">%.1f</td><td class=\"n\">%.1f</td><td "
                     "class=\"n\">%.1f %%</td><td><span class=\"bar\" style=\"width:%.1frem\">"
                     "</span></td></tr>\n",
                     rank, loads_of(r, rank), (double)ns[TSR_STAGE_EXPERTS] / 1e6,
                     (double)ns[TSR_STAGE_ARRIVE] / 1e6, (double)ns[TSR_STAGE_RETURN] / 1e6,
                     100 * share, 14 * share);
    }
    tsr_page_add(page, "</table>\n<p class=\"note\">A rank that waits little is the one that the "
                       "others wait for.</p>\n");
}

/* The longest a rank has waited for another. */
static int64_t longest_wait(const tsr_run_report *r)
{
    const size_t ranks = (size_t)r->plan->ranks;
    int64_t most = 0;

    for (size_t i = 0; i < ranks * ranks; i++)
        most = tsr_larger_64(most, r->watch->waited_ns[i]);
    return most;
}

static void add_waits_of(tsr_page *page, const tsr_run_report *r, int32_t rank, int64_t most)
{
    const int32_t ranks = r->plan->ranks;
    const int64_t *ns = r->watch->waited_ns + (size_t)rank * (size_t)ranks;

    tsr_page_add(page, "<tr><td class=\"l\">rank %d</td>", rank);
    for (int32_t peer = 0; peer < ranks; peer++) {
        const int shade = most > 0 ? LIGHT - (int)(WRITTEN_SPAN * ns[peer] / most) : LIGHT;
        if (peer == rank) {
            tsr_page_add(page, "<td></td>");
            continue;
        }
        tsr_page_add(page,
                     "<td class=\"w\" style=\"background:rgb(%d,%d,%d)\" title=\"rank %d waited "
                     "%.1f ms for rank %d\">",
                     shade, tsr_larger(shade, 60 + shade / 2), LIGHT - (LIGHT - shade) / 4, rank,
                     (double)ns[peer] / 1e6, peer);
        if (ranks <= MOST_WRITTEN)
            tsr_page_add(page, "%.1f", (double)ns[peer] / 1e6);
        tsr_page_add(page, "</td>");
    }
    tsr_page_add(page, "</tr>\n");
}

static void add_pairs(tsr_page *page, const tsr_run_report *r)
{
    const int32_t ranks = r->plan->ranks;

    if (ranks == 1)
        return;
    tsr_page_add(page, "<h2>Waits by pair of ranks</h2>\n");
    tsr_page_add(page,
                 "<p>How long the rank of a row, in ms, waited for the rank of a column.</p>\n"
                 "<div class=\"scroll\"><table class=\"heat pairs\"><tr><th></th>");
    for (int32_t peer = 0; peer < ranks; peer++)
        tsr_page_add(page, "<th>%d</th>", peer);
    tsr_page_add(page, "</tr>\n");
    const int64_t most = longest_wait(r);
    for (int32_t rank = 0; rank < ranks; rank++)
        add_waits_of(page, r, rank, most);
    tsr_page_add(page,
                 "</table></div>\n<p class=\"note\">From the start of each wait of the whole run "
                 "until that rank's rows or answers were all there. Waits for several ranks "
                 "overlap: a row's sum is more than the rank has waited. A dark column is a "
                 "rank that is late.</p>\n");
}

/* A layer's experts, darker where more came; twice the mean is as dark as it gets. */
static void add_layer_load(tsr_page *page, const tsr_run_report *r, int32_t layer)
{
    const int32_t experts = r->plan->model.experts;
    const int64_t *tokens = r->watch->own.tokens + (size_t)layer * (size_t)experts;
    int64_t most = 0;
    int64_t sum = 0;

    for (int32_t e = 0; e < experts; e++) {
        sum += tokens[e];
        most = tokens[e] > most ? tokens[e] : most;
    }
    const double mean = (double)sum / experts;
    tsr_page_add(page, "<tr><td class=\"l\">%d</td>", layer);
    for (int32_t e = 0; e < experts; e++) {
        const double dark = mean > 0 ? (double)tokens[e] / (2 * mean) : 0;
        const int shade = LIGHT - (int)(SPAN * (dark < 1 ? dark : 1));
        tsr_page_add(page,
                     "<td class=\"h\" style=\"background:rgb(%d,%d,%d)\" title=\"layer %d, expert "
                     "%d on rank %d: %lld rows\"></td>",
                     shade, tsr_larger(shade, 60 + shade / 2), LIGHT - (LIGHT - shade) / 4, layer,
                     e, r->plan->expert_rank[layer * experts + e], (long long)tokens[e]);
    }
    tsr_page_add(page, "<td class=\"most\">%.2f</td></tr>\n", mean > 0 ? (double)most / mean : 0);
}

static void add_loads(tsr_page *page, const tsr_run_report *r)
{
    const tsr_watched *w = &r->watch->own;

    tsr_page_add(page,
                 "<h2>Load of every expert</h2>\n<p>A row for each layer, a cell for each of "
                 "%d experts: rows of tokens that came for it",
                 r->plan->model.experts);
    if (w->looked_at == w->steps)
        tsr_page_add(page, " in the whole run");
    else
        tsr_page_add(page, " in %lld of %lld steps, every 64th", (long long)w->looked_at,
                     (long long)w->steps);
    tsr_page_add(page,
                 ". White is none, the darkest twice the layer's mean or more; on the right "
                 "the busiest over the mean.</p>\n<div class=\"scroll\"><table class=\"heat\">"
                 "\n");
    for (int32_t layer = 0; layer < r->plan->model.layers; layer++) {
        if (r->plan->model.sparse[layer])
            add_layer_load(page, r, layer);
    }
    tsr_page_add(page, "</table></div>\n");
}

tsr_status tsr_run_report_write(tsr_run_report *report, const tsr_engine_stats *stats)
{
    const tsr_precision_map map = {.model = &report->plan->model,
                                   .linears = report->plan->linears,
                                   .linear_count = report->plan->linear_count};
    tsr_page page = {.text = tsr_output_file_text(report->file)};

    tsr_page_begin(&page, "Run", report->folder);
    add_summary(&page, report, stats);
    add_stages(&page, report);
    add_ranks(&page, report);
    add_pairs(&page, report);
    add_loads(&page, report);
    tsr_page_map(&page, &map);
    tsr_page_end(&page);
    return page.status == TSR_OK ? tsr_output_file_finish(report->file) : page.status;
}

void tsr_run_report_close(tsr_run_report *report)
{
    if (report == NULL)
        return;
    tsr_output_file_close(report->file);
    free(report);
}
