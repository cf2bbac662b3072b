/* Shows what can be shown, then what is wrong: a checkpoint that contradicts itself is drawn all
 * the same, and the exit code says that it would not be served. */
#include "launch/plan/inspect_command.h"

#include "launch/files/output_file.h"
#include "launch/files/output_path.h"
#include "launch/report/page.h"
#include "launch/report/precision_map.h"
#include "launch/report/problem_list.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/plan/algos.h"
#include "runtime/plan/byte_count.h"
#include "runtime/plan/precision.h"

#include <string.h>

enum { PAGE_DEADLINE_MS = 60000 };

/* Everything that is shown. `precision` is NULL where the checkpoint could not be read. */
typedef struct inspection {
    const char *folder;
    tsr_checkpoint *checkpoint;
    tsr_precision *precision;
    tsr_problems problems;
} inspection;

static const char *family_name(tsr_family family)
{
    return family == TSR_FAMILY_QWEN3_MOE ? "qwen3_moe" : "glm4_moe";
}

static uint64_t stored_bytes(const tsr_checkpoint *checkpoint)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < checkpoint->tensor_count; i++)
        bytes += checkpoint->tensors[i].bytes;
    return bytes;
}

static const char *algo_text(const tsr_declarations *d)
{
    if (d->mixed)
        return "MIXED_PRECISION";
    return d->quantized && d->uniform.algo != NULL ? d->uniform.algo : "none";
}

static const char *kv_text(const tsr_precision *p)
{
    static const char *const names[] = {"not quantized", "FP8", "not served"};

    return names[p->kv];
}

static int32_t count_contradicted(const tsr_precision *p)
{
    int32_t count = 0;

    for (int32_t i = 0; i < p->linear_count; i++)
        count += p->claims[i].contradicted || p->claims[i].refused;
    return count;
}

static void print_model(const inspection *x, FILE *out)
{
    const tsr_model_facts *m = &x->checkpoint->model;
    const tsr_declarations *d = &x->checkpoint->declared;
    char bytes[TSR_BYTE_COUNT_BYTES];
    int32_t sparse = 0;

    for (int32_t layer = 0; layer < m->layers; layer++)
        sparse += m->sparse[layer];
    (void)fprintf(out, "%s\n", x->folder);
    (void)fprintf(out, "  model      %s, %d layers (%d with experts), hidden %d, vocabulary %d%s\n",
                  family_name(m->family), m->layers, sparse, m->hidden, m->vocab,
                  m->tied_head ? ", tied head" : "");
    (void)fprintf(out, "  attention  %d heads, %d for keys and values, of %d; %d positions\n",
                  m->q_heads, m->kv_heads, m->head_dim, m->max_positions);
    (void)fprintf(out, "  experts    %d of %d wide, %d for each token", m->experts,
                  m->expert_intermediate, m->top_k);
    if (m->shared_intermediate > 0)
        (void)fprintf(out, "; shared %d wide", m->shared_intermediate);
    (void)fprintf(out, "\n  files      %zu, %zu tensors, %s\n", x->checkpoint->file_count,
                  x->checkpoint->tensor_count,
                  tsr_byte_count_text(stored_bytes(x->checkpoint), bytes));
    (void)fprintf(out, "  declared   %s", algo_text(d));
    if (d->quantized)
        (void)fprintf(out, " in %s, %zu keys, %zu exclusions", d->source, d->layer_count,
                      d->exclude_count);
    (void)fprintf(out, "; KV cache %s\n\n", kv_text(x->precision));
}

static tsr_status print_text(const inspection *x, bool colour, FILE *out)
{
    if (x->precision != NULL) {
        const tsr_precision_map map = {.model = &x->checkpoint->model,
                                       .linears = x->precision->linears,
                                       .claims = x->precision->claims,
                                       .linear_count = x->precision->linear_count,
                                       .colour = colour};
        const int32_t contradicted = count_contradicted(x->precision);
        print_model(x, out);
        tsr_precision_map_draw(&map, out);
        if (contradicted > 0)
            (void)fprintf(out, "\ncontradicted: %d of %d linears\n", contradicted,
                          x->precision->linear_count);
        else if (x->problems.errors == 0)
            (void)fprintf(out, "\nproven: all %d linears are stored as declared\n",
                          x->precision->linear_count);
        else
            (void)fputc('\n', out);
    }
    tsr_problem_list_print(&x->problems, out);
    return tsr_print_end(out);
}

