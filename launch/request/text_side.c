/* Command line, then generation_config.json, then OpenAI's own defaults: each fills what the one
 * before has left open. */
#include "launch/request/text_side.h"

#include "launch/request/request_prompt.h"
#include "runtime/base/log.h"
#include "runtime/text/tokenizer_config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static tsr_status read_template_kwargs(const char *text, json_t **ret_kwargs)
{
    json_error_t error;

    if (text == NULL)
        return TSR_OK;
    json_t *given = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(given)) {
        *ret_kwargs = given;
        return TSR_OK;
    }
    tsr_log(TSR_LOG_ERROR, "--default-chat-template-kwargs: expected a JSON object: %s",
            given != NULL ? "this is another value" : error.text);
    json_decref(given);
    return TSR_ERR_ARG;
}

/* Command line before generation_config.json. */
static tsr_generation_defaults defaults_of(const tsr_config *config,
                                           const tsr_generation_defaults *file)
{
    tsr_generation_defaults d = {0};

    if (strcmp(config->generation_config, "none") != 0)
        d = *file;
    if (!isnan(config->temperature)) {
        d.has_temperature = true;
        d.temperature = (float)config->temperature;
    }
    if (!isnan(config->top_p)) {
        d.has_top_p = true;
        d.top_p = (float)config->top_p;
    }
    if (config->top_k >= 0) {
        d.has_top_k = true;
        d.top_k = (int32_t)config->top_k;
    }
    return d;
}

/* Opens what there is to read and write text with. */
static tsr_status open_text(const char *folder, bool chat, tsr_text_side *side)
{
    tsr_problems problems = {0};

    tsr_status st = tsr_tokenizer_open(folder, &problems, &side->tokenizer);
    if (st == TSR_OK)
        st = tsr_tokenizer_config_read(folder, side->tokenizer, &problems, &side->eos);
    if (st == TSR_OK && chat)
        st = tsr_chat_template_open(folder, &problems, &side->chat_template);
    tsr_problems_log(&problems);
    tsr_problems_close(&problems);
    return st;
}

/* Sampling other than the checkpoint asks for would be another answer. */
static tsr_status check_defaults(const tsr_generation_defaults *defaults)
{
    if (defaults->unserved[0] == '\0')
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR,
            "generation_config.json: not served: %s; --generation-config none samples without the "
            "file's defaults",
            defaults->unserved);
    return TSR_ERR_CHECKPOINT;
}

static char *last_part_of(const char *folder)
{
    size_t count = strlen(folder);

    while (count > 1 && folder[count - 1] == '/')
        count--;
    size_t start = count;
    while (start > 0 && folder[start - 1] != '/')
        start--;
    return strndup(folder + start, count - start);
}

tsr_status tsr_text_side_open(const tsr_config *config, const char *folder,
                              const tsr_generation_defaults *file, bool chat, tsr_text_side *side)
{
    const tsr_generation_defaults defaults = defaults_of(config, file);

    side->eos = -1;
    tsr_status st = check_defaults(&defaults);
    if (st == TSR_OK)
        st = open_text(folder, chat, side);
    if (st == TSR_OK)
        st = read_template_kwargs(config->template_kwargs, &side->template_kwargs);
    if (st != TSR_OK)
        return st;

    side->model_name = last_part_of(folder);
    side->unknown_fields = json_object();
    if (side->model_name == NULL || side->unknown_fields == NULL)
        return TSR_ERR_MEMORY;
    side->context = (tsr_request_context){
        .tokenizer = side->tokenizer,
        .chat_template = side->chat_template,
        .template_kwargs = side->template_kwargs,
        .generation = defaults,
        .unknown = side->unknown_fields,
    };
    return TSR_OK;
}

void tsr_text_side_set_length(tsr_text_side *side, int32_t max_model_len)
{
    side->context.max_model_len = max_model_len;
    side->context.max_prompt_bytes = tsr_request_prompt_most_bytes(side->tokenizer, max_model_len);
}

tsr_status tsr_text_side_open_guides(tsr_text_side *side, int32_t vocab)
{
    const tsr_status st = tsr_guide_maker_open(side->tokenizer, vocab, &side->guide_maker);
    if (st == TSR_OK)
        side->guides = tsr_guide_maker_guides(side->guide_maker);
    return st;
}

void tsr_text_side_close(tsr_text_side *side)
{
    tsr_guide_maker_close(side->guide_maker);
    json_decref(side->template_kwargs);
    json_decref(side->unknown_fields);
    tsr_chat_template_close(side->chat_template);
    tsr_tokenizer_close(side->tokenizer);
    free(side->model_name);
}
