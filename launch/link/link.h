/*
 * One end of the stream socket between gateway and engine: messages in, messages out, neither of
 * which ever waits for the other end unless told to.
 *
 *   in   | taken | read, not yet a whole message ... |
 *   out  | messages that the socket has not taken yet |
 */
#ifndef TSR_LAUNCH_LINK_LINK_H
#define TSR_LAUNCH_LINK_LINK_H

#include "proto/serve_wire.h"

typedef struct tsr_serve_link {
    int fd; /* non-blocking; owned. -1: closed */
    tsr_text in;
    size_t taken; /* of in */
    tsr_text out;
    bool ended; /* the other end has closed; what it wrote before is still to be taken */
} tsr_serve_link;

/* Takes a connected socket over, in any case. TSR_ERR_INTERNAL, logged: it cannot be made non-blocking */
TSR_MUST_USE tsr_status tsr_serve_link_open(int fd, tsr_serve_link *ret_link);

/* Queues a message. TSR_ERR_MEMORY; TSR_ERR_CAPACITY: it is too long, or the other end has not read
 * for so long that it must be taken for lost */
TSR_MUST_USE tsr_status tsr_serve_link_add(tsr_serve_link *link, const tsr_serve_message *message);

/* Writes what the socket takes. Where the other end is gone all of it is dropped: whoever takes finds
 * out, behind what the other end wrote before it went. */
void tsr_serve_link_push(tsr_serve_link *link);

/* True when messages wait for the socket. */
bool tsr_serve_link_waiting(const tsr_serve_link *link);

/*
 * The next message, waiting for up to `wait_ms`. Close *ret_arrived where *ret_any is true.
 *
 * TSR_ERR_PEER: the other end is gone and everything it wrote was taken. TSR_ERR_MISMATCH, logged;
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_serve_link_take(tsr_serve_link *link, int32_t wait_ms,
                                            tsr_serve_arrived *ret_arrived, bool *ret_any);

/* A link that was never opened, zero-initialised, is allowed. */
void tsr_serve_link_close(tsr_serve_link *link);

#endif
