/* What does not depend on where a plan is shown. */
#include "launch/plan/plan_json.h"

#include "launch/report/path_report.h"

static json_t *limits_json(const tsr_engine_limits *l)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "max_model_len", l->max_model_len,
                     "max_num_seqs", l->max_num_seqs, "max_batched_tokens", l->max_batched_tokens,
                     "exchange_tokens", l->exchange_tokens, "kv_block_tokens", l->kv_block_tokens,
                     "kv_blocks", l->kv_blocks, "logit_rows", l->logit_rows, "threads", l->threads);
}

static json_t *ranks_json(const tsr_plan *plan)
{
    json_t *list = json_array();

    for (int32_t rank = 0; rank < plan->ranks; rank++) {
        const tsr_rank_budget *b = &plan->budget[rank];
        (void)json_array_append_new(
            list,
            json_pack("{s:i, s:I, s:I, s:I, s:I, s:I}", "rank", rank, "weights_bytes",
                      (json_int_t)b->weights_bytes, "kv_bytes", (json_int_t)b->kv_bytes,
                      "workspace_bytes", (json_int_t)b->workspace_bytes, "buffers_bytes",
                      (json_int_t)b->buffers_bytes, "loading_bytes", (json_int_t)b->loading_bytes));
    }
    return list;
}

/* A layer's experts are alike: the first one speaks for them. */
static json_t *layers_json(const tsr_plan *plan, const tsr_plan_request *request)
{
    json_t *list = json_array();
    json_t *modules = NULL;
    int32_t layer = -1;

    for (int32_t i = 0; i < plan->linear_count; i++) {
        const tsr_linear_plan *l = &plan->linears[i];
        char path[192];
        if (l->layer < 0 || l->expert > 0)
            continue;
        if (modules == NULL || l->layer != layer) {
            layer = l->layer;
            modules = json_object();
            (void)json_array_append_new(
                list, json_pack("{s:i, s:o}", "layer", layer, "modules", modules));
        }
        tsr_path_describe(l, request, sizeof(path), path);
        (void)json_object_set_new(modules, tsr_role_name(l->role),
                                  json_pack("{s:s, s:s, s:s, s:s}", "algo", tsr_algo_name(l->algo),
                                            "weights", tsr_weight_format_name(l->format),
                                            "activations", tsr_activation_name(l->activation),
                                            "path", path));
    }
    return list;
}

json_t *tsr_plan_json(const tsr_plan *plan, const tsr_plan_request *request)
{
    json_t *json = json_pack("{s:s}", "kv_format", tsr_kv_format_name(plan->kv_format));

    (void)json_object_set_new(json, "limits", limits_json(&plan->limits));
    (void)json_object_set_new(json, "ranks", ranks_json(plan));
    (void)json_object_set_new(json, "layers", layers_json(plan, request));
    return json;
}
