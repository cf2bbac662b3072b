/*
 * An answer as it comes: what the model thinks, what it says, and the tools it calls.
 *
 *   text --> | thinking | says | <tool_call> ... </tool_call> | says | -->  reasoning, content, calls
 *
 * How the model writes a call is its chat template's word, since that is what it was trained on:
 *
 *   JSON       <tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>              Qwen3
 *   FUNCTION   <tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>
 *                                                                                     Qwen3-Coder
 *   ARGUMENT   <tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>   GLM-4.x
 *
 * The sum of what comes out does not depend on where the text is cut. A call comes out whole, when it
 * is known to be one: it names a tool that was declared and its arguments are an object. Anything
 * else between those tags is content, as it stands.
 *
 * Whitespace around thinking and around calls is not part of either.
 */
#ifndef TSR_RUNTIME_TEXT_ANSWER_PARSER_H
#define TSR_RUNTIME_TEXT_ANSWER_PARSER_H

#include "runtime/base/status.h"
#include "runtime/base/text_buffer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

typedef enum tsr_call_style {
    TSR_CALLS_NONE,
    TSR_CALLS_JSON,
    TSR_CALLS_FUNCTION,
    TSR_CALLS_ARGUMENT,
} tsr_call_style;

/* How a model writes its answers. */
typedef struct tsr_answer_style {
    tsr_call_style calls;
    bool thinks; /* it writes <think> ... </think> */
} tsr_answer_style;

/* By the text of a chat template. */
tsr_answer_style tsr_answer_style_of(const char *chat_template, size_t bytes);

/* What the end of a rendered prompt says of the answer's beginning. */
typedef enum tsr_thinking {
    TSR_THINKING_NEVER, /* it is said, not thought */
    TSR_THINKING_MAY,   /* it may begin with <think> */
    TSR_THINKING_OPEN,  /* it goes on behind one */
} tsr_thinking;
tsr_thinking tsr_answer_thinking(const tsr_answer_style *style, const char *prompt, size_t bytes);

/* "<think>", "</think>" */
extern const char tsr_think_open[];
extern const char tsr_think_close[];

typedef struct tsr_answer_parser tsr_answer_parser;

typedef struct tsr_answer_args {
    tsr_answer_style style;
    const json_t *tools; /* the request's, an array; borrowed for as long as the parser lives. NULL:
                            none may be called, and tags of calls are content */
    const char *prompt;  /* as it was rendered: an open <think> at its end goes on in the answer */
    size_t prompt_bytes;
} tsr_answer_args;

/* Close with tsr_answer_parser_close. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_answer_parser_open(const tsr_answer_args *args,
                                               tsr_answer_parser **ret_parser);

/* A tool that is called. */
typedef struct tsr_tool_call {
    char *name;
    char *arguments; /* a JSON object */
} tsr_tool_call;

/* What has come out since the parser was opened. Whoever has read it may clear the texts; calls
 * stay. */
typedef struct tsr_answer_parts {
    tsr_text reasoning;
    tsr_text content;
    tsr_tool_call *calls; /* [call_count] */
    size_t call_count;
} tsr_answer_parts;

/* The next bytes of the answer, whole characters. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_answer_parser_push(tsr_answer_parser *parser, const char *bytes,
                                               size_t count);

/* The answer is over: what was held back comes out. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_answer_parser_finish(tsr_answer_parser *parser);

tsr_answer_parts *tsr_answer_parser_parts(tsr_answer_parser *parser);

/* True while the model thinks. */
bool tsr_answer_parser_is_thinking(const tsr_answer_parser *parser);

/* NULL is allowed. */
void tsr_answer_parser_close(tsr_answer_parser *parser);

#endif
