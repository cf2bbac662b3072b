/* What is served, in one table; and what every request is asked before anyone looks at it: path,
 * method, key, origin, kind of body. */
#include "launch/gateway/gateway_parts.h"

#include "runtime/base/log.h"

#include <string.h>
#include <strings.h>

enum {
    FORBIDDEN = 403,
    NOT_FOUND = 404,
    NOT_ALLOWED = 405,
    WRONG_TYPE = 415,
    UNAUTHORIZED = 401,
    CLIENT_CLOSED = 499,
    NO_CONTENT = 204,
};

typedef struct route {
    const char *path;
    unsigned methods; /* tsr_http_method bits */
    bool open;        /* no key is asked for */
    bool prefix;      /* what follows the path is a part of it */
    void (*serve)(tsr_gateway *gateway, tsr_http_exchange *exchange);
} route;

enum { GET = TSR_HTTP_GET | TSR_HTTP_HEAD, POST = TSR_HTTP_POST };

static const route routes[] = {
    {"/v1/chat/completions", POST, false, false, tsr_serve_chat},
    {"/v1/completions", POST, false, false, tsr_serve_completions},
    {"/v1/models", GET, false, false, tsr_serve_models},
    {"/v1/models/", GET, false, true, tsr_serve_model},
    {"/health", GET, true, false, tsr_serve_health},
    {"/health_generate", GET, false, false, tsr_serve_health_generate},
    {"/live", GET, true, false, tsr_serve_live},
    {"/metrics", GET, true, false, tsr_serve_metrics},
    {"/tokenize", POST, false, false, tsr_serve_tokenize},
    {"/detokenize", POST, false, false, tsr_serve_detokenize},
    {"/tokenizer_info", GET, false, false, tsr_serve_tokenizer_info},
    {"/apply-template", POST, false, false, tsr_serve_apply_template},
    {"/version", GET, false, false, tsr_serve_version},
    {"/server_info", GET, false, false, tsr_serve_server_info},
    {"/requests", GET, false, false, tsr_serve_requests},
    {"/experts", GET, false, false, tsr_serve_experts},
    {"/drain", POST, false, false, tsr_serve_drain},
    {"/", GET, false, false, tsr_serve_page},
};
enum { ROUTES = sizeof(routes) / sizeof(routes[0]) };

static const route *find_route(const char *path)
{
    size_t bytes = strlen(path);

    while (bytes > 1 && path[bytes - 1] == '/')
        bytes--;
    for (size_t i = 0; i < ROUTES; i++) {
        const size_t own = strlen(routes[i].path);
        if (routes[i].prefix ? bytes > own && strncmp(path, routes[i].path, own) == 0
                             : bytes == own && strncmp(path, routes[i].path, own) == 0)
            return &routes[i];
    }
    return NULL;
}

/* Pages of other origins may not act through the browser of someone who can reach this server. */
static bool is_own_origin(const tsr_gateway *gateway, const tsr_http_head *head)
{
    const char *allowed = gateway->args.config->cors_origin;
    const char *host = strstr(head->origin, "://");

    if (allowed != NULL && (strcmp(allowed, "*") == 0 || strcasecmp(allowed, head->origin) == 0))
        return true;
    return host != NULL && head->host != NULL && strcasecmp(host + 3, head->host) == 0;
}

static bool is_json(const char *type)
{
    static const char json[] = "application/json";

    if (strncasecmp(type, json, sizeof(json) - 1) != 0)
        return false;
    type += sizeof(json) - 1;
    return type[strspn(type, " \t")] == '\0' || type[strspn(type, " \t")] == ';';
}

static void answer_options(tsr_http_exchange *exchange)
{
    tsr_http_answer(
        exchange, &(tsr_http_reply){.status = NO_CONTENT,
                                    .type = "text/plain",
                                    .headers = "Allow: GET, HEAD, POST, OPTIONS\r\n"
                                               "Access-Control-Allow-Methods: GET, POST\r\n"
                                               "Access-Control-Allow-Headers: *, Authorization\r\n"
                                               "Access-Control-Max-Age: 600\r\n"});
}

