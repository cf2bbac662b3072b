/* Linears fall into a line when they are computed alike, so that a model of 10,000 linears is a few
 * lines. The plan alone decides what is computed; the request only says why. */
#include "launch/report/path_report.h"

#include "launch/report/precision_map.h"
#include "runtime/plan/algos.h"
#include "runtime/plan/targets.h"

#include <stdlib.h>
#include <string.h>

/* A line of the report: linears that share group, algorithm and treatment. */
typedef struct path_line {
    const tsr_linear_plan *example;
    int group;
    unsigned roles; /* bit for each tsr_role */
    bool layers[TSR_MAX_LAYERS];
} path_line;

typedef struct path_lines {
    path_line *lines; /* [count], room for MOST_LINES */
    int count;
} path_lines;

enum { GROUP_ATTENTION, GROUP_DENSE, GROUP_SHARED, GROUP_EXPERTS, GROUP_OTHER, GROUPS };

enum { RANGES_BYTES = TSR_MAX_LAYERS / 2 * 5 + 1 }; /* "508, 510": every second layer */

enum { MOST_LINES = GROUPS * TSR_ALGO_COUNT * 3 };

static const char *const group_names[GROUP_OTHER] = {"attention", "dense MLP", "shared experts",
                                                     "experts"};

/* What a line of the last group is about. */
static const struct {
    tsr_role role;
    const char *name;
} others[] = {{TSR_ROLE_EMBED, "embedding"}, {TSR_ROLE_ROUTER, "router"}, {TSR_ROLE_HEAD, "head"}};

static int group_of(tsr_role role)
{
    if (role >= TSR_ROLE_Q && role <= TSR_ROLE_O)
        return GROUP_ATTENTION;
    if (role >= TSR_ROLE_GATE && role <= TSR_ROLE_DOWN)
        return GROUP_DENSE;
    if (role >= TSR_ROLE_SHARED_GATE && role <= TSR_ROLE_SHARED_DOWN)
        return GROUP_SHARED;
    return role >= TSR_ROLE_EXPERT_GATE ? GROUP_EXPERTS : GROUP_OTHER;
}

static const char *activation_text(tsr_activation activation)
{
    switch (activation) {
    case TSR_ACTIVATION_FP8:
        return "activations FP8 by the stored input_scale";
    case TSR_ACTIVATION_FP8_TOKEN:
        return "activations FP8, scaled per token";
    case TSR_ACTIVATION_FP8_GROUP:
        return "activations FP8, scaled per 128 inputs";
    case TSR_ACTIVATION_NVFP4:
        return "activations FP4 in blocks of 16";
    case TSR_ACTIVATION_NONE:
    case TSR_ACTIVATION_COUNT:
        break;
    }
    return "activations not quantized";
}

void tsr_path_describe(const tsr_linear_plan *linear, const tsr_plan_request *request,
                       size_t capacity, char *ret_text)
{
    const tsr_algo_row *row = tsr_algo_row_of(linear->algo);
    const tsr_target *of =
        request->activations_of != NULL ? request->activations_of : request->target;
    char width[16], lack[96];

    (void)snprintf(width, sizeof(width), "W%dA16", tsr_format_row_of(linear->format)->weight_bits);
    if (linear->algo == TSR_ALGO_NONE) {
        (void)snprintf(ret_text, capacity, "not quantized");
    } else if (linear->activation != TSR_ACTIVATION_NONE) {
        (void)snprintf(ret_text, capacity, "as declared, %s", activation_text(linear->activation));
    } else if (row->activation == TSR_ACTIVATION_NONE) {
        (void)snprintf(ret_text, capacity, "weights only (%s), as declared", width);
    } else if (request->activations == TSR_ACTIVATIONS_WEIGHT_ONLY) {
        (void)snprintf(ret_text, capacity, "weights only (%s), as --activations weight-only asks",
                       width);
    } else {
        tsr_target_lack(of, row->activation, sizeof(lack), lack);
        (void)snprintf(ret_text, capacity, "weights only (%s), because %s", width, lack);
    }
}

static void add_linear(path_lines *p, const tsr_linear_plan *linear)
{
    int group = group_of(linear->role), at = 0;

    while (at < p->count &&
           (p->lines[at].group != group || p->lines[at].example->algo != linear->algo ||
            p->lines[at].example->format != linear->format ||
            p->lines[at].example->activation != linear->activation))
        at++;
    if (at == MOST_LINES)
        return;
    if (at == p->count)
        p->lines[p->count++] = (path_line){.example = linear, .group = group};
    p->lines[at].roles |= 1U << linear->role;
    if (linear->layer >= 0)
        p->lines[at].layers[linear->layer] = true;
}

static const char *precision_name(const tsr_linear_plan *linear)
{
    if (linear->algo != TSR_ALGO_NONE)
        return tsr_algo_name(linear->algo);
    return tsr_dtype_name(tsr_format_row_of(linear->format)->weight_dtype);
}

static void print_others(unsigned roles, FILE *out)
{
    const char *before = " ";

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if ((roles >> others[i].role & 1U) == 0)
            continue;
        (void)fprintf(out, "%s%s", before, others[i].name);
        before = ", ";
    }
}

/* "attention o_proj": the group, and its roles where the line is not about all of them. */
static void print_line(const path_line *line, unsigned all, const tsr_plan *plan,
                       const tsr_plan_request *request, FILE *out)
{
    char path[192], layers[RANGES_BYTES];

    tsr_path_describe(line->example, request, sizeof(path), path);
    tsr_layer_ranges(line->layers, plan->model.layers, sizeof(layers), layers);
    (void)fprintf(out, "  %s", precision_name(line->example));
    if (line->group == GROUP_OTHER)
        print_others(line->roles, out);
    else
        (void)fprintf(out, " %s", group_names[line->group]);
    (void)fprintf(out, ": %s", path);
    if (line->group != GROUP_OTHER)
        (void)fprintf(out, "; layer%s %s", strpbrk(layers, "-,") != NULL ? "s" : "", layers);
    if (line->roles != all && line->group != GROUP_OTHER) {
        const char *before = " (";
        for (int role = 0; role < TSR_ROLE_FINAL_NORM; role++) {
            if ((line->roles >> role & 1U) == 0)
                continue;
            (void)fprintf(out, "%s%s", before, tsr_role_name((tsr_role)role));
            before = ", ";
        }
        (void)fputc(')', out);
    }
    (void)fputc('\n', out);
}

void tsr_path_report_print(const tsr_plan *plan, const tsr_plan_request *request, FILE *out)
{
    path_lines p = {.lines = calloc(MOST_LINES, sizeof(path_line))};
    unsigned all[GROUPS] = {0};

    if (p.lines == NULL)
        return;
    for (int32_t i = 0; i < plan->linear_count; i++) {
        add_linear(&p, &plan->linears[i]);
        all[group_of(plan->linears[i].role)] |= 1U << plan->linears[i].role;
    }
    for (int group = 0; group < GROUPS; group++)
        for (int i = 0; i < p.count; i++)
            if (p.lines[i].group == group)
                print_line(&p.lines[i], all[group], plan, request, out);
    (void)fprintf(out, "  KV cache: %s\n", tsr_kv_format_name(plan->kv_format));
    free(p.lines);
}
