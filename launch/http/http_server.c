/* The listening socket and the connections that came from it. */
#include "launch/http/http_connection.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BACKLOG = 1024,
    OTHER_FILES = 64, /* open files of this process besides its connections */
    FEWEST_CONNECTIONS = 16,
    MOST_CONNECTIONS = 16384,
    PORT_BYTES = 8,
    HOST_BYTES = 48,
};

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int bytes, void *context)
{
    static const int one = 1;
    tsr_http_server *server = context;
    char host[HOST_BYTES] = "?";
    char port[PORT_BYTES] = "?";
    char peer[TSR_HTTP_PEER_BYTES];

    (void)getnameinfo(address, (socklen_t)bytes, host, sizeof(host), port, sizeof(port),
                      NI_NUMERICHOST | NI_NUMERICSERV);
    (void)snprintf(peer, sizeof(peer), "%s:%s", host, port);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)tsr_http_connection_open(server, fd, peer);
    if (server->connections >= server->most_connections) {
        server->full = true;
        (void)evconnlistener_disable(listener);
    }
}

/* No more open files, or no memory: whoever waits is accepted when a connection has ended. */
static void on_accept_error(struct evconnlistener *listener, void *context)
{
    tsr_http_server *server = context;

    if (server->connections == 0)
        return;
    server->full = true;
    (void)evconnlistener_disable(listener);
}

static size_t most_connections(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY ||
        files.rlim_cur > MOST_CONNECTIONS + OTHER_FILES)
        return MOST_CONNECTIONS;
    return files.rlim_cur > OTHER_FILES + FEWEST_CONNECTIONS ? (size_t)files.rlim_cur - OTHER_FILES
                                                             : FEWEST_CONNECTIONS;
}

tsr_status tsr_http_server_open(const tsr_http_server_args *args, tsr_http_server **ret_server)
{
    tsr_http_server *server = calloc(1, sizeof(*server));
    if (server == NULL) {
        (void)close(args->listener);
        return TSR_ERR_MEMORY;
    }
    server->args = *args;
    server->most_connections = most_connections();
    server->word = (uint32_t)tsr_clock_ns() * 2654435761U ^ (uint32_t)getpid();
    (void)evutil_make_socket_nonblocking(args->listener);
    server->listener =
        evconnlistener_new(args->base, on_accept, server,
                           LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, args->listener);
    if (server->listener == NULL) {
        (void)close(args->listener);
        free(server);
        return TSR_ERR_MEMORY;
    }
    evconnlistener_set_error_cb(server->listener, on_accept_error);
    *ret_server = server;
    return TSR_OK;
}

void tsr_http_server_stop(tsr_http_server *server)
{
    server->stopped = true;
    (void)evconnlistener_disable(server->listener);
}

size_t tsr_http_server_connections(const tsr_http_server *server)
{
    return server->connections;
}

size_t tsr_http_server_busy(const tsr_http_server *server)
{
    size_t busy = 0;

    for (const tsr_http_connection *c = server->first; c != NULL; c = c->next)
        busy += c->state == TSR_HTTP_HANDLING || tsr_http_waiting(c) > 0;
    return busy;
}

void tsr_http_server_close(tsr_http_server *server)
{
    if (server == NULL)
        return;
    server->stopped = true;
    while (server->first != NULL)
        tsr_http_connection_close(server->first);
    evconnlistener_free(server->listener);
    free(server);
}

static int listen_at(const struct addrinfo *address)
{
    static const int one = 1;
    const int fd =
        socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC, address->ai_protocol);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    const int error = errno;
    (void)close(fd);
    errno = error;
    return -1;
}

static int32_t port_of(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t bytes = sizeof(address);
    char port[PORT_BYTES];

    if (getsockname(fd, (struct sockaddr *)&address, &bytes) != 0 ||
        getnameinfo((struct sockaddr *)&address, bytes, NULL, 0, port, sizeof(port),
                    NI_NUMERICSERV) != 0)
        return 0;
    return (int32_t)strtol(port, NULL, 10);
}

tsr_status tsr_listen_open(const char *host, int32_t port, int *ret_fd, int32_t *ret_port)
{
    const struct addrinfo wanted = {.ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char name[PORT_BYTES];
    int fd = -1;

    (void)snprintf(name, sizeof(name), "%d", (int)port);
    const int error = getaddrinfo(host, name, &wanted, &found);
    if (error != 0) {
        tsr_log(TSR_LOG_ERROR, "--host %s: %s", host, gai_strerror(error));
        return TSR_ERR_BIND;
    }
    for (const struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next)
        fd = listen_at(at);
    const int why = errno;
    freeaddrinfo(found);
    if (fd < 0) {
        tsr_log(TSR_LOG_ERROR, "cannot listen at %s, port %d: %s; --host and --port choose another",
                host, (int)port, strerror(why));
        return TSR_ERR_BIND;
    }
    *ret_fd = fd;
    *ret_port = port_of(fd);
    return TSR_OK;
}
