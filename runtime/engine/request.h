/* What goes into an engine and what comes out of it: requests, tokens, and what was counted. */
#ifndef TSR_RUNTIME_ENGINE_REQUEST_H
#define TSR_RUNTIME_ENGINE_REQUEST_H

#include "runtime/base/status.h"
#include "runtime/base/token_logprob.h"
#include "runtime/base/token_rules.h"

#include <stdbool.h>
#include <stdint.h>

/* What a request wants. The engine stops on ids and lengths; strings belong to text. */
typedef struct tsr_request {
    uint64_t id;           /* the source's own, unique among live requests */
    const int32_t *prompt; /* [prompt_tokens]; copied by the engine */
    /* [given_tokens] outputs it had before, from an engine that is gone: fewer than max_tokens. It goes
     * on behind them, with the same bits, and the sink is not told of them again; copied. */
    const int32_t *given;
    int32_t prompt_tokens; /* >= 1 */
    int32_t given_tokens;
    int32_t max_tokens; /* 0: the prompt alone; clipped to the room the context leaves */
    int32_t priority;   /* lower goes first; by arrival among equals */
    float temperature;  /* 0: greedy */
    float top_p;        /* (0, 1] */
    int32_t top_k;      /* 0: all */
    float min_p;        /* [0, 1] of the largest probability */
    /* Penalties, biases, bad words and so on; NULL: none. Copied, but for prompt_tokens and endings,
     * which are the engine's. min_tokens holds back the model's eos and the stop ids. */
    const tsr_token_rules *rules;
    /* What its answer must be, in the words of the engine's guides; NULL: anything. Copied. Its tokens
     * come one at a time, each after the one before it has landed. */
    const char *guide;
    const int32_t *stop_ids; /* [stop_id_count] end the request besides the model's eos; copied */
    uint64_t seed;
    uint64_t cache_salt; /* shares keys and values with requests of the same salt only */
    int32_t stop_id_count;
    int32_t score_top; /* 0..TSR_MOST_TOP most probable ids at each token of a scored prompt */
    int32_t top;       /* 0..TSR_MOST_TOP the same of each output */
    bool has_seed;     /* false: the coordinator draws one */
    bool ignore_eos;
    bool want_logits;  /* score: the logits of every prompt position, nothing is sampled */
    bool score_prompt; /* how probable each token of the prompt was: tsr_prompt_scores */
} tsr_request;

typedef enum tsr_finish {
    TSR_FINISH_NONE,   /* more is coming */
    TSR_FINISH_STOP,   /* an eos or stop id, which is the last token given */
    TSR_FINISH_LENGTH, /* max_tokens or the context is reached; a scored prompt is through */
    TSR_FINISH_CANCELLED,
    TSR_FINISH_REFUSED, /* never started: see `refusal` */
    TSR_FINISH_FAILED,  /* its logits are NaN or infinite: see `refusal`; others go on */
    TSR_FINISH_STUCK,   /* its rules and its form leave no token: see `refusal` */
} tsr_finish;

/*
 * One token of one request.
 *
 * Every request ends with exactly one output whose finish is not TSR_FINISH_NONE.
 */
typedef struct tsr_output {
    uint64_t id;
    int32_t token;     /* -1 when there is none (cancelled, refused, failed, scored) */
    float logprob;     /* of `token`: log softmax of the logits as they are, at temperature 1 */
    int32_t top_count; /* as many as were asked for, where there is a token */
    const tsr_token_logprob *top; /* [top_count] the largest logits, in order; valid during the
                                     call. Token -1: the model has no more ids */
    tsr_finish finish;
    int32_t prompt_tokens;
    int32_t output_tokens; /* so far, this one and those given before included */
    const char *refusal;   /* one line, with TSR_FINISH_REFUSED, _FAILED and _STUCK; valid
                              during the call */
    tsr_status cause;      /* with TSR_FINISH_REFUSED; TSR_OK where the request is at fault */
    int32_t cached_tokens; /* of the prompt, that were not computed when it first ran */
    int64_t queued_ns;     /* from its arrival until it was first admitted; 0: it never was */
    int64_t first_ns;      /* from its arrival until its first token here; 0: there is none */
} tsr_output;

/*
 * How probable tokens of a prompt were, each behind those before it; so there is none of the first.
 * Ascending, and all of them before the first output. Valid during the call.
 */
typedef struct tsr_prompt_scores {
    uint64_t id;
    int32_t first_position; /* of token[0] in the prompt, from 1 */
    int32_t count;
    int32_t top_count;              /* of each */
    const tsr_token_logprob *token; /* [count] */
    const tsr_token_logprob *top;   /* [count, top_count] as in tsr_output */
} tsr_prompt_scores;

/* How a new request finds its rank. The bits do not depend on it. */
typedef enum tsr_spread {
    TSR_SPREAD_LEAST_LOADED,
    TSR_SPREAD_ROUND_ROBIN,
    TSR_SPREAD_FIRST, /* all to rank 0 while it has room: for tests */
} tsr_spread;

/* Counted over the whole run, on rank 0. */
typedef struct tsr_engine_stats {
    uint64_t steps;
    uint64_t requests;
    uint64_t prompt_tokens;
    uint64_t output_tokens;
    uint64_t preemptions;
    uint64_t prefix_queries;    /* tokens of prompts that might have been shared ... */
    uint64_t prefix_hits;       /* ... and that were */
    int64_t first_token_ns_sum; /* from submission to first token, over first_tokens requests */
    uint64_t first_tokens;
    int64_t run_ns; /* from the first step to the last */
    /* as things stand */
    int32_t running;
    int32_t waiting;
    uint64_t kv_blocks_used; /* of all ranks */
    uint64_t kv_blocks;
    /* of all ranks' experts, as of a second ago; NULL: they are not counted, or not yet. Valid until
     * the source or the engine returns */
    const uint64_t *expert_rows; /* [layers, E] */
    uint64_t expert_steps;       /* that they were counted in: all, or on GPUs some */
} tsr_engine_stats;

#endif
