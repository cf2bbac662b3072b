/* Datagrams of one byte: a question is answered to where it came from, an answer is counted. */
#include "comm/roll_call.h"

#include "comm/call.h"
#include "runtime/base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOMENT_MS = 400, HOST_BYTES = 64, LIST_BYTES = 160, QUESTION = '?', ANSWER = '!' };

struct tsr_roll_call {
    tsr_launched launched;
    int socket;
    bool *there; /* [local_size] */
};

/* The address of a process of this host. */
static socklen_t address_of(const tsr_roll_call *c, int32_t local_rank, struct sockaddr_un *at)
{
    *at = (struct sockaddr_un){.sun_family = AF_UNIX};
    const int bytes = snprintf(at->sun_path + 1, sizeof(at->sun_path) - 1, "tessera.%.80s.%" PRId32,
                               c->launched.job, local_rank);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)bytes);
}

tsr_roll_call *tsr_roll_call_open(const tsr_launched *launched)
{
    struct sockaddr_un own;

    if (launched == NULL || launched->job == NULL || launched->local_rank < 0 ||
        launched->local_size <= launched->local_rank)
        return NULL;
    tsr_roll_call *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->launched = *launched;
    c->there = calloc((size_t)launched->local_size, sizeof(*c->there));
    c->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const socklen_t bytes = address_of(c, launched->local_rank, &own);
    if (c->there == NULL || c->socket < 0 ||
        bind(c->socket, (const struct sockaddr *)&own, bytes) != 0) {
        tsr_roll_call_close(c);
        return NULL;
    }
    return c;
}

/* Which process has sent something from `from`. */
static int32_t sender(const struct sockaddr_un *from, socklen_t bytes)
{
    char text[sizeof(from->sun_path) + 1] = "";
    const size_t used = bytes > offsetof(struct sockaddr_un, sun_path)
                            ? bytes - offsetof(struct sockaddr_un, sun_path)
                            : 0;

    if (used < 2)
        return -1;
    memcpy(text, from->sun_path + 1, used - 1);
    const char *dot = strrchr(text, '.');
    return dot != NULL ? (int32_t)strtol(dot + 1, NULL, 10) : -1;
}

void tsr_roll_call_answer(tsr_roll_call *call)
{
    const char answer = ANSWER;
    struct sockaddr_un from;
    char word = 0;

    for (;;) {
        socklen_t bytes = sizeof(from);
        if (call == NULL ||
            recvfrom(call->socket, &word, 1, 0, (struct sockaddr *)&from, &bytes) < 1)
            return;
        const int32_t rank = sender(&from, bytes);
        if (word == QUESTION)
            (void)sendto(call->socket, &answer, 1, 0, (const struct sockaddr *)&from, bytes);
        if (rank >= 0 && rank < call->launched.local_size)
            call->there[rank] = true; /* who asks is there, too */
    }
}

static void write_roll(const tsr_roll_call *c, tsr_roll *roll)
{
    const tsr_launched *l = &c->launched;
    const bool whole = l->local_size == l->size; /* then ranks are counted as here */
    char list[LIST_BYTES];
    char host[HOST_BYTES] = "this host";
    int32_t *missing = calloc((size_t)l->local_size, sizeof(*missing));
    int32_t count = 0;

    roll->first = true;
    for (int32_t r = 0; r < l->local_size && missing != NULL; r++) {
        if (!c->there[r] && r != l->local_rank)
            missing[count++] = r;
        else if (r < l->local_rank)
            roll->first = false;
    }
    (void)gethostname(host, sizeof(host) - 1);
    tsr_rank_list_text(missing, count, sizeof(list), list);
    if (count == 0 && whole)
        (void)snprintf(roll->text, sizeof(roll->text), "some rank");
    else if (count == 0)
        (void)snprintf(roll->text, sizeof(roll->text),
                       "a process of another host (the %" PRId32 " of %s are there)", l->local_size,
                       host);
    else
        (void)snprintf(roll->text, sizeof(roll->text), "%s%s %s%s%s", whole ? "rank" : "process",
                       count == 1 ? ""
                       : whole    ? "s"
                                  : "es",
                       list, whole ? "" : " of host ", whole ? "" : host);
    free(missing);
}

tsr_roll tsr_roll_call_ask(tsr_roll_call *call)
{
    tsr_roll roll = {.first = true, .text = "some rank"};
    const int64_t until_ms = tsr_clock_ms() + MOMENT_MS;
    const char question = QUESTION;

    if (call == NULL)
        return roll;
    for (int32_t r = 0; r < call->launched.local_size; r++) {
        struct sockaddr_un at;
        const socklen_t bytes = address_of(call, r, &at);
        call->there[r] = false;
        if (r != call->launched.local_rank)
            (void)sendto(call->socket, &question, 1, 0, (const struct sockaddr *)&at, bytes);
    }
    for (int64_t left = MOMENT_MS; left > 0; left = until_ms - tsr_clock_ms()) {
        struct pollfd wanted = {.fd = call->socket, .events = POLLIN};
        (void)poll(&wanted, 1, (int)left);
        tsr_roll_call_answer(call);
    }
    write_roll(call, &roll);
    return roll;
}

bool tsr_roll_call_has_left(const tsr_roll_call *call, int32_t rank)
{
    struct sockaddr_un at;

    if (call == NULL || call->launched.local_size != call->launched.size)
        return false;
    const int probe = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return false;
    const socklen_t bytes = address_of(call, rank, &at);
    const bool refused =
        connect(probe, (const struct sockaddr *)&at, bytes) != 0 && errno == ECONNREFUSED;
    (void)close(probe);
    return refused;
}

void tsr_roll_call_close(tsr_roll_call *call)
{
    if (call == NULL)
        return;
    if (call->socket >= 0)
        (void)close(call->socket);
    free(call->there);
    free(call);
}
