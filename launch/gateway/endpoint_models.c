/* /v1/models: one model under each of its names. */
#include "launch/gateway/gateway_parts.h"

#include <string.h>

enum { OK_STATUS = 200, NOT_FOUND = 404 };

static void add_model(const tsr_gateway *gateway, const char *name, tsr_json_text *json)
{
    tsr_json_add(json, "{\"id\":");
    tsr_json_add_word(json, name);
    tsr_json_add(json, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"tessera\",\"root\":",
                 (long long)gateway->created);
    tsr_json_add_word(json, gateway->args.folder);
    tsr_json_add(json, ",\"parent\":null,\"max_model_len\":");
    if (gateway->facts.max_model_len > 0)
        tsr_json_add(json, "%d", gateway->facts.max_model_len);
    else
        tsr_json_add(json, "null");
    tsr_json_add(json, ",\"permission\":[]}");
}

void tsr_serve_models(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    const tsr_option_list *names = &gateway->args.config->served_model_name;
    tsr_json_text json = {0};

    tsr_json_add(&json, "{\"object\":\"list\",\"data\":[");
    add_model(gateway, gateway->model_name, &json);
    for (int32_t i = 1; i < names->count; i++) {
        tsr_json_add(&json, ",");
        add_model(gateway, names->items[i], &json);
    }
    tsr_json_add(&json, "]}");
    tsr_exchange_reply_json(exchange, OK_STATUS, &json);
}

void tsr_serve_model(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    const char *name = exchange->head.path + strlen("/v1/models/");
    tsr_json_text json = {0};

    if (!tsr_gateway_has_model(gateway, name)) {
        tsr_refusal refusal;
        (void)tsr_refuse(&refusal, "model_not_found", "model",
                         "The model `%.200s` does not exist; this server has `%.200s`", name,
                         gateway->model_name);
        refusal.status = NOT_FOUND;
        tsr_error_reply(exchange, &refusal, 0);
        return;
    }
    add_model(gateway, name, &json);
    tsr_exchange_reply_json(exchange, OK_STATUS, &json);
}
