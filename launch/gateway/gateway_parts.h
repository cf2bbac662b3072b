/* What the files of the gateway share. Private to them. */
#ifndef TSR_LAUNCH_GATEWAY_GATEWAY_PARTS_H
#define TSR_LAUNCH_GATEWAY_GATEWAY_PARTS_H

#include "launch/gateway/access_keys.h"
#include "launch/gateway/answer_list.h"
#include "launch/gateway/error_reply.h"
#include "launch/gateway/gateway.h"
#include "launch/gateway/json_exchange.h"
#include "launch/gateway/metrics.h"
#include "launch/gateway/tokenizer_info.h"
#include "launch/http/http_tls.h"

typedef enum tsr_gateway_state {
    TSR_GATEWAY_LOADING, /* there is no engine, or it reads weights */
    TSR_GATEWAY_READY,
    TSR_GATEWAY_DRAINING,
    TSR_GATEWAY_DEAD, /* no engine will come */
} tsr_gateway_state;

struct tsr_gateway {
    tsr_gateway_args args;
    tsr_gateway_state state;
    tsr_http_server *server;
    tsr_http_tls *tls;
    tsr_engine_link *link; /* NULL until attached */
    struct event *tick;    /* pings, and the end of a drain */
    struct event *end;     /* of a drain, at its deadline */
    tsr_access_keys keys;
    char fields[256];       /* header lines of every answer */
    const char *model_name; /* what answers carry */
    char lost[256];         /* what was said of the last engine that was lost */
    int64_t created;        /* unix time */
    int64_t begun_ns;
    uint64_t loading_bytes;
    uint64_t loading_total;
    int64_t loading_since_ns;
    bool ended; /* the loop is to be left when everything is sent */
    int64_t ended_ns;

    tsr_engine_facts facts; /* of the last engine that was ready; info is below */
    char *info;
    tsr_engine_load load; /* expert_tokens is below */
    uint64_t *expert_tokens;
    size_t expert_room;

    tsr_answer_list answers;
    tsr_metrics metrics;
    json_t *tokenizer_info; /* what /tokenizer_info says */
};

/* Whether a request for tokens is taken now; answers it where it is not. */
bool tsr_gateway_takes(tsr_gateway *gateway, tsr_http_exchange *exchange, size_t choices);

/* {"phase":"weights","bytes":...}; null when nothing is known. */
void tsr_gateway_add_progress(const tsr_gateway *gateway, tsr_json_text *json);

/* "loading", "ok", "draining" or "dead". */
const char *tsr_gateway_state_name(const tsr_gateway *gateway);

/* True when this name is the model's. */
bool tsr_gateway_has_model(const tsr_gateway *gateway, const char *name);

/* Outputs of the engine, and what its end means for answers (answer_output.c). */
void tsr_answer_take_output(tsr_gateway *gateway, const tsr_output *output);

/* How probable tokens of a prompt were. */
void tsr_answer_take_scores(tsr_gateway *gateway, const tsr_prompt_scores *scores);

/* Ends an answer with an error, wherever it is. */
void tsr_answer_fail(tsr_answer *answer, const tsr_refusal *refusal);

/* The client is gone: what was asked of the engine is cancelled. */
void tsr_answer_abandon(tsr_answer *answer);

/* Answers those of /health_generate whose time is over. */
void tsr_answer_end_probes(tsr_gateway *gateway);

/* Comments into streams that were silent (answer_stream.c). */
void tsr_answer_ping_all(tsr_gateway *gateway);

/* Endpoints. Each answers its exchange, now or later. */
void tsr_serve_completions(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_chat(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_models(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_model(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_health(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_health_generate(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_requests(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_live(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_metrics(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_tokenize(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_detokenize(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_tokenizer_info(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_apply_template(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_version(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_server_info(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_experts(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_drain(tsr_gateway *gateway, tsr_http_exchange *exchange);
void tsr_serve_page(tsr_gateway *gateway, tsr_http_exchange *exchange);

/* Routes (routes.c). */
tsr_http_hooks tsr_gateway_hooks(tsr_gateway *gateway);

#endif
