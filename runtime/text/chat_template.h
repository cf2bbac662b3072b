/*
 * A chat template: messages in, prompt text out, byte for byte what Hugging Face's
 * apply_chat_template gives (trim_blocks, lstrip_blocks, its own tojson).
 *
 * The template is a program from the checkpoint, so it is bounded: steps, depth and output bytes.
 */
#ifndef TSR_RUNTIME_TEXT_CHAT_TEMPLATE_H
#define TSR_RUNTIME_TEXT_CHAT_TEMPLATE_H

#include "runtime/base/problems.h"
#include "runtime/base/status.h"
#include "runtime/base/text_buffer.h"
#include "runtime/text/answer_parser.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct tsr_chat_template tsr_chat_template;

/*
 * chat_template.jinja, else tokenizer_config.json:chat_template (a string, or a list of
 * {name, template}: "default" is taken); bos_token, eos_token and friends of tokenizer_config.json
 * are given to the template. *ret_template is NULL when the folder has none.
 *
 * TSR_ERR_CHECKPOINT  syntax we do not have, said in `problems` with line and construct
 */
TSR_MUST_USE tsr_status tsr_chat_template_open(const char *folder, tsr_problems *problems,
                                               tsr_chat_template **ret_template);

/* The same from text, without a folder. `name` stands for the file in messages. */
TSR_MUST_USE tsr_status tsr_chat_template_parse(const char *name, const char *source, size_t bytes,
                                                tsr_problems *problems,
                                                tsr_chat_template **ret_template);

/*
 * Renders with the given variables: a JSON object with "messages" (array), and as the caller likes
 * "tools", "add_generation_prompt", "enable_thinking" .... Appends to `out`.
 *
 * TSR_ERR_ARG  the template raised or used an undefined value; `problems` says where and what
 */
TSR_MUST_USE tsr_status tsr_chat_template_render(const tsr_chat_template *chat_template,
                                                 const json_t *variables, tsr_problems *problems,
                                                 tsr_text *out);

/* True for a template that goes through the parts of a content itself; others want a string. */
bool tsr_chat_template_takes_parts(const tsr_chat_template *chat_template);

/* How the model that was trained on it writes its answers. */
tsr_answer_style tsr_chat_template_answer_style(const tsr_chat_template *chat_template);

/* NULL is allowed. */
void tsr_chat_template_close(tsr_chat_template *chat_template);

#endif
