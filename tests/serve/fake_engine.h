/* An engine behind the functions of engine_link.h, in the gateway's own process: it says every prompt
 * back, a token at a time. */
#ifndef TSR_TESTS_SERVE_FAKE_ENGINE_H
#define TSR_TESTS_SERVE_FAKE_ENGINE_H

#include "launch/link/engine_link.h"

/* What requests of these seeds come to. */
enum {
    FAKE_REFUSED = 901,   /* at once */
    FAKE_FAILED = 902,    /* after two tokens */
    FAKE_LOST = 903,      /* after two tokens the engine is lost, and back after FAKE_PAUSE_MS */
    FAKE_SLOW = 904,      /* FAKE_SLOW_MS to the first token */
    FAKE_TALKATIVE = 905, /* 64 tokens in each turn */
    FAKE_PAUSE_MS = 300,
    FAKE_SLOW_MS = 1500,
};

enum { FAKE_RANKS = 2, FAKE_SEQS = 4, FAKE_MODEL_LEN = 4096, FAKE_LAYERS = 3, FAKE_EXPERTS = 8 };

/* A token that is often more probable than the one that was said. */
enum { FAKE_RIVAL = 300 };

/* The engine is ready after `load_ms`, and gives a token every `token_ms`. */
tsr_status fake_engine_open(struct event_base *base, const tsr_engine_events *events,
                            int32_t load_ms, int32_t token_ms, tsr_engine_link **ret_link);

#endif
