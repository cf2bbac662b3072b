/*
 * A field that would change the computation and is not built is refused; one that no table has is a
 * warning, for exporters add fields faster than programs learn them. Fields of transformers'
 * classes that only training, other tasks or its own bookkeeping read are ignored by name.
 */
#include "runtime/checkpoint/file_fields.h"

#include "runtime/base/field_rows.h"

static const tsr_known_field config_rows[] = {
    READ("architectures"),
    READ("attention_bias"),
    READ("dtype"),
    READ("eos_token_id"),
    READ("head_dim"),
    READ("hidden_act"),
    READ("hidden_size"),
    READ("intermediate_size"),
    READ("layer_types"),
    READ("max_position_embeddings"),
    READ("model_type"),
    READ("moe_intermediate_size"),
    READ("norm_topk_prob"),
    READ("num_attention_heads"),
    READ("num_experts_per_tok"),
    READ("num_hidden_layers"),
    READ("num_key_value_heads"),
    READ("num_local_experts"),
    READ("partial_rotary_factor"),
    READ("quantization_config"),
    READ("rms_norm_eps"),
    READ("rope_parameters"),
    READ("rope_scaling"),
    READ("rope_theta"),
    READ("sliding_window"),
    READ("tie_word_embeddings"),
    READ("torch_dtype"),
    READ("use_sliding_window"),
    READ("vocab_size"),
    NEUTRAL("add_cross_attention", "false"),
    NEUTRAL("attention_chunk_size", "0"),
    NEUTRAL("attention_out_bias", "false"),
    NEUTRAL("attn_logit_softcapping", NULL),
    NEUTRAL("clip_qkv", NULL),
    NEUTRAL("embedding_multiplier", "1"),
    NEUTRAL("final_logit_softcapping", NULL),
    NEUTRAL("is_encoder_decoder", "false"),
    NEUTRAL("lm_head_bias", "false"),
    NEUTRAL("logit_scale", "1"),
    NEUTRAL("mlp_bias", "false"),
    NEUTRAL("pruned_heads", "empty"),
    NEUTRAL("residual_multiplier", "1"),
    NEUTRAL("rope_interleave", "false"),
    NEUTRAL("rope_interleaved", "false"),
    NEUTRAL("swiglu_limit", NULL),
    NEUTRAL("tie_encoder_decoder", "false"),
    IGNORED("_attn_implementation"),
    IGNORED("_commit_hash"),
    IGNORED("_name_or_path"),
    IGNORED("attention_dropout"),
    IGNORED("aux_loss_alpha"),
    IGNORED("bos_token_id"),
    IGNORED("chunk_size_feed_forward"),
    IGNORED("ep_size"),
    IGNORED("finetuning_task"),
    IGNORED("hidden_dropout"),
    IGNORED("id2label"),
    IGNORED("initializer_range"),
    IGNORED("is_decoder"),
    IGNORED("label2id"),
    IGNORED("max_window_layers"),
    IGNORED("name_or_path"),
    IGNORED("output_attentions"),
    IGNORED("output_hidden_states"),
    IGNORED("output_router_logits"),
    IGNORED("pad_token_id"),
    IGNORED("pretraining_tp"),
    IGNORED("problem_type"),
    IGNORED("return_dict"),
    IGNORED("router_aux_loss_coef"),
    IGNORED("seq_aux"),
    IGNORED("task_specific_params"),
    IGNORED("tokenizer_class"),
    IGNORED("torchscript"),
    IGNORED("transformers_version"),
    IGNORED("unsloth_fixed"),
    IGNORED("unsloth_version"),
    IGNORED("use_bfloat16"),
    IGNORED("use_cache"),
};
const tsr_field_table tsr_fields_of_config = TABLE(config_rows);

static const tsr_known_field rope_rows[] = {
    READ("rope_theta"),
    READ("rope_type"),
    READ("type"),
    READ("partial_rotary_factor"),
    NEUTRAL("factor", "1"),
    NEUTRAL("attention_factor", "1"),
    NEUTRAL("mrope_section", "empty"),
};
const tsr_field_table tsr_fields_of_rope = TABLE(rope_rows);

