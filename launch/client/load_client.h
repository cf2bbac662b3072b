/*
 * Clients of an OpenAI-compatible server, this one or another: each asks for a streamed completion, and
 * for the next when that is over.
 *
 *   client 0   | request 0 ......... | request 4 ...
 *   client 1   | request 1 .... | request 3 .......
 *                 ^ sent  ^ first token, ^ every further one: times
 */
#ifndef TSR_LAUNCH_CLIENT_LOAD_CLIENT_H
#define TSR_LAUNCH_CLIENT_LOAD_CLIENT_H

#include "runtime/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tsr_load_args {
    const char *url;   /* http://HOST[:PORT][/PATH]; /v1 is added where there is no path */
    const char *model; /* NULL: the first that /v1/models names */
    const char *key;   /* NULL: none */
    int32_t clients;
    int32_t requests;
    int32_t input_tokens;
    int32_t output_tokens;
    int32_t vocab; /* prompts are random ids below it */
    int32_t timeout_s;
} tsr_load_args;

/* Seconds, in the order in which they were measured. */
typedef struct tsr_load_times {
    double *seconds; /* [count] */
    size_t count;
    size_t room;
} tsr_load_times;

typedef struct tsr_load_result {
    tsr_load_times first; /* from sending a request to its first token */
    tsr_load_times next;  /* from one token to the next */
    tsr_load_times whole; /* from sending a request to the end of its answer */
    double wall_s;
    int32_t failed;
    int64_t input_tokens;  /* of those that were answered, as the server counts them */
    int64_t output_tokens; /* likewise */
    char error[256];       /* of the first that failed */
} tsr_load_result;

/* Close *ret_result. TSR_ERR_ARG, logged: the URL is none; TSR_ERR_PEER, logged: nobody answers there;
 * TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_load_run(const tsr_load_args *args, tsr_load_result *ret_result);

void tsr_load_result_close(tsr_load_result *result);

#endif
