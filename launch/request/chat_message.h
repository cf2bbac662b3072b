/* What the assistant says in a chat, as OpenAI's API spells it: its thoughts, its words and the tools
 * that it calls. Shared by the batch file and the gateway. */
#ifndef TSR_LAUNCH_REQUEST_CHAT_MESSAGE_H
#define TSR_LAUNCH_REQUEST_CHAT_MESSAGE_H

#include "launch/request/generation.h"

/* A reader of answers to this chat. Close with tsr_answer_parser_close. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_chat_parser_open(const tsr_generation *generation,
                                             tsr_answer_parser **ret_parser);

/* One call of a message, the `index`-th. `id` is the answer's own. NULL without memory. */
json_t *tsr_chat_call_json(const tsr_tool_call *call, const char *id, size_t index);

/*
 * {"role", "content", "reasoning_content", "tool_calls"}: thoughts and calls where there are any,
 * and no content where there are only calls. NULL without memory.
 */
json_t *tsr_chat_message_json(const tsr_answer_parts *parts, const char *id);

#endif
