/*
 * A parameter that changes answers and is not built is refused by name unless it asks for nothing:
 * ignored in silence it would give a wrong answer. A field nobody knows is passed over with a line,
 * since clients send their own.
 */
#include "launch/request/request_fields.h"

#include "runtime/base/field_rows.h"
#include "runtime/base/log.h"

static const tsr_known_field rows[] = {
    /* what is asked */
    READ("messages"),
    READ("prompt"),
    READ("chat_template_kwargs"),
    READ("add_generation_prompt"),
    READ("add_special_tokens"),
    NEUTRAL("chat_template", "empty"),
    NEUTRAL("continue_final_message", "false"),
    NEUTRAL("documents", "empty"),
    NEUTRAL("enable_thinking", NULL),
    NEUTRAL("functions", "empty"),
    NEUTRAL("function_call", "none|auto"),
    NEUTRAL("input_embeds", NULL),
    NEUTRAL("lora_path", "empty"),
    NEUTRAL("mm_processor_kwargs", "empty"),
    NEUTRAL("modalities", "[text]|empty"),
    NEUTRAL("prompt_embeds", NULL),
    NEUTRAL("reasoning", "empty"),
    READ("reasoning_effort"),
    NEUTRAL("suffix", "empty"),
    NEUTRAL("thinking", NULL),
    NEUTRAL("thinking_token_budget", NULL),
    READ("tools"),
    READ("parallel_tool_calls"),
    READ("tool_choice"),
    NEUTRAL("truncate_prompt_tokens", "-1"),
    NEUTRAL("verbosity", "medium"),
    NEUTRAL("web_search_options", "empty"),

    /* how tokens are chosen */
    READ("temperature"),
    READ("top_p"),
    READ("top_k"),
    READ("seed"),
    READ("allowed_token_ids"),
    READ("bad_words"),
    NEUTRAL("beam_width", "1"),
    READ("best_of"),
    NEUTRAL("do_sample", "true"),
    NEUTRAL("dry_multiplier", "0"),
    NEUTRAL("dynatemp_range", "0"),
    NEUTRAL("epsilon_cutoff", "0"),
    NEUTRAL("eta_cutoff", "0"),
    READ("frequency_penalty"),
    NEUTRAL("length_penalty", "1"),
    READ("logit_bias"),
    NEUTRAL("logits_processors", "empty"),
    NEUTRAL("custom_logit_processor", "empty"),
    READ("min_p"),
    NEUTRAL("mirostat", "0"),
    NEUTRAL("mirostat_mode", "0"),
    READ("n"),
    NEUTRAL("no_repeat_ngram_size", "0"),
    NEUTRAL("num_beams", "1"),
    NEUTRAL("penalty_alpha", "0"),
    READ("presence_penalty"),
    NEUTRAL("prompt_ignore_length", "0"),
    NEUTRAL("repeat_penalty", "1"),
    READ("repetition_penalty"),
    NEUTRAL("samplers", "empty"),
    NEUTRAL("smoothing_factor", "0"),
    NEUTRAL("temperature_last", "false"),
    NEUTRAL("tfs", "1"),
    NEUTRAL("tfs_z", "1"),
    NEUTRAL("top_a", "0"),
    NEUTRAL("top_n_sigma", "-1|0"),
    NEUTRAL("typical_p", "1"),
    NEUTRAL("use_beam_search", "false"),
    NEUTRAL("xtc_probability", "0"),

    /* what they must make up */
    NEUTRAL("ebnf", "empty"),
    NEUTRAL("grammar", "empty"),
    READ("guided_choice"),
    NEUTRAL("guided_decoding", "empty"),
    NEUTRAL("guided_grammar", "empty"),
    READ("guided_json"),
    READ("guided_json_object"),
    READ("guided_regex"),
    NEUTRAL("guided_whitespace_pattern", "empty"),
    NEUTRAL("json_schema", "empty"),
    NEUTRAL("regex", "empty"),
    READ("response_format"),
    NEUTRAL("structural_tag", "empty"),
    READ("structured_outputs"),

    /* where an answer ends */
    READ("max_tokens"),
    READ("max_completion_tokens"),
    READ("stop"),
    READ("stop_token_ids"),
    READ("ignore_eos"),
    READ("include_stop_str_in_output"),
    NEUTRAL("max_new_tokens", NULL),
    NEUTRAL("max_length", NULL),
    NEUTRAL("min_length", "0"),
    NEUTRAL("min_new_tokens", "0"),
    READ("min_tokens"),
    NEUTRAL("n_predict", "-1"),
    NEUTRAL("no_stop_trim", "false"),
    NEUTRAL("stop_regex", "empty"),
    NEUTRAL("stop_sequences", "empty"),

    /* when it is computed, and with whom it shares what it begins with */
    READ("priority"),
    READ("cache_salt"),

    /* what comes back */
    READ("skip_special_tokens"),
    NEUTRAL("audio", "empty"),
    READ("echo"),
    READ("logprobs"),
    NEUTRAL("n_probs", "0"),
    READ("prompt_logprobs"),
    NEUTRAL("return_hidden_states", "false"),
    NEUTRAL("return_token_ids", "false"),
    NEUTRAL("return_tokens", "false"),
    NEUTRAL("return_tokens_as_token_ids", "false"),
    NEUTRAL("spaces_between_special_tokens", "true"),
    NEUTRAL("stream", "false"),
    READ("top_logprobs"),

    IGNORED("cache_prompt"),
    IGNORED("dry_allowed_length"),
    IGNORED("dry_base"),
    IGNORED("dry_penalty_last_n"),
    IGNORED("dry_sequence_breakers"),
    IGNORED("dynatemp_exponent"),
    IGNORED("guided_decoding_backend"),
    IGNORED("id_slot"),
    IGNORED("include_reasoning"),
    IGNORED("metadata"),
    IGNORED("mirostat_eta"),
    IGNORED("mirostat_tau"),
    IGNORED("model"),
    IGNORED("prediction"),
    IGNORED("prompt_cache_key"),
    IGNORED("prompt_cache_retention"),
    IGNORED("repeat_last_n"),
    IGNORED("request_id"),
    IGNORED("rid"),
    IGNORED("safety_identifier"),
    IGNORED("separate_reasoning"),
    IGNORED("service_tier"),
    IGNORED("store"),
    IGNORED("stream_options"),
    IGNORED("stream_reasoning"),
    IGNORED("user"),
    IGNORED("xtc_threshold"),
};

