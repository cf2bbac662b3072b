/* What stands between the tags of a tool call, read in the model's style. Private to the answer
 * parser. */
#ifndef TSR_RUNTIME_TEXT_TOOL_CALL_H
#define TSR_RUNTIME_TEXT_TOOL_CALL_H

#include "runtime/text/answer_parser.h"

/* The declared tool of a name, or NULL. */
const json_t *tsr_tool_find(const json_t *tools, const char *name, size_t bytes);

/* True when `body` is cut inside of a value, so that a closing tag behind it is a part of that. */
bool tsr_tool_call_is_open(tsr_call_style style, const char *body, size_t bytes);

/*
 * Reads what stands between the tags.
 *
 *   ret_read  false: it is no call of a declared tool
 *
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_tool_call_read(tsr_call_style style, const json_t *tools,
                                           const char *body, size_t bytes, tsr_tool_call *ret_call,
                                           bool *ret_read);

#endif
