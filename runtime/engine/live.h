/*
 * A live request: everything the coordinator knows of it from submission to its last token.
 *
 *   tokens   | prompt ............ | outputs that came back ... | room up to max_tokens |
 *            0          length ->  ^ prompt_tokens              ^ token_count
 *
 * `length` counts positions that steps were planned for; it may run ahead of token_count, because a
 * step can be planned before the last one's tokens came back. A request whose blocks were taken
 * away begins at length 0 again, with all its tokens as prompt: `goal` of them. One that comes with
 * outputs it was given before begins like that. One that begins behind a prefix that its rank knows has
 * its length from the beginning.
 */
#ifndef TSR_RUNTIME_ENGINE_LIVE_H
#define TSR_RUNTIME_ENGINE_LIVE_H

#include "runtime/base/arena.h"
#include "runtime/base/guides.h"
#include "runtime/base/status.h"
#include "runtime/engine/kv_blocks.h"
#include "runtime/engine/request.h"
#include "runtime/engine/step_shape.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tsr_live tsr_live;

typedef enum tsr_live_state {
    TSR_LIVE_WAITING, /* in the queue */
    TSR_LIVE_RUNNING, /* has a slot on a rank */
    TSR_LIVE_ENDED,   /* freed once the steps it is part of have come back */
} tsr_live_state;

struct tsr_live {
    tsr_live *next; /* in the queue, or among those running on its rank */
    tsr_live *previous;
    tsr_arena *memory; /* holds this struct and its arrays */
    uint64_t id;
    uint64_t order; /* of arrival */
    uint64_t seed;
    int64_t arrived_ns;
    int64_t admitted_ns;    /* first; 0: never */
    int64_t first_ns;       /* of its first token here; 0: there is none */
    int32_t *tokens;        /* [prompt_tokens + max_tokens] */
    int32_t *stop_ids;      /* [stop_id_count] */
    tsr_token_rules *rules; /* as many bytes as are used; NULL: none */
    const tsr_guides *guides;
    void *guide;       /* of those; NULL: none */
    uint32_t *allowed; /* [tsr_guide_words] what may follow the outputs that came back */
    int32_t allowed_count;
    bool is_free;        /* anything may */
    uint32_t *blocks;    /* [block_count] held on its rank, in order of position */
    tsr_block_key *keys; /* [key_count] of the blocks that its tokens fill; prefix.h */
    uint64_t salt;
    int32_t key_count;
    int32_t key_room;
    int32_t known; /* leading blocks that others may hold too */
    int32_t cached_tokens;
    int32_t stop_id_count;
    int32_t block_count;
    int32_t prompt_tokens;
    int32_t given_tokens; /* outputs it came with */
    int32_t priority;
    int32_t max_tokens; /* 0 when nothing is sampled; those given count */
    int32_t token_count;
    int32_t top_k;
    float temperature;
    float top_p;
    float min_p;
    bool ignore_eos;
    bool want_logits;
    bool score_prompt;
    int32_t score_top;
    int32_t top;
    bool begun;        /* an entry has told its rank of its blocks */
    bool begun_before; /* here or before it lost its blocks */
    tsr_live_state state;
    int32_t rank; /* while running */
    int32_t slot;
    int32_t length;
    int32_t goal;
    int32_t sampled;   /* outputs planned */
    int32_t scored;    /* positions whose logits or scores are planned */
    int32_t in_flight; /* steps planned that have not come back */
    struct {           /* its part of the step being planned */
        int32_t tokens;
        int32_t blocks;
        uint32_t flags;
        bool admitted;
    } step;
};

/* What a request is measured against. */
typedef struct tsr_live_bounds {
    const tsr_step_shape *shape;
    const tsr_model_facts *model;
} tsr_live_bounds;

enum { TSR_REFUSAL_BYTES = 256 };

/* True when a request can never run, with the reason in one line. */
bool tsr_live_refused(const tsr_request *request, const tsr_live_bounds *bounds,
                      char refusal[TSR_REFUSAL_BYTES]);

/* A waiting copy of a request that was not refused; max_tokens is clipped to the room its context
 * leaves. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_live_open(const tsr_request *request, const tsr_live_bounds *bounds,
                                      tsr_live **ret_live);

/*
 * Opens the guide of a request that has one, and asks it for the first time.
 *
 *   ret_refusal  [TSR_REFUSAL_BYTES] "" where there is one now
 *
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_live_guide(tsr_live *live, const tsr_request *request,
                                       const tsr_guides *guides, const tsr_model_facts *model,
                                       char *ret_refusal);

/* Asks what may follow its outputs. NULL, or why nothing can be said. */
const char *tsr_live_ask_guide(tsr_live *live, const tsr_model_facts *model);

/* True while a token is on its way that the next one depends on. */
bool tsr_live_awaits_token(const tsr_live *live);

/* True when `a` goes before `b`: by priority, then by arrival. */
bool tsr_live_before(const tsr_live *a, const tsr_live *b);

/* True when `token` ends the request, by the model's eos or its own stop ids. */
bool tsr_live_stops_at(const tsr_live *live, const tsr_model_facts *model, int32_t token);

/* NULL is allowed. */
void tsr_live_close(tsr_live *live);

#endif
