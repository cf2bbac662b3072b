/*
 * From what a checkpoint declares to a claim for every linear, layer by layer.
 *
 *   model.layers.3.mlp.experts.7.up_proj
 *     exclusion   model.layers.3.mlp*                          wins; a key beside it is a warning
 *     own key     ...experts.7.up_proj, ...gate_up_proj        both: they must agree
 *     block key   model.layers.3.mlp.experts                   per-expert keys beside it must agree
 *     nothing     uniform: its format; MIXED_PRECISION: none   never what expert 6 or layer 2 has
 *
 * Names are compared whole: layer 1 is no beginning of layer 10, mlp.gate none of mlp.gate_proj.
 * Keys for some experts of a layer but not all are an error, since either reading of the others
 * would be a guess. A format that is not served stops nothing where an exclusion wins over it, or
 * in a layer that is skipped.
 */
#include "runtime/plan/resolve.h"

#include "runtime/checkpoint/module_name.h"
#include "runtime/plan/algos.h"
#include "runtime/plan/modules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* One declared row, understood. */
typedef struct declared_row {
    tsr_algo algo;
    int32_t group_size; /* as given, else the algorithm's own */
    bool refused;
    bool used;
    bool overruled; /* an exclusion won over it; said already */
} declared_row;

typedef struct resolver {
    const tsr_checkpoint *checkpoint;
    const tsr_declarations *declared;
    tsr_problems *problems;
    tsr_name_patterns *excludes; /* NULL when the list is unusable; said already */
    declared_row *rows;          /* [declared->layer_count] */
    declared_row uniform;
    bool has_fused_names; /* qkv_proj or gate_up_proj stands in a key or an exclusion */
} resolver;

/* Unknown names and impossible group sizes are refused here, with the module they were declared
 * for. */
static declared_row understand(resolver *r, const tsr_declared *declared)
{
    const char *where = declared->original != NULL ? declared->original : "quant_algo";
    declared_row row = {.algo = TSR_ALGO_NONE};
    int32_t group;

    if (declared->algo == NULL)
        return row;
    if (!tsr_algo_find(declared->algo, &row.algo)) {
        row.refused = true;
        tsr_problems_add(
            r->problems, TSR_SEVERITY_ERROR, "%s: %s is declared %s, which is %s",
            r->declared->source, where, declared->algo,
            tsr_algo_is_known(declared->algo)
                ? "not served; export it as NVFP4, FP8 or another served format"
                : "not a format this program knows; check the name, or export it as NVFP4 or FP8");
        return row;
    }
    group = tsr_algo_row_of(row.algo)->group_size;
    row.group_size = declared->group_size > 0 && group > 0 ? declared->group_size : group;
    if (row.group_size != group) {
        row.refused = true;
        tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                         "%s: %s is declared %s with group size %d, but only %d is served; export "
                         "it with that size",
                         r->declared->source, where, tsr_algo_name(row.algo), declared->group_size,
                         group);
    }
    return row;
}

/* A key that will not be served must not stop a model that does not use it. */
static bool understand_rows(resolver *r)
{
    const tsr_declarations *d = r->declared;

    r->rows = calloc(d->layer_count + 1, sizeof(*r->rows));
    if (r->rows == NULL)
        return false;
    for (size_t i = 0; i < d->layer_count; i++) {
        size_t at;
        const bool unused =
            tsr_model_is_mtp_name(&r->checkpoint->model, d->layers[i].name) ||
            (r->excludes != NULL && tsr_name_patterns_match(r->excludes, d->layers[i].name, &at));
        if (!unused)
            r->rows[i] = understand(r, &d->layers[i]);
        r->has_fused_names |= strstr(d->layers[i].name, "qkv_proj") != NULL ||
                              strstr(d->layers[i].name, "gate_up_proj") != NULL;
    }
    for (size_t i = 0; i < d->exclude_count; i++)
        r->has_fused_names |= strstr(d->excludes[i], "qkv_proj") != NULL ||
                              strstr(d->excludes[i], "gate_up_proj") != NULL;
    if (d->uniform.algo != NULL)
        r->uniform = understand(r, &d->uniform);
    return true;
}