static const tsr_field_table table = TABLE(rows);

/* Names beyond these are not remembered, nor logged: bodies may hold any number of them. */
enum { NAMES_SAID = 32 };

/* A batch of a million lines has one line on each name. */
static void say_unknown(const tsr_request_context *context, const char *name)
{
    char shown[TSR_SHOWN_BYTES];
    const size_t said = json_object_size(context->unknown);

    if (context->unknown == NULL || said > NAMES_SAID ||
        json_object_get(context->unknown, name) != NULL)
        return;
    if (json_object_set_new(context->unknown, name, json_true()) != 0)
        return;
    if (said < NAMES_SAID)
        tsr_log(TSR_LOG_WARN, "request field %s is not known and has no effect",
                tsr_field_show_name(name, shown));
    else
        tsr_log(TSR_LOG_WARN, "further request fields that are not known have no effect");
}

tsr_status tsr_request_fields_check(const json_t *body, const tsr_request_context *context,
                                    tsr_refusal *ret_refusal)
{
    const char *name = NULL;
    const json_t *value = NULL;

    json_object_foreach((json_t *)(uintptr_t)body, name, value)
    {
        const tsr_field_verdict verdict = tsr_field_judge(&table, name, value);
        char shown[TSR_SHOWN_BYTES];

        if (verdict == TSR_FIELD_UNKNOWN)
            say_unknown(context, name);
        if (verdict == TSR_FIELD_NOT_SERVED)
            return tsr_refuse(ret_refusal, "unsupported_parameter", name,
                              "%s: %s is not served; leave it out", name,
                              tsr_field_show(value, shown));
    }
    return TSR_OK;
}
