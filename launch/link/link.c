/* Reads as much as there is and takes messages from it; what was taken is dropped when the rest is
 * to be read on, so that a long message is not moved for every piece of it. */
#include "launch/link/link.h"

#include "runtime/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 64 << 10, MOST_WAITING_BYTES = 4 * TSR_SERVE_MOST_BYTES };

tsr_status tsr_serve_link_open(int fd, tsr_serve_link *ret_link)
{
    const int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        tsr_log(TSR_LOG_ERROR, "the socket between gateway and engine: %s", strerror(errno));
        (void)close(fd);
        return TSR_ERR_INTERNAL;
    }
    *ret_link = (tsr_serve_link){.fd = fd};
    return TSR_OK;
}

tsr_status tsr_serve_link_add(tsr_serve_link *link, const tsr_serve_message *message)
{
    if (link->out.count > MOST_WAITING_BYTES)
        return TSR_ERR_CAPACITY;
    return tsr_serve_message_add(message, &link->out);
}

bool tsr_serve_link_waiting(const tsr_serve_link *link)
{
    return link->out.count > 0;
}

void tsr_serve_link_push(tsr_serve_link *link)
{
    size_t sent = 0;

    while (sent < link->out.count) {
        const ssize_t n =
            send(link->fd, link->out.bytes + sent, link->out.count - sent, MSG_NOSIGNAL);
        if (n >= 0) {
            sent += (size_t)n;
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            sent = link->out.count;
        }
    }
    tsr_text_drop(&link->out, sent);
}

/* Waits until something can be read, or everything that waits could be written meanwhile. */
static void wait_for_bytes(const tsr_serve_link *link, int32_t wait_ms)
{
    struct pollfd p = {.fd = link->fd, .events = POLLIN};

    if (tsr_serve_link_waiting(link))
        p.events |= POLLOUT;
    (void)poll(&p, 1, wait_ms);
}

/* Once: as much as one call gives. */
static tsr_status read_some(tsr_serve_link *link, bool *ret_any)
{
    tsr_text_drop(&link->in, link->taken);
    link->taken = 0;
    const tsr_status st = tsr_text_reserve(&link->in, READ_BYTES);
    if (st != TSR_OK)
        return st;

    const ssize_t n = recv(link->fd, link->in.bytes + link->in.count, READ_BYTES, 0);
    if (n > 0)
        link->in.count += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        link->ended = true;
    *ret_any = n > 0;
    return TSR_OK;
}

static tsr_status take_read(tsr_serve_link *link, tsr_serve_arrived *ret_arrived, bool *ret_any)
{
    size_t used = 0;

    if (link->in.count == link->taken) {
        *ret_any = false;
        return TSR_OK;
    }
    const tsr_status st = tsr_serve_message_read(link->in.bytes + link->taken,
                                                 link->in.count - link->taken, ret_arrived, &used);
    if (st != TSR_OK)
        return st;
    link->taken += used;
    *ret_any = used > 0;
    return TSR_OK;
}

tsr_status tsr_serve_link_take(tsr_serve_link *link, int32_t wait_ms,
                               tsr_serve_arrived *ret_arrived, bool *ret_any)
{
    bool any = false;
    bool waited = wait_ms <= 0;

    for (;;) {
        bool fresh = false;
        tsr_status st = take_read(link, ret_arrived, &any);
        if (st != TSR_OK)
            return st;
        if (any)
            break;
        if (link->ended)
            return TSR_ERR_PEER;
        st = read_some(link, &fresh);
        if (st != TSR_OK)
            return st;
        if (fresh || link->ended)
            continue;
        if (waited)
            break;
        wait_for_bytes(link, wait_ms);
        waited = true;
    }
    *ret_any = any;
    return TSR_OK;
}

void tsr_serve_link_close(tsr_serve_link *link)
{
    if (link->fd > 0)
        (void)close(link->fd);
    tsr_text_close(&link->in);
    tsr_text_close(&link->out);
    *link = (tsr_serve_link){.fd = -1};
}