/* The first row whose name is not below `name`. */
static size_t lower_bound(const tsr_declarations *d, const char *name)
{
    size_t low = 0, high = d->layer_count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (strcmp(d->layers[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Index of the key, or -1. */
static int32_t find_key(const resolver *r, const char *name)
{
    const size_t at = lower_bound(r->declared, name);

    if (at < r->declared->layer_count && strcmp(r->declared->layers[at].name, name) == 0)
        return (int32_t)at;
    return -1;
}

/* "...self_attn.qkv_proj" for q, k and v, "...gate_up_proj" for gate and up; false for others. */
static bool fused_name(const tsr_linear_plan *linear, const char *name,
                       char ret_name[TSR_MODULE_NAME_BYTES])
{
    const char *last = strrchr(name, '.');
    const bool qkv =
        linear->role == TSR_ROLE_Q || linear->role == TSR_ROLE_K || linear->role == TSR_ROLE_V;
    const bool gate_up = linear->role == TSR_ROLE_GATE || linear->role == TSR_ROLE_UP ||
                         linear->role == TSR_ROLE_SHARED_GATE ||
                         linear->role == TSR_ROLE_SHARED_UP ||
                         linear->role == TSR_ROLE_EXPERT_GATE || linear->role == TSR_ROLE_EXPERT_UP;

    if (last == NULL || (!qkv && !gate_up))
        return false;
    (void)snprintf(ret_name, TSR_MODULE_NAME_BYTES, "%.*s.%s", (int)(last - name), name,
                   qkv ? "qkv_proj" : "gate_up_proj");
    return true;
}

static bool excluded(const resolver *r, const char *name, const char *fused, size_t *ret_index)
{
    return r->excludes != NULL &&
           (tsr_name_patterns_match(r->excludes, name, ret_index) ||
            (fused != NULL && tsr_name_patterns_match(r->excludes, fused, ret_index)));
}

static tsr_claim claim_of_row(const resolver *r, tsr_origin origin, int32_t row)
{
    const declared_row *declared = &r->rows[row];

    return (tsr_claim){.origin = origin,
                       .algo = declared->algo,
                       .group_size = declared->group_size,
                       .row = row,
                       .refused = declared->refused};
}

/* The key of the linear itself, or of the fused name it is part of. */
static int32_t own_key(const resolver *r, const char *name, const char *fused)
{
    const int32_t own = find_key(r, name);
    const int32_t both = fused != NULL ? find_key(r, fused) : -1;

    if (own >= 0)
        r->rows[own].used = true;
    if (both >= 0)
        r->rows[both].used = true;
    if (own >= 0 && both >= 0 &&
        (r->rows[own].algo != r->rows[both].algo ||
         r->rows[own].group_size != r->rows[both].group_size))
        tsr_problems_add(r->problems, TSR_SEVERITY_ERROR, "%s: %s (%s) and %s (%s) disagree",
                         r->declared->source, r->declared->layers[own].original,
                         r->declared->layers[own].algo, r->declared->layers[both].original,
                         r->declared->layers[both].algo);
    return own >= 0 ? own : both;
}

/* A module that is both excluded and listed: the exclusion wins, and that is worth saying once. */
static void warn_overruled(const resolver *r, int32_t row, size_t exclude)
{
    if (row < 0 || r->rows[row].overruled)
        return;
    r->rows[row].overruled = true;
    tsr_problems_add(r->problems, TSR_SEVERITY_WARNING,
                     "%s: %s is declared %s and also excluded by %s; the exclusion is followed",
                     r->declared->source, r->declared->layers[row].original,
                     r->declared->layers[row].algo, r->declared->exclude_originals[exclude]);
}

static tsr_claim claim_of(const resolver *r, const tsr_linear_plan *linear, int32_t block)
{
    char name[TSR_MODULE_NAME_BYTES], fused_text[TSR_MODULE_NAME_BYTES];
    const char *fused = NULL;
    size_t exclude;
    int32_t own;

    tsr_module_name(linear, name);
    if (r->has_fused_names && fused_name(linear, name, fused_text))
        fused = fused_text;
    own = own_key(r, name, fused);
    if (block >= 0)
        r->rows[block].used = true;
    if (excluded(r, name, fused, &exclude)) {
        warn_overruled(r, own, exclude);
        warn_overruled(r, block, exclude);
        return (tsr_claim){.origin = TSR_ORIGIN_EXCLUDED, .row = (int32_t)exclude};
    }
    if (own >= 0)
        return claim_of_row(r, TSR_ORIGIN_KEY, own);
    if (block >= 0)
        return claim_of_row(r, TSR_ORIGIN_BLOCK, block);
    if (r->declared->quantized && !r->declared->mixed && r->declared->uniform.algo != NULL)
        return (tsr_claim){.origin = TSR_ORIGIN_UNIFORM,
                           .algo = r->uniform.algo,
                           .group_size = r->uniform.group_size,
                           .row = -1,
                           .refused = r->uniform.refused};
    return (tsr_claim){.origin = r->declared->mixed ? TSR_ORIGIN_ABSENT : TSR_ORIGIN_UNDECLARED,
                       .row = -1};
}

typedef struct expert_block {
    const tsr_linear_plan *linears; /* [count] the experts of one layer */
    tsr_claim *claims;
    int32_t count;
    int32_t key; /* of the block, -1: none */
} expert_block;

static bool same_format(const tsr_claim *a, const tsr_claim *b)
{
    return a->algo == b->algo && a->group_size == b->group_size && a->refused == b->refused;
}

/* All keys must say the same, and either every expert has one or none. */
static void check_block(const resolver *r, const expert_block *b)
{
    char names[2][TSR_MODULE_NAME_BYTES];
    char texts[2][256];
    int32_t keyed = 0, absent = -1, other = -1;

    for (int32_t i = 0; i < b->count; i++) {
        keyed += b->claims[i].origin == TSR_ORIGIN_KEY;
        if (absent < 0 && b->claims[i].origin == TSR_ORIGIN_ABSENT)
            absent = i;
        if (other < 0 && !same_format(&b->claims[i], &b->claims[0]))
            other = i;
    }
    if (keyed > 0 && absent >= 0) {
        for (int32_t i = absent; i < b->count; i++)
            b->claims[i].refused |= b->claims[i].origin == TSR_ORIGIN_ABSENT;
        tsr_module_name(&b->linears[absent], names[0]);
        tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                         "%s: layer %d declares %d of its %d expert projections; %s is missing; "
                         "declare all of them, or model.layers.%d.mlp.experts",
                         r->declared->source, b->linears[0].layer, keyed, b->count, names[0],
                         b->linears[0].layer);
        return;
    }
    if (keyed > 0 && b->key >= 0 && other < 0) {
        tsr_claim block = claim_of_row(r, TSR_ORIGIN_BLOCK, b->key);
        if (!same_format(&block, &b->claims[0]))
            tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                             "%s: %s is declared %s, but the keys of its experts say %s",
                             r->declared->source, r->declared->layers[b->key].original,
                             r->declared->layers[b->key].algo, tsr_algo_name(b->claims[0].algo));
    }
    if (other < 0)
        return;
    tsr_module_name(&b->linears[0], names[0]);
    tsr_module_name(&b->linears[other], names[1]);
    tsr_claim_describe(r->checkpoint, &b->claims[0], sizeof(texts[0]), texts[0]);
    tsr_claim_describe(r->checkpoint, &b->claims[other], sizeof(texts[1]), texts[1]);
    tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                     "%s: the experts of layer %d differ: %s is %s, %s is %s; one layer's experts "
                     "must share a format",
                     r->declared->source, b->linears[0].layer, names[0], texts[0], names[1],
                     texts[1]);
}

static bool is_expert(const tsr_linear_plan *linear)
{
    return linear->expert >= 0;
}

/* "mlp.experts.3.gate_proj" in a layer: names an expert, however it goes on. */
static bool is_below_experts(const char *rest)
{
    return strncmp(rest, "mlp.experts.", strlen("mlp.experts.")) == 0;
}

static void report_unused(const resolver *r)
{
    int32_t beyond = 0;

    for (size_t i = 0; i < r->declared->layer_count; i++) {
        const tsr_declared *d = &r->declared->layers[i];
        const char *rest = "";
        int32_t layer = -1;
        if (r->rows[i].used)
            continue;
        (void)tsr_name_layer(d->name, &layer, &rest);
        if (tsr_model_is_mtp_name(&r->checkpoint->model, d->name))
            beyond++;
        else if (is_below_experts(rest))
            tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                             "%s: %s (%s) is not a projection of an expert of this model; declare "
                             "model.layers.%d.mlp.experts, or each expert's projections",
                             r->declared->source, d->original, d->algo, layer);
        else
            tsr_problems_add(r->problems, TSR_SEVERITY_WARNING,
                             "%s: %s (%s) names no linear of this model and declares nothing",
                             r->declared->source, d->original, d->algo);
    }
    if (beyond > 0)
        tsr_problems_add(r->problems, TSR_SEVERITY_NOTE,
                         "%s: %d keys of layers beyond the model's %d (multi-token prediction) are "
                         "not used",
                         r->declared->source, beyond, r->checkpoint->model.layers);
}