static json_t *model_json(const tsr_model_facts *m)
{
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "family",
                     family_name(m->family), "layers", m->layers, "hidden", m->hidden, "vocab",
                     m->vocab, "q_heads", m->q_heads, "kv_heads", m->kv_heads, "head_dim",
                     m->head_dim, "experts", m->experts, "top_k", m->top_k, "expert_intermediate",
                     m->expert_intermediate, "shared_intermediate", m->shared_intermediate,
                     "dense_intermediate", m->dense_intermediate, "max_positions",
                     m->max_positions);
}

static json_t *formats_json(const tsr_precision *p)
{
    uint64_t bytes[TSR_ALGO_COUNT] = {0};
    int32_t counts[TSR_ALGO_COUNT] = {0};
    json_t *list = json_array();

    for (int32_t i = 0; i < p->linear_count; i++) {
        counts[p->linears[i].algo]++;
        bytes[p->linears[i].algo] += tsr_linear_stored_bytes(&p->linears[i]);
    }
    for (int a = 0; a < TSR_ALGO_COUNT; a++)
        if (counts[a] > 0)
            (void)json_array_append_new(list, json_pack("{s:s, s:i, s:I}", "algo",
                                                        tsr_algo_name((tsr_algo)a), "linears",
                                                        counts[a], "bytes", (json_int_t)bytes[a]));
    return list;
}

/* Experts share a name; where they differ, it says so. */
static void add_module(json_t *modules, const tsr_linear_plan *linear, const tsr_claim *claim)
{
    const char *role = tsr_role_name(linear->role);
    const char *algo =
        claim->contradicted || claim->refused ? "contradicted" : tsr_algo_name(linear->algo);
    const char *before = json_string_value(json_object_get(modules, role));

    if (before != NULL && strcmp(before, algo) == 0)
        return;
    (void)json_object_set_new(modules, role, json_string(before != NULL ? "mixed" : algo));
}

static json_t *layers_json(const inspection *x)
{
    const tsr_precision *p = x->precision;
    json_t *list = json_array();
    json_t *modules = NULL;
    int32_t layer = -1;

    for (int32_t i = 0; i < p->linear_count; i++) {
        if (p->linears[i].layer < 0)
            continue;
        if (modules == NULL || p->linears[i].layer != layer) {
            layer = p->linears[i].layer;
            modules = json_object();
            (void)json_array_append_new(list, json_pack("{s:i, s:b, s:o}", "layer", layer, "sparse",
                                                        (int)x->checkpoint->model.sparse[layer],
                                                        "modules", modules));
        }
        add_module(modules, &p->linears[i], &p->claims[i]);
    }
    return list;
}

static json_t *declared_json(const inspection *x)
{
    const tsr_declarations *d = &x->checkpoint->declared;

    return json_pack("{s:s?, s:s, s:I, s:I, s:s}", "source", d->quantized ? d->source : NULL,
                     "quant_algo", algo_text(d), "keys", (json_int_t)d->layer_count, "excludes",
                     (json_int_t)d->exclude_count, "kv_cache", kv_text(x->precision));
}

static tsr_status print_json(const inspection *x, FILE *out)
{
    json_t *json = json_pack("{s:s, s:b}", "folder", x->folder, "proven", x->problems.errors == 0);

    if (x->precision != NULL) {
        (void)json_object_set_new(json, "files",
                                  json_integer((json_int_t)x->checkpoint->file_count));
        (void)json_object_set_new(json, "tensors",
                                  json_integer((json_int_t)x->checkpoint->tensor_count));
        (void)json_object_set_new(json, "stored_bytes",
                                  json_integer((json_int_t)stored_bytes(x->checkpoint)));
        (void)json_object_set_new(json, "model", model_json(&x->checkpoint->model));
        (void)json_object_set_new(json, "declared", declared_json(x));
        (void)json_object_set_new(json, "formats", formats_json(x->precision));
        (void)json_object_set_new(json, "layers", layers_json(x));
    }
    (void)json_object_set_new(json, "problems", tsr_problem_list_json(&x->problems));
    return tsr_json_print(json, out);
}

static void add_fact(tsr_page *page, const char *name, const char *value)
{
    tsr_page_add(page, "<tr><th>%s</th><td>", name);
    tsr_page_text(page, value);
    tsr_page_add(page, "</td></tr>\n");
}

