/*
 * The HTTP side of `tessera serve`: clients on one end, an engine on the other, in one thread.
 *
 *   HTTP request -> route -> body -> generation -> n requests, an id each -> engine
 *   HTTP answer  <- choices' JSON <- text stream <- outputs of that id    <- engine
 *
 * It listens before there is an engine and says how far that is. When an engine is lost and another
 * comes, clients see a pause.
 */
#ifndef TSR_LAUNCH_GATEWAY_GATEWAY_H
#define TSR_LAUNCH_GATEWAY_GATEWAY_H

#include "launch/cli/config.h"
#include "launch/link/engine_link.h"
#include "launch/request/text_side.h"

typedef struct tsr_gateway tsr_gateway;

/* All of it but the listener is borrowed. */
typedef struct tsr_gateway_args {
    struct event_base *base;
    const tsr_config *config;
    tsr_text_side *text; /* its length is set when an engine says it */
    const char *folder;  /* the checkpoint */
    int listener;        /* of tsr_listen_open; taken over in any case */
    int32_t port;        /* likewise; 0: where it listens is not said */
} tsr_gateway_args;

/* TSR_ERR_ARG, logged: a key or a certificate cannot be used. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_gateway_open(const tsr_gateway_args *args, tsr_gateway **ret_gateway);

/* What an engine link is opened with; the link is attached before the loop runs, and outlives it. */
tsr_engine_events tsr_gateway_events(tsr_gateway *gateway);
void tsr_gateway_attach(tsr_gateway *gateway, tsr_engine_link *link);

/* The loop. Returns after tsr_gateway_drain or tsr_gateway_stop, when every client has its answer or
 * the time for that is over. TSR_ERR_INTERNAL: the loop itself failed */
TSR_MUST_USE tsr_status tsr_gateway_run(tsr_gateway *gateway);

/* Takes no more requests; those that run have --shutdown-timeout to finish, then they are cut. */
void tsr_gateway_drain(tsr_gateway *gateway);
bool tsr_gateway_is_draining(const tsr_gateway *gateway);

/* Cuts what runs, with an error that says why, and ends the loop. */
void tsr_gateway_stop(tsr_gateway *gateway, const char *why);

/* NULL is allowed. */
void tsr_gateway_close(tsr_gateway *gateway);

#endif