/* Claims of the linears of one layer, and what its experts agree on; returns where it ends. */
static int32_t resolve_layer(resolver *r, const tsr_linear_plan *linears, int32_t first,
                             int32_t count, tsr_claim *claims)
{
    char name[TSR_MODULE_NAME_BYTES];
    expert_block block = {.key = -1};
    int32_t end = first;

    (void)snprintf(name, sizeof(name), "model.layers.%d.mlp.experts", linears[first].layer);
    if (linears[first].layer >= 0)
        block.key = find_key(r, name);
    for (; end < count && linears[end].layer == linears[first].layer; end++) {
        const bool expert = is_expert(&linears[end]);
        claims[end] = claim_of(r, &linears[end], expert ? block.key : -1);
        if (expert && block.count++ == 0) {
            block.linears = &linears[end];
            block.claims = &claims[end];
        }
    }
    if (block.count > 0)
        check_block(r, &block);
    return end;
}

tsr_status tsr_resolve(const tsr_checkpoint *checkpoint, const tsr_linear_plan *linears,
                       int32_t count, tsr_problems *problems, tsr_claim *claims)
{
    const tsr_declarations *d = &checkpoint->declared;
    resolver r = {.checkpoint = checkpoint, .declared = d, .problems = problems};
    tsr_status st =
        tsr_name_patterns_open(d->excludes, d->exclude_count, d->source, problems, &r.excludes);

    if (st != TSR_OK)
        r.excludes = NULL;
    if (st == TSR_ERR_CHECKPOINT)
        st = TSR_OK;
    if (st == TSR_OK && !understand_rows(&r))
        st = TSR_ERR_MEMORY;
    if (st == TSR_OK) {
        for (int32_t i = 0; i < count;)
            i = resolve_layer(&r, linears, i, count, claims);
        report_unused(&r);
    }
    tsr_name_patterns_close(r.excludes);
    free(r.rows);
    return st;
}