/* transformers' GenerationConfig, at the values that change nothing. */
static const tsr_known_field generation_rows[] = {
    READ("do_sample"),
    READ("eos_token_id"),
    READ("max_new_tokens"),
    READ("min_p"),
    READ("repetition_penalty"),
    READ("temperature"),
    READ("top_k"),
    READ("top_p"),
    NEUTRAL("bad_words_ids", "empty"),
    NEUTRAL("begin_suppress_tokens", "empty"),
    NEUTRAL("constraints", "empty"),
    NEUTRAL("diversity_penalty", "0"),
    NEUTRAL("dola_layers", NULL),
    NEUTRAL("encoder_no_repeat_ngram_size", "0"),
    NEUTRAL("encoder_repetition_penalty", "1"),
    NEUTRAL("epsilon_cutoff", "0"),
    NEUTRAL("eta_cutoff", "0"),
    NEUTRAL("exponential_decay_length_penalty", NULL),
    NEUTRAL("force_words_ids", "empty"),
    NEUTRAL("forced_bos_token_id", NULL),
    NEUTRAL("forced_decoder_ids", "empty"),
    NEUTRAL("forced_eos_token_id", NULL),
    NEUTRAL("frequency_penalty", "0"),
    NEUTRAL("guidance_scale", "1"),
    NEUTRAL("max_time", NULL),
    NEUTRAL("min_length", "0"),
    NEUTRAL("min_new_tokens", "0"),
    NEUTRAL("no_repeat_ngram_size", "0"),
    NEUTRAL("num_beam_groups", "1"),
    NEUTRAL("num_beams", "1"),
    NEUTRAL("num_return_sequences", "1"),
    NEUTRAL("penalty_alpha", "0"),
    NEUTRAL("presence_penalty", "0"),
    NEUTRAL("sequence_bias", "empty"),
    NEUTRAL("stop_strings", "empty"),
    NEUTRAL("suppress_tokens", "empty"),
    NEUTRAL("token_healing", "false"),
    NEUTRAL("top_h", "0"),
    NEUTRAL("typical_p", "1"),
    NEUTRAL("watermarking_config", "empty"),
    IGNORED("_from_model_config"),
    IGNORED("assistant_confidence_threshold"),
    IGNORED("assistant_early_exit"),
    IGNORED("assistant_lookbehind"),
    IGNORED("bos_token_id"),
    IGNORED("cache_config"),
    IGNORED("cache_implementation"),
    IGNORED("compile_config"),
    IGNORED("decoder_start_token_id"),
    IGNORED("disable_compile"),
    IGNORED("early_stopping"),
    IGNORED("is_assistant"),
    IGNORED("length_penalty"),
    IGNORED("low_memory"),
    IGNORED("max_matching_ngram_size"),
    IGNORED("num_assistant_tokens"),
    IGNORED("num_assistant_tokens_schedule"),
    IGNORED("output_attentions"),
    IGNORED("output_hidden_states"),
    IGNORED("output_logits"),
    IGNORED("output_scores"),
    IGNORED("pad_token_id"),
    IGNORED("prefill_chunk_size"),
    IGNORED("prompt_lookup_num_tokens"),
    IGNORED("remove_invalid_values"),
    IGNORED("renormalize_logits"),
    IGNORED("return_dict_in_generate"),
    IGNORED("return_legacy_cache"),
    IGNORED("target_lookbehind"),
    IGNORED("transformers_version"),
    IGNORED("use_cache"),
};
const tsr_field_table tsr_fields_of_generation = TABLE(generation_rows);

static const tsr_known_field quantization_rows[] = {
    READ("activation_scheme"),
    READ("config_groups"),
    READ("exclude_modules"),
    READ("fmt"),
    READ("group_size"),
    READ("has_zero_point"),
    READ("ignore"),
    READ("ignored_layers"),
    READ("kv_cache_quant_algo"),
    READ("kv_cache_quantized_layers"),
    READ("kv_cache_schema_version"),
    READ("kv_cache_scheme"),
    READ("modules_to_not_convert"),
    READ("moe_quant_algo"),
    READ("pre_quant_scale"), /* the tensors say where */
    READ("quant_algo"),
    READ("quant_method"),
    READ("quantization"),
    READ("quantized_layers"),
    READ("weight_block_size"),
    NEUTRAL("clamp_val", NULL),
    NEUTRAL("dequantize", "false"),
    NEUTRAL("lora_rank", "0"),
    NEUTRAL("scale_fmt", "float32|fp32"),
    NEUTRAL("smoothquant_val", "0"),
    IGNORED("producer"),
};
const tsr_field_table tsr_fields_of_quantization = TABLE(quantization_rows);

static const tsr_known_field layer_rows[] = {
    READ("group_size"), READ("has_zero_point"),  READ("pre_quant_scale"),
    READ("quant_algo"), IGNORED("quant_method"), NEUTRAL("lora_rank", "0"),
};
const tsr_field_table tsr_fields_of_quantized_layer = TABLE(layer_rows);

tsr_status tsr_file_fields_check(const tsr_fields *fields, const tsr_field_table *table,
                                 const tsr_field_table *more)
{
    tsr_status st = TSR_OK;
    const char *name = NULL;
    json_t *value = NULL;

    json_object_foreach((json_t *)(uintptr_t)fields->object, name, value)
    {
        char shown_name[TSR_SHOWN_BYTES];
        char shown[TSR_SHOWN_BYTES];
        tsr_field_verdict verdict = tsr_field_judge(table, name, value);
        if (verdict == TSR_FIELD_UNKNOWN && more != NULL)
            verdict = tsr_field_judge(more, name, value);
        (void)tsr_field_show_name(name, shown_name);
        if (verdict == TSR_FIELD_NOT_SERVED)
            st = tsr_fields_refuse(fields, shown_name, "%s is not served",
                                   tsr_field_show(value, shown));
        else if (verdict == TSR_FIELD_UNKNOWN)
            tsr_problems_add(fields->problems, TSR_SEVERITY_WARNING,
                             "%s: %s: is not known and has no effect", fields->file, shown_name);
    }
    return st;
}