static void add_model(tsr_page *page, const inspection *x)
{
    const tsr_model_facts *m = &x->checkpoint->model;
    const tsr_declarations *d = &x->checkpoint->declared;
    char bytes[TSR_BYTE_COUNT_BYTES];
    char text[512];

    tsr_page_add(page, "<table>\n");
    (void)snprintf(text, sizeof(text), "%s, %d layers, hidden %d, vocabulary %d",
                   family_name(m->family), m->layers, m->hidden, m->vocab);
    add_fact(page, "model", text);
    (void)snprintf(text, sizeof(text), "%d heads, %d for keys and values, of %d; %d positions",
                   m->q_heads, m->kv_heads, m->head_dim, m->max_positions);
    add_fact(page, "attention", text);
    (void)snprintf(text, sizeof(text), "%d of %d wide, %d for each token", m->experts,
                   m->expert_intermediate, m->top_k);
    add_fact(page, "experts", text);
    (void)snprintf(text, sizeof(text), "%zu, %zu tensors, %s", x->checkpoint->file_count,
                   x->checkpoint->tensor_count,
                   tsr_byte_count_text(stored_bytes(x->checkpoint), bytes));
    add_fact(page, "files", text);
    (void)snprintf(text, sizeof(text), "%s; KV cache %s", algo_text(d), kv_text(x->precision));
    add_fact(page, "declared", text);
    tsr_page_add(page, "</table>\n");
}

static void add_verdict(tsr_page *page, const inspection *x)
{
    static const char *const names[] = {"note", "warning", "error"};
    const tsr_problems *p = &x->problems;

    if (p->errors == 0 && x->precision != NULL)
        tsr_page_add(page, "<p class=\"good\">proven: all %d linears are stored as declared</p>\n",
                     x->precision->linear_count);
    else
        tsr_page_add(page, "<p class=\"bad\">not served: %zu error%s</p>\n", p->errors,
                     p->errors == 1 ? "" : "s");
    if (p->count > 0)
        tsr_page_add(page, "<h2>Problems</h2>\n<table>\n");
    for (size_t i = 0; i < p->count; i++)
        add_fact(page, names[p->items[i].severity], p->items[i].text);
    if (p->count > 0)
        tsr_page_add(page, "</table>\n");
    if (p->dropped > 0)
        tsr_page_add(page, "<p>and %zu further problems</p>\n", p->dropped);
}

static tsr_status write_page(const inspection *x, const char *path)
{
    const tsr_output_args args = {
        .option = "--html", .path = path, .deadline_ms = PAGE_DEADLINE_MS};
    tsr_output_file *file = NULL;

    tsr_status st = tsr_output_file_open(&args, &file);
    if (st != TSR_OK)
        return st;
    tsr_page page = {.text = tsr_output_file_text(file)};
    tsr_page_begin(&page, "Checkpoint", x->folder);
    add_verdict(&page, x);
    if (x->precision != NULL) {
        const tsr_precision_map map = {.model = &x->checkpoint->model,
                                       .linears = x->precision->linears,
                                       .claims = x->precision->claims,
                                       .linear_count = x->precision->linear_count};
        add_model(&page, x);
        tsr_page_map(&page, &map);
    }
    tsr_page_end(&page);
    st = page.status == TSR_OK ? tsr_output_file_finish(file) : page.status;
    tsr_output_file_close(file);
    return st;
}

static tsr_status show(const inspection *x, const tsr_inspect_args *args)
{
    const tsr_status st =
        args->json ? print_json(x, args->out) : print_text(x, args->colour, args->out);
    const tsr_status written = args->html != NULL ? write_page(x, args->html) : TSR_OK;

    return st == TSR_OK ? written : st;
}

tsr_status tsr_inspect(const tsr_inspect_args *args)
{
    const tsr_named_path html = {.option = "--html", .path = args->html};
    const char *folder = args->folder;
    inspection x = {.folder = folder};
    tsr_status st = tsr_output_path_check(&html, folder, NULL, 0);

    if (st != TSR_OK)
        return st;
    st = tsr_checkpoint_open(folder, &x.problems, &x.checkpoint);

    if (st == TSR_OK)
        st = tsr_precision_read(x.checkpoint, &x.problems, &x.precision);
    if (st == TSR_OK && x.precision->kv == TSR_KV_DECLARED_REFUSED)
        tsr_problems_add(&x.problems, TSR_SEVERITY_WARNING,
                         "%s, which is not served; --kv-cache-dtype chooses another",
                         x.precision->kv_refused);
    if (st == TSR_OK && tsr_problems_has_error(&x.problems))
        st = TSR_ERR_CHECKPOINT;
    const tsr_status printed = show(&x, args);
    tsr_precision_close(x.precision);
    tsr_checkpoint_close(x.checkpoint);
    tsr_problems_close(&x.problems);
    return st == TSR_OK ? printed : st;
}