static bool kv_is_none(const char *algo)
{
    tsr_algo found;

    return algo == NULL || (tsr_algo_find(algo, &found) && found == TSR_ALGO_NONE);
}

/* A row speaks for the attention of one layer; rows of other modules say nothing that is known. */
static bool is_attention(const tsr_model_facts *model, const char *name)
{
    const char *rest;
    int32_t layer;

    return tsr_name_layer(name, &layer, &rest) && layer < model->layers &&
           strcmp(rest, "self_attn") == 0;
}

/* Layer by layer: all FP8 or all unquantized is served, since the plan has one KV format. Names are
 * distinct, so as many rows as layers speak for all of them. */
static void resolve_kv_layers(const tsr_checkpoint *checkpoint, tsr_precision *p)
{
    const tsr_declarations *d = &checkpoint->declared;
    int32_t fp8 = 0;

    for (size_t i = 0; i < d->kv_layer_count; i++) {
        const tsr_declared *kv = &d->kv_layers[i];
        if (tsr_model_is_mtp_name(&checkpoint->model, kv->name))
            continue;
        if (!is_attention(&checkpoint->model, kv->name)) {
            p->kv = TSR_KV_DECLARED_REFUSED;
            (void)snprintf(p->kv_refused, sizeof(p->kv_refused),
                           "a KV cache is declared for %s, no layer's self_attn", kv->original);
            return;
        }
        if (!kv_is_none(kv->algo) && strcasecmp(kv->algo, "FP8") != 0) {
            p->kv = TSR_KV_DECLARED_REFUSED;
            (void)snprintf(p->kv_refused, sizeof(p->kv_refused),
                           "the KV cache of %s is declared %s", kv->original, kv->algo);
            return;
        }
        fp8 += !kv_is_none(kv->algo);
    }
    if (fp8 == checkpoint->model.layers) {
        p->kv = TSR_KV_DECLARED_FP8;
    } else if (fp8 > 0) {
        p->kv = TSR_KV_DECLARED_REFUSED;
        (void)snprintf(p->kv_refused, sizeof(p->kv_refused),
                       "%d of %d layers declare an FP8 KV cache, the others none", fp8,
                       checkpoint->model.layers);
    }
}

