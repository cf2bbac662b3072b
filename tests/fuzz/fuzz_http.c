/*
 * Any bytes from a client, in pieces of any size: every request is answered once, in the order they
 * came, and nothing of the client stays behind when it leaves.
 */
#include "tests/fuzz/fuzz.h"

#include "launch/http/http_connection.h"
#include "runtime/base/log.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_BODY = 300, TURNS = 4, ANSWER_BYTES = 1 << 16 };

static tsr_http_server *server;
static struct event_base *base;
static size_t answered;
static size_t begun; /* exchanges that were answered and are not over */

/* A mistake that is not a memory error must end the run too. */
static void must(bool holds)
{
    if (!holds)
        abort();
}

static void drop_line(void *to, tsr_log_level level, const char *line)
{
    (void)to;
    (void)level;
    must(strchr(line, '\n') == NULL);
}

static void answer(tsr_http_exchange *exchange, int status)
{
    const tsr_http_reply reply = {.status = status, .type = "a/b", .bytes = "abc", .count = 3};

    answered++;
    begun++;
    if (status == 200 && exchange->body.count % 2 == 1) {
        tsr_http_stream(exchange, "a/b");
        tsr_http_send(exchange, exchange->body.bytes, exchange->body.count);
        tsr_http_finish(exchange);
    } else {
        tsr_http_answer(exchange, &reply);
    }
}

static bool admit(void *context, tsr_http_exchange *exchange)
{
    (void)context;
    must(exchange->head.path[0] == '/' && exchange->head.method_name[0] != '\0');
    must(strpbrk(exchange->request_id, " \r\n") == NULL && exchange->request_id[0] != '\0');
    if (strcmp(exchange->head.path, "/no") != 0)
        return true;
    answer(exchange, 404);
    return false;
}

static void handle(void *context, tsr_http_exchange *exchange)
{
    (void)context;
    must(exchange->body.count <= MOST_BODY);
    must(exchange->head.chunked || exchange->body.count == exchange->head.length);
    answer(exchange, 200);
}

static void over(void *context, tsr_http_exchange *exchange)
{
    (void)context;
    if (exchange->status != 0)
        begun--;
}

static void refuse(void *context, tsr_http_exchange *exchange, const tsr_refusal *refusal)
{
    (void)context;
    must(refusal->status >= 400 && refusal->status < 600 && refusal->message[0] != '\0');
    answer(exchange, refusal->status);
}

static void open_server(void)
{
    int listener = -1;
    int32_t port = 0;

    tsr_log_set_sink(drop_line, NULL);
    base = event_base_new();
    must(tsr_listen_open("127.0.0.1", 0, &listener, &port) == TSR_OK && port > 0);
    const tsr_http_server_args args = {
        .base = base,
        .listener = listener,
        .hooks = {.admit = admit, .handle = handle, .over = over, .refuse = refuse},
        .client_timeout_ms = 60000,
        .max_body_bytes = MOST_BODY,
        .max_queued_bytes = ANSWER_BYTES,
    };
    must(tsr_http_server_open(&args, &server) == TSR_OK);
}

static void turn(void)
{
    for (int i = 0; i < TURNS; i++)
        (void)event_base_loop(base, EVLOOP_NONBLOCK);
}

/* What came back, as far as it is there; false: the server has closed. */
static bool drain(int fd)
{
    static char bytes[ANSWER_BYTES];
    return recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) != 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    int ends[2];

    if (server == NULL)
        open_server();
    if (count < 2)
        return 0;
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    must(evutil_make_socket_nonblocking(ends[0]) == 0);
    must(tsr_http_connection_open(server, ends[0], "client") != NULL);
    const size_t step = bytes[0] + (size_t)1;
    answered = 0;
    begun = 0;
    bool open = true;
    for (size_t at = 1; at < count && open; at += step) {
        const size_t piece = count - at < step ? count - at : step;
        (void)send(ends[1], bytes + at, piece, MSG_NOSIGNAL);
        turn();
        open = drain(ends[1]);
    }
    (void)close(ends[1]);
    turn();
    must(begun == 0 && tsr_http_server_connections(server) == 0);
    must(tsr_http_server_busy(server) == 0);
    return 0;
}
