/*
 * Messages between the gateway (HTTP, text) and the engine (ranks), one stream socket between them:
 *
 *   | length 4 | kind 1 | protobuf message of serve.proto | length 4 | ...
 *
 *   gateway   submit, cancel, end  -->  engine
 *   gateway   <--  hello, loading, ready, scores, output, load, drain  engine
 *
 * A length counts kind and message, is in the byte order of the machine that both are on, and is
 * bounded. serve_wire.c is the only file that knows protobuf-c.
 */
#ifndef TSR_PROTO_SERVE_WIRE_H
#define TSR_PROTO_SERVE_WIRE_H

#include "runtime/base/status.h"
#include "runtime/base/text_buffer.h"
#include "runtime/base/token_logprob.h"
#include "runtime/base/token_rules.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Both ends are of one program: another version is another build. */
enum { TSR_SERVE_VERSION = 1, TSR_SERVE_MOST_BYTES = 64 << 20 };

typedef enum tsr_serve_kind {
    TSR_SERVE_SUBMIT = 1,
    TSR_SERVE_CANCEL,
    TSR_SERVE_END, /* finish what is there and go */
    TSR_SERVE_DRAIN, /* the engine was asked to: the gateway is to take no more, and to end it when all
                        are finished */
    TSR_SERVE_HELLO,
    TSR_SERVE_LOADING,
    TSR_SERVE_READY,
    TSR_SERVE_OUTPUT,
    TSR_SERVE_LOAD,
    TSR_SERVE_SCORES,
} tsr_serve_kind;

typedef struct tsr_serve_submit {
    uint64_t id;
    uint64_t seed;
    uint64_t cache_salt;
    const int32_t *prompt;   /* [prompt_count], the last `given` of them answered before */
    const int32_t *stop_ids; /* [stop_id_count] */
    int32_t prompt_count;
    int32_t stop_id_count;
    int32_t given;
    int32_t max_tokens;
    int32_t priority;
    float temperature;
    float top_p;
    float min_p;
    int32_t top_k;
    int32_t score_top;
    int32_t top;
    bool ignore_eos;
    bool score_prompt;
    const char *guide; /* NULL: none */
    const tsr_token_rules
        *rules; /* NULL: none. Of those that were read, tsr_rules_bytes are there */
} tsr_serve_submit;

typedef struct tsr_serve_hello {
    uint32_t version;
    const char *program; /* name and version */
} tsr_serve_hello;

typedef struct tsr_serve_loading {
    uint64_t bytes;
    uint64_t total;
} tsr_serve_loading;

typedef struct tsr_serve_ready {
    int32_t ranks;
    int32_t max_model_len;
    int32_t vocab;
    int32_t max_num_seqs; /* of all ranks */
    int64_t kv_tokens;    /* of all ranks */
    const char *info;     /* a JSON object */
} tsr_serve_ready;

/* A tsr_output of the engine (runtime/engine/request.h). */
typedef struct tsr_serve_output {
    uint64_t id;
    int32_t token;
    float logprob;
    int32_t finish;
    int32_t prompt_tokens;
    int32_t output_tokens;
    int32_t cause;
    int32_t cached_tokens;
    const char *refusal; /* "": none */
    int64_t queued_ns;
    int64_t first_ns;
    const tsr_token_logprob *top; /* [top_count] */
    int32_t top_count;
} tsr_serve_output;

/* tsr_prompt_scores of the engine. */
typedef struct tsr_serve_scores {
    uint64_t id;
    const tsr_token_logprob *token; /* [count] */
    const tsr_token_logprob *top;   /* [count, top_count] */
    int32_t first_position;
    int32_t count;
    int32_t top_count;
} tsr_serve_scores;

typedef struct tsr_serve_load {
    int32_t running;
    int32_t waiting;
    uint64_t kv_blocks_used; /* of all ranks */
    uint64_t kv_blocks;
    uint64_t steps;
    uint64_t prompt_tokens;
    uint64_t output_tokens;
    uint64_t preemptions;
    uint64_t prefix_queries;
    uint64_t prefix_hits;
    int32_t layers;
    size_t expert_token_count;
    const uint64_t *expert_tokens; /* [expert_token_count], layer after layer */
    uint64_t expert_steps;         /* that they were counted in */
} tsr_serve_load;

typedef struct tsr_serve_message {
    tsr_serve_kind kind;
    union {
        tsr_serve_submit submit;
        uint64_t cancel; /* id */
        tsr_serve_hello hello;
        tsr_serve_loading loading;
        tsr_serve_ready ready;
        tsr_serve_output output;
        tsr_serve_load load;
        tsr_serve_scores scores;
    };
} tsr_serve_message;

/* Adds a message with its length to `out`, or nothing. TSR_ERR_CAPACITY: longer than a message may
 * be; TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_serve_message_add(const tsr_serve_message *message, tsr_text *out);

/* A message and what it points to. */
typedef struct tsr_serve_arrived {
    tsr_serve_message message;
    void *memory;
} tsr_serve_arrived;

/*
 * The message that begins at `bytes`, of which `count` have arrived.
 *
 *   ret_used  bytes it takes; 0: not all of it is there
 *
 * Ids and counts are not negative and numbers within their ranges; whether ids exist is for the
 * engine to say. Close *ret_arrived where ret_used is not 0.
 *
 * TSR_ERR_MISMATCH, logged: not a message, or beyond the bounds; TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_serve_message_read(const void *bytes, size_t count,
                                               tsr_serve_arrived *ret_arrived, size_t *ret_used);

void tsr_serve_arrived_close(tsr_serve_arrived *arrived);

#endif