void tsr_resolve_kv(const tsr_checkpoint *checkpoint, tsr_precision *p)
{
    const tsr_declarations *d = &checkpoint->declared;

    p->kv = TSR_KV_DECLARED_NONE;
    p->kv_refused[0] = '\0';
    if (d->kv_layer_count > 0 ||
        (d->kv_algo != NULL && strcasecmp(d->kv_algo, "MIXED_PRECISION") == 0)) {
        resolve_kv_layers(checkpoint, p);
    } else if (!kv_is_none(d->kv_algo) && strcasecmp(d->kv_algo, "FP8") == 0) {
        p->kv = TSR_KV_DECLARED_FP8;
    } else if (!kv_is_none(d->kv_algo)) {
        p->kv = TSR_KV_DECLARED_REFUSED;
        (void)snprintf(p->kv_refused, sizeof(p->kv_refused), "the KV cache is declared %s",
                       d->kv_algo);
    }
}

void tsr_claim_describe(const tsr_checkpoint *checkpoint, const tsr_claim *claim, size_t capacity,
                        char *ret_text)
{
    const tsr_declarations *d = &checkpoint->declared;
    const char *name = tsr_algo_name(claim->algo);

    switch (claim->origin) {
    case TSR_ORIGIN_UNDECLARED:
        (void)snprintf(ret_text, capacity, "not declared quantized anywhere");
        break;
    case TSR_ORIGIN_ABSENT:
        (void)snprintf(ret_text, capacity, "not among the quantized layers, so unquantized");
        break;
    case TSR_ORIGIN_EXCLUDED:
        (void)snprintf(ret_text, capacity, "excluded from quantization by %s",
                       d->exclude_originals[claim->row]);
        break;
    case TSR_ORIGIN_KEY:
    case TSR_ORIGIN_BLOCK:
        (void)snprintf(ret_text, capacity, "declared %s by %s",
                       claim->refused ? d->layers[claim->row].algo : name,
                       d->layers[claim->row].original);
        break;
    case TSR_ORIGIN_UNIFORM:
        (void)snprintf(ret_text, capacity, "declared %s by the checkpoint's quant_algo",
                       claim->refused ? d->uniform.algo : name);
        break;
    }
}
