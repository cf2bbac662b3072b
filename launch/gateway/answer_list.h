/* Answers that are being made, and their choices by the id that the engine knows each by. */
#ifndef TSR_LAUNCH_GATEWAY_ANSWER_LIST_H
#define TSR_LAUNCH_GATEWAY_ANSWER_LIST_H

#include "launch/http/http_server.h"
#include "launch/request/answer_logprobs.h"
#include "launch/request/generation.h"
#include "launch/request/text_stream.h"

typedef struct tsr_answer tsr_answer;
struct tsr_gateway;

/* One prompt, and one of the answers to it. */
typedef struct tsr_choice {
    tsr_answer *answer;
    uint64_t id;   /* 0: the engine is asked no more */
    int32_t index; /* prompt * copies + copy */
    tsr_text_stream stream;
    size_t sent;               /* bytes of its text; of chat, those that its parser has read */
    tsr_answer_parser *parser; /* of chat: what is to be sent waits in its parts */
    size_t calls_sent;
    tsr_logprob_list logprobs; /* empty unless they are asked for */
    tsr_logprob_list prompt_logprobs;
    double logprob_sum; /* of its tokens */
    tsr_finish finish;
    int32_t last_token;
    int32_t prompt_tokens;
    int32_t output_tokens;
    int32_t cached_tokens; /* of its prompt, that need not be computed */
    int64_t queued_ns;     /* before it was computed */
    int64_t first_ns;      /* 0: no token yet */
    int64_t last_ns;
} tsr_choice;

enum { TSR_ANSWER_ID_BYTES = 48 };

/* All choices of one HTTP request. It ends with its exchange. */
struct tsr_answer {
    tsr_answer *next;
    tsr_answer *previous;
    struct tsr_gateway *gateway;
    tsr_http_exchange *exchange;
    tsr_generation generation;
    tsr_choice *choices; /* [choice_count] */
    size_t choice_count;
    size_t finished;
    int32_t copies; /* of each prompt: n, or best_of */
    bool stream;
    bool include_usage;
    bool continuous_usage;
    bool is_probe;          /* of /health_generate: that it is made is all that is told */
    int64_t due_ns;         /* of a probe, when somebody must have got a token; 0: none */
    uint64_t tokens_before; /* what all had got when it began */
    bool streaming;         /* the head of the stream is out */
    bool ended;             /* nothing more is written */
    int64_t created;        /* unix time */
    int64_t sent_ns;        /* when something was last written */
    char id[TSR_ANSWER_ID_BYTES];
};

/* Zero-initialise. */
typedef struct tsr_answer_list {
    tsr_answer *first;
    tsr_choice **slots; /* [slot_count] by the lower half of an id; NULL: free */
    uint32_t *free;     /* [free_count] slots, the last is taken first */
    uint32_t slot_count;
    uint32_t free_count;
    uint32_t serial; /* the upper half of the next id */
    size_t live;     /* choices that the engine is asked for */
} tsr_answer_list;

void tsr_answer_list_add(tsr_answer_list *list, tsr_answer *answer);
void tsr_answer_list_remove(tsr_answer_list *list, tsr_answer *answer);

/* Gives the choice an id. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_answer_list_name(tsr_answer_list *list, tsr_choice *choice);

/* Takes it back: what still comes under it belongs to nobody. */
void tsr_answer_list_unname(tsr_answer_list *list, tsr_choice *choice);

/* NULL: to nobody. */
tsr_choice *tsr_answer_list_find(const tsr_answer_list *list, uint64_t id);

void tsr_answer_list_close(tsr_answer_list *list);

#endif