static bool refuse_method(tsr_http_exchange *exchange, const route *r)
{
    static const char text[] = "{\"error\":{\"message\":\"this path does not have that method\","
                               "\"type\":\"invalid_request_error\",\"param\":null,"
                               "\"code\":\"method_not_allowed\"}}";
    tsr_http_answer(exchange, &(tsr_http_reply){.status = NOT_ALLOWED,
                                                .type = "application/json",
                                                .headers = (r->methods & POST)
                                                               ? "Allow: POST, OPTIONS\r\n"
                                                               : "Allow: GET, HEAD, OPTIONS\r\n",
                                                .bytes = text,
                                                .count = sizeof(text) - 1});
    return false;
}

static bool admit(void *context, tsr_http_exchange *exchange)
{
    const tsr_gateway *gateway = context;
    const tsr_http_head *head = &exchange->head;
    const route *r = find_route(head->path);

    exchange->route = r;
    if (head->method == TSR_HTTP_OPTIONS) {
        answer_options(exchange);
        return false;
    }
    if ((r == NULL || !r->open) && !tsr_access_keys_allow(&gateway->keys, head)) {
        tsr_error_say(exchange, UNAUTHORIZED, "invalid_api_key",
                      head->authorization == NULL && head->api_key == NULL
                          ? "an API key is needed: Authorization: Bearer KEY"
                          : "this API key is not known");
        return false;
    }
    if (r == NULL) {
        tsr_error_say(exchange, NOT_FOUND, "unknown_path", "%.200s is not served", head->path);
        return false;
    }
    if (!(r->methods & head->method))
        return refuse_method(exchange, r);
    if (head->method == TSR_HTTP_POST && head->origin != NULL && !is_own_origin(gateway, head)) {
        tsr_error_say(exchange, FORBIDDEN, "origin_not_allowed",
                      "pages of %.200s may not call this server: --cors-origin", head->origin);
        return false;
    }
    if (head->method == TSR_HTTP_POST && head->content_type != NULL &&
        !is_json(head->content_type)) {
        tsr_error_say(exchange, WRONG_TYPE, "unsupported_media_type",
                      "the body is to be application/json, not %.200s", head->content_type);
        return false;
    }
    return true;
}

static void handle(void *context, tsr_http_exchange *exchange)
{
    const route *r = exchange->route;
    r->serve(context, exchange);
}

static void refuse(void *context, tsr_http_exchange *exchange, const tsr_refusal *refusal)
{
    (void)context;
    tsr_error_reply(exchange, refusal, 0);
}

static const char *method_name(tsr_http_method method)
{
    switch (method) {
    case TSR_HTTP_GET:
        return "GET";
    case TSR_HTTP_HEAD:
        return "HEAD";
    case TSR_HTTP_POST:
        return "POST";
    case TSR_HTTP_OPTIONS:
        return "OPTIONS";
    case TSR_HTTP_OTHER:
        break;
    }
    return "other";
}

static void over(void *context, tsr_http_exchange *exchange)
{
    tsr_gateway *gateway = context;
    const route *r = exchange->route;
    const char *name = r != NULL ? r->path : "none";
    const int status = exchange->cut ? CLIENT_CLOSED : exchange->status;

    if (exchange->answer != NULL)
        tsr_answer_abandon(exchange->answer);
    exchange->answer = NULL;
    if (status == 0)
        return;
    tsr_metrics_count_http(&gateway->metrics, name, method_name(exchange->head.method), status);
    tsr_log(TSR_LOG_DEBUG, "http %s: %s %s %d %s", tsr_http_peer(exchange),
            method_name(exchange->head.method), name, status, exchange->request_id);
}

tsr_http_hooks tsr_gateway_hooks(tsr_gateway *gateway)
{
    return (tsr_http_hooks){
        .admit = admit, .handle = handle, .over = over, .refuse = refuse, .context = gateway};
}
