/* What an answer says, as OpenAI's API spells it: whole, or in the pieces of a stream. */
#ifndef TSR_LAUNCH_GATEWAY_ANSWER_JSON_H
#define TSR_LAUNCH_GATEWAY_ANSWER_JSON_H

#include "launch/gateway/answer_list.h"
#include "launch/http/json_text.h"

/* What of a choice a piece of a stream holds. */
typedef enum tsr_chunk_kind {
    TSR_CHUNK_ROLE,    /* chat: who speaks, before anything is said */
    TSR_CHUNK_TEXT,    /* bytes of its text that were not sent yet */
    TSR_CHUNK_THOUGHT, /* chat: the same of what it thinks */
    TSR_CHUNK_CALL,    /* chat: the next tool that it calls */
    TSR_CHUNK_END,     /* why it ended, and in a completion the last of its text */
} tsr_chunk_kind;

/* All of it, as one object. */
void tsr_answer_add_whole(const tsr_answer *answer, tsr_json_text *json);

/* One event of a stream, with the empty line behind it. It tells the logprobs that were not told yet,
 * unless it only says who speaks. */
void tsr_answer_add_chunk(const tsr_answer *answer, tsr_choice *choice, tsr_chunk_kind kind,
                          tsr_json_text *json);

/* The event that has no choices but what was used. */
void tsr_answer_add_usage_chunk(const tsr_answer *answer, tsr_json_text *json);

#endif
