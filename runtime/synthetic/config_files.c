/* As ModelOpt and transformers write them. A checkpoint without a quantized module has no
 * declarations at all, as one that was never quantized. */
#include "runtime/synthetic/config_files.h"

#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/plan/algos.h"
#include "runtime/synthetic/shard_files.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 4096, INDENT = 2 };

static const char chat_template[] =
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

static tsr_status write_text(const char *folder, const char *name, const char *text, size_t bytes)
{
    char path[PATH_BYTES];

    const tsr_status st = tsr_path_join(folder, name, sizeof(path), path);
    if (st != TSR_OK)
        return st;
    FILE *file = fopen(path, "wb");
    bool good = file != NULL && fwrite(text, 1, bytes, file) == bytes;
    if (file != NULL)
        good = fclose(file) == 0 && good;
    if (good)
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR, "%s: cannot be written: %s", path, strerror(errno));
    return TSR_ERR_OUTPUT;
}

/* Takes the object over, which is NULL without memory. */
static tsr_status write_json(const char *folder, const char *name, json_t *json)
{
    char *text = json != NULL ? json_dumps(json, JSON_INDENT(INDENT)) : NULL;
    const tsr_status st =
        text != NULL ? write_text(folder, name, text, strlen(text)) : TSR_ERR_MEMORY;

    free(text);
    json_decref(json);
    return st;
}

static json_t *algo_json(tsr_algo algo)
{
    const tsr_algo_row *row = tsr_algo_row_of(algo);

    return row->format == TSR_WEIGHT_NVFP4
               ? json_pack("{s:s, s:i}", "quant_algo", row->name, "group_size", row->group_size)
               : json_pack("{s:s}", "quant_algo", row->name);
}

static json_t *layers_json(const tsr_tensor_set *set)
{
    json_t *layers = json_object();

    for (int32_t i = 0; i < set->declared_count; i++)
        (void)json_object_set_new(layers, set->declared[i].name, algo_json(set->declared[i].algo));
    return layers;
}

static json_t *producer_json(void)
{
    return json_pack("{s:s, s:s}", "name", "modelopt", "version", "0.47.0");
}

static tsr_status write_quant(const char *folder, const tsr_tensor_set *set)
{
    return write_json(folder, "hf_quant_config.json",
                      json_pack("{s:o, s:{s:s, s:n, s:o}}", "producer", producer_json(),
                                "quantization", "quant_algo", "MIXED_PRECISION",
                                "kv_cache_quant_algo", "quantized_layers", layers_json(set)));
}

static json_t *quantization_json(const tsr_tensor_set *set)
{
    return json_pack("{s:{}, s:o, s:[], s:s, s:o, s:s}", "config_groups", "quantized_layers",
                     layers_json(set), "ignore", "quant_algo", "MIXED_PRECISION", "producer",
                     producer_json(), "quant_method", "modelopt");
}

/* What both families call by the same name. */
static json_t *shared_json(const tsr_synthetic_shape *s)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:s, s:b, s:b}",
                     "hidden_size", s->hidden, "num_hidden_layers", s->layers,
                     "num_attention_heads", s->q_heads, "num_key_value_heads", s->kv_heads,
                     "head_dim", s->head_dim, "num_experts_per_tok", s->top_k,
                     "moe_intermediate_size", s->expert_intermediate, "intermediate_size",
                     s->dense_intermediate, "vocab_size", s->vocab, "max_position_embeddings",
                     s->max_positions, "eos_token_id", s->vocab - 1, "hidden_act", "silu", "dtype",
                     "bfloat16", "norm_topk_prob", true, "tie_word_embeddings", false);
}

static json_t *qwen3_json(const tsr_synthetic_shape *s)
{
    return json_pack("{s:[s], s:s, s:b, s:f, s:i, s:i, s:[], s:n, s:b, s:{s:f, s:s}}",
                     "architectures", "Qwen3MoeForCausalLM", "model_type", "qwen3_moe",
                     "attention_bias", false, "rms_norm_eps", 1e-6, "num_experts", s->experts,
                     "decoder_sparse_step", 1, "mlp_only_layers", "sliding_window",
                     "use_sliding_window", false, "rope_parameters", "rope_theta", s->rope_theta,
                     "rope_type", "default");
}

static json_t *glm4_json(const tsr_synthetic_shape *s)
{
    return json_pack("{s:[s], s:s, s:b, s:f, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b, s:f, "
                     "s:{s:f, s:s, s:f}}",
                     "architectures", "Glm4MoeForCausalLM", "model_type", "glm4_moe",
                     "attention_bias", true, "rms_norm_eps", 1e-5, "n_routed_experts", s->experts,
                     "n_group", 1, "topk_group", 1, "n_shared_experts", s->shared_experts,
                     "first_k_dense_replace", s->dense_layers, "num_nextn_predict_layers", 0,
                     "routed_scaling_factor", s->routed_scale, "use_qk_norm", s->qk_norm,
                     "partial_rotary_factor", 0.5, "rope_parameters", "rope_theta", s->rope_theta,
                     "rope_type", "default", "partial_rotary_factor", 0.5);
}

static tsr_status write_model(const char *folder, const tsr_synthetic_shape *shape,
                              const tsr_tensor_set *set)
{
    json_t *config = shape->family == TSR_FAMILY_GLM4_MOE ? glm4_json(shape) : qwen3_json(shape);
    json_t *shared = shared_json(shape);
    const bool good = json_object_update(config, shared) == 0;

    json_decref(shared);
    if (good && set->declared_count > 0)
        (void)json_object_set_new(config, "quantization_config", quantization_json(set));
    return write_json(folder, "config.json", config);
}

static tsr_status write_index(const char *folder, const tsr_tensor_set *set)
{
    json_t *files = json_object();

    for (int32_t i = 0; i < set->count; i++) {
        char name[TSR_SHARD_NAME_BYTES];
        tsr_shard_name(set, set->tensors[i].file, name);
        (void)json_object_set_new(files, set->tensors[i].name, json_string(name));
    }
    return write_json(folder, "model.safetensors.index.json",
                      json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)set->bytes,
                                "weight_map", files));
}

static tsr_status write_tokenizer(const char *folder, int32_t vocab)
{
    tsr_text text = {0};

    tsr_status st = tsr_tokenizer_text(vocab, &text);
    if (st == TSR_OK)
        st = write_text(folder, "tokenizer.json", text.bytes, text.count);
    tsr_text_close(&text);
    if (st == TSR_OK)
        st = write_json(
            folder, "tokenizer_config.json",
            json_pack("{s:s, s:s}", "eos_token", "<|im_end|>", "pad_token", "<|endoftext|>"));
    if (st == TSR_OK)
        st = write_text(folder, "chat_template.jinja", chat_template, sizeof(chat_template) - 1);
    return st;
}

tsr_status tsr_config_files_write(const char *folder, const tsr_synthetic_shape *shape,
                                  const tsr_tensor_set *set)
{
    tsr_status st = write_model(folder, shape, set);

    if (st == TSR_OK && set->declared_count > 0)
        st = write_quant(folder, set);
    if (st == TSR_OK)
        st = write_json(
            folder, "generation_config.json",
            json_pack("{s:b, s:i}", "do_sample", false, "eos_token_id", shape->vocab - 1));
    if (st == TSR_OK)
        st = write_index(folder, set);
    if (st == TSR_OK)
        st = write_tokenizer(folder, shape->vocab);
    return st;
}
