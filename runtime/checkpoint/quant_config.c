/*
 * Which of the two files is believed:
 *
 *   config.json says    hf_quant_config.json    what is used
 *   nothing             none                    not quantized
 *   nothing             there                   hf_quant_config.json
 *   modelopt            none                    config.json
 *   modelopt            there                   hf_quant_config.json; differences are warnings
 *   fp8                 none                    config.json: 128x128 blocks but for listed modules
 *   fp8                 there                   hf_quant_config.json, over a model in FP8 blocks:
 *                                               what it leaves alone may still be stored in them
 *
 * Formats are kept as they are spelled: whether one is served is the plan's question.
 */
#include "runtime/checkpoint/quant_config.h"

#include "runtime/checkpoint/file_fields.h"
#include "runtime/checkpoint/json_fields.h"
#include "runtime/checkpoint/quant_compare.h"
#include "runtime/checkpoint/quant_table.h"

#include <string.h>
#include <strings.h>

enum { LARGEST_GROUP = 1 << 20, FP8_BLOCK = 128 };

static const char hf_source[] = "hf_quant_config.json";
static const char config_source[] = "config.json:quantization_config";

/* Members that declare something; none may be lost beside a nested "quantization". */
static const char *const declaring[] = {
    "quant_algo", "kv_cache_quant_algo", "kv_cache_scheme",           "exclude_modules",
    "ignore",     "quantized_layers",    "kv_cache_quantized_layers", "group_size",
};

/* Steps down to where the declarations stand. */
static tsr_status unnest(tsr_fields *fields)
{
    const json_t *inner = tsr_fields_get(fields, "quantization");

    if (inner == NULL)
        return TSR_OK;
    if (!json_is_object(inner))
        return tsr_fields_refuse(fields, "quantization", "is not an object");
    for (size_t i = 0; i < sizeof(declaring) / sizeof(declaring[0]); i++) {
        if (tsr_fields_get(fields, declaring[i]) != NULL)
            return tsr_fields_refuse(fields, declaring[i],
                                     "stands beside \"quantization\" instead of inside it");
    }
    fields->object = inner;
    return tsr_file_fields_check(fields, &tsr_fields_of_quantization, NULL);
}

/* `excludes` and their originals have room for the entries of all lists. */
static tsr_status add_excludes(const tsr_fields *fields, const char *member, tsr_arena *memory,
                               tsr_declarations *d)
{
    const json_t *list = tsr_fields_get(fields, member);

    if (list != NULL && !json_is_array(list))
        return tsr_fields_refuse(fields, member, "is not a list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *name = json_string_value(entry);
        if (name == NULL || strlen(name) != json_string_length(entry))
            return tsr_fields_refuse(fields, member, "entry %zu is not text", i);

        tsr_quant_name copied = {0};
        const tsr_status st = tsr_quant_name_read(fields, member, name, memory, &copied);
        if (st != TSR_OK)
            return st;
        d->excludes[d->exclude_count] = copied.canonical;
        d->exclude_originals[d->exclude_count] = copied.original;
        d->exclude_count++;
    }
    return TSR_OK;
}

/* `others` more entries are added by the caller. */
static tsr_status read_excludes(const tsr_fields *fields, const char *const members[2],
                                size_t others, tsr_arena *memory, tsr_declarations *d)
{
    const size_t most = json_array_size(tsr_fields_get(fields, members[0])) +
                        json_array_size(tsr_fields_get(fields, members[1])) + others;
    d->excludes = tsr_arena_array(memory, most + 1, sizeof(*d->excludes));
    d->exclude_originals = tsr_arena_array(memory, most + 1, sizeof(*d->exclude_originals));
    if (d->excludes == NULL || d->exclude_originals == NULL)
        return TSR_ERR_MEMORY;

    tsr_status st = add_excludes(fields, members[0], memory, d);
    if (st == TSR_OK)
        st = add_excludes(fields, members[1], memory, d);
    return st;
}

/* An object describes FP8 and nothing else; a string is the algorithm's name. */
static tsr_status read_kv_scheme(const tsr_fields *fields, const char **ret_algo)
{
    const json_t *scheme = tsr_fields_get(fields, "kv_cache_scheme");

    if (!json_is_object(scheme))
        return tsr_fields_text(fields, "kv_cache_scheme", ret_algo);

    const char *type = json_string_value(json_object_get(scheme, "type"));
    if (json_integer_value(json_object_get(scheme, "num_bits")) != 8 || type == NULL ||
        strcmp(type, "float") != 0 || json_is_true(json_object_get(scheme, "dynamic")))
        return tsr_fields_refuse(fields, "kv_cache_scheme",
                                 "is not 8-bit float with static scales, which is all it can say");
    *ret_algo = "FP8";
    return TSR_OK;
}

static tsr_status read_kv(const tsr_fields *fields, tsr_arena *memory, tsr_declarations *d)
{
    static const tsr_int_rule version_rule = {
        .name = "kv_cache_schema_version", .smallest = 1, .largest = 1, .otherwise = 1};
    const char *algo = NULL;
    const char *scheme = NULL;
    int32_t version = 0;

    tsr_status st = tsr_fields_text(fields, "kv_cache_quant_algo", &algo);
    if (st == TSR_OK)
        st = read_kv_scheme(fields, &scheme);
    if (st == TSR_OK)
        st = tsr_fields_int(fields, &version_rule, &version);
    if (st == TSR_OK)
        st = tsr_quant_table_read(fields, "kv_cache_quantized_layers", memory, &d->kv_layers,
                                  &d->kv_layer_count);
    if (st != TSR_OK)
        return st;
    if (algo != NULL && scheme != NULL && strcasecmp(algo, scheme) != 0)
        return tsr_fields_refuse(fields, "kv_cache_quant_algo",
                                 "\"%.32s\", but kv_cache_scheme is %.32s", algo, scheme);

    const char *chosen = algo != NULL ? algo : scheme;
    if (chosen != NULL) {
        d->kv_algo = tsr_arena_text(memory, chosen, strlen(chosen));
        st = d->kv_algo != NULL ? TSR_OK : TSR_ERR_MEMORY;
    }
    return st;
}

/* The flat form keeps a uniform group size only here. AWQ's is not to be believed. */
static tsr_status read_grouped_size(const tsr_fields *fields, const char *algo, int32_t *group_size)
{
    const tsr_int_rule rule = {.name = "config_groups.group_0.weights.group_size",
                               .smallest = 0,
                               .largest = LARGEST_GROUP};

    if (*group_size != 0 || strcasecmp(algo, "NVFP4_AWQ") == 0)
        return TSR_OK;
    return tsr_fields_int(fields, &rule, group_size);
}

static tsr_status read_algo(const tsr_fields *fields, tsr_arena *memory, tsr_declarations *d)
{
    static const tsr_int_rule group_rule = {
        .name = "group_size", .smallest = 0, .largest = LARGEST_GROUP};
    const char *algo = NULL;
    bool zero_point = false;

    tsr_status st = tsr_fields_text(fields, "quant_algo", &algo);
    if (st == TSR_OK)
        st = tsr_fields_bool(fields, "has_zero_point", false, &zero_point);
    if (st == TSR_OK && zero_point)
        st = tsr_fields_refuse(fields, "has_zero_point", "true is not supported");
    if (st != TSR_OK || algo == NULL)
        return st;

    d->mixed = strcasecmp(algo, "MIXED_PRECISION") == 0;
    if (d->mixed)
        return TSR_OK;
    st = tsr_fields_int(fields, &group_rule, &d->uniform.group_size);
    if (st == TSR_OK)
        st = read_grouped_size(fields, algo, &d->uniform.group_size);
    if (st != TSR_OK)
        return st;
    d->uniform.name = "";
    d->uniform.original = "quant_algo";
    d->uniform.algo = tsr_arena_text(memory, algo, strlen(algo));
    return d->uniform.algo != NULL ? TSR_OK : TSR_ERR_MEMORY;
}

/* A table and a uniform format do not go together; groups alone name no format. */
static tsr_status check_form(const tsr_fields *fields, const tsr_declarations *d)
{
    if (!d->mixed && d->layer_count > 0)
        return tsr_fields_refuse(fields, "quantized_layers",
                                 "is given, but quant_algo is \"%.32s\" and not MIXED_PRECISION",
                                 d->uniform.algo != NULL ? d->uniform.algo : "null");
    const json_t *groups = tsr_fields_get(fields, "config_groups");
    if (d->layer_count > 0 || json_object_size(groups) == 0)
        return TSR_OK;
    if (d->mixed)
        return tsr_fields_refuse(fields, "quantized_layers",
                                 "is missing: config_groups alone do not say which format a layer "
                                 "has");
    if (d->uniform.algo == NULL)
        return tsr_fields_refuse(fields, "quant_algo",
                                 "is missing: config_groups alone do not say which format this is");
    return TSR_OK;
}

/* The form ModelOpt writes, in either file. What a file leaves open matters where it is `used`, not
 * where it is only compared. */
static tsr_status read_modelopt(const tsr_fields *file, bool used, tsr_arena *memory,
                                tsr_declarations *ret_declared)
{
    static const char *const lists[2] = {"exclude_modules", "ignore"};
    tsr_fields fields = *file;
    tsr_declarations d = {.source = file->file};

    tsr_status st = unnest(&fields);
    if (st == TSR_OK)
        st = read_algo(&fields, memory, &d);
    if (st == TSR_OK)
        st = tsr_quant_table_read(&fields, "quantized_layers", memory, &d.layers, &d.layer_count);
    if (st == TSR_OK)
        st = read_excludes(&fields, lists, 0, memory, &d);
    if (st == TSR_OK)
        st = read_kv(&fields, memory, &d);
    if (st == TSR_OK && used)
        st = check_form(&fields, &d);
    if (st != TSR_OK)
        return st;

    d.quantized = d.mixed || d.uniform.algo != NULL || d.kv_algo != NULL || d.kv_layer_count > 0;
    *ret_declared = d;
    return TSR_OK;
}

static tsr_status check_block(const tsr_fields *fields)
{
    const json_t *block = tsr_fields_get(fields, "weight_block_size");

    if (json_array_size(block) == 2 && json_integer_value(json_array_get(block, 0)) == FP8_BLOCK &&
        json_integer_value(json_array_get(block, 1)) == FP8_BLOCK)
        return TSR_OK;
    return tsr_fields_refuse(fields, "weight_block_size",
                             "quant_method fp8 is served with [128, 128] only");
}

/* What quant_method fp8 may say of its blocks. */
static tsr_status check_fp8(const tsr_fields *fields)
{
    const char *scheme = NULL;
    const char *format = NULL;

    tsr_status st = check_block(fields);
    if (st == TSR_OK)
        st = tsr_fields_text(fields, "activation_scheme", &scheme);
    if (st == TSR_OK)
        st = tsr_fields_text(fields, "fmt", &format);
    if (st == TSR_OK && (scheme == NULL || strcmp(scheme, "dynamic") != 0))
        st = tsr_fields_refuse(fields, "activation_scheme",
                               "quant_method fp8 is served with \"dynamic\" only");
    if (st == TSR_OK && format != NULL && strcmp(format, "e4m3") != 0)
        st = tsr_fields_refuse(fields, "fmt", "quant_method fp8 is served with \"e4m3\" only");
    return st;
}

/* quant_method fp8 of transformers: 128x128 blocks everywhere but in the listed modules. */
static tsr_status read_fp8(const tsr_fields *fields, tsr_arena *memory,
                           tsr_declarations *ret_declared)
{
    static const char *const lists[2] = {"modules_to_not_convert", "ignored_layers"};
    static char head[] = "lm_head";
    tsr_declarations d = {.quantized = true, .source = config_source};

    tsr_status st = check_fp8(fields);
    if (st == TSR_OK && tsr_fields_get(fields, "moe_quant_algo") != NULL)
        st = tsr_fields_refuse(fields, "moe_quant_algo",
                               "is not supported without hf_quant_config.json");
    if (st == TSR_OK)
        st = read_excludes(fields, lists, 1, memory, &d);
    if (st != TSR_OK)
        return st;

    /* transformers never converts the head, listed or not */
    d.excludes[d.exclude_count] = head;
    d.exclude_originals[d.exclude_count] = head;
    d.exclude_count++;
    d.uniform = (tsr_declared){"", "quant_method", "FP8_BLOCK_SCALES", FP8_BLOCK};
    *ret_declared = d;
    return TSR_OK;
}

typedef enum method { METHOD_NONE, METHOD_MODELOPT, METHOD_FP8 } method;

/* Whose format config.json says this is. */
static tsr_status read_method(const tsr_fields *fields, method *ret_method)
{
    const char *name = NULL;
    const tsr_status st = tsr_fields_text(fields, "quant_method", &name);
    if (st != TSR_OK)
        return st;

    if (name != NULL && strcasecmp(name, "fp8") == 0) {
        *ret_method = METHOD_FP8;
        return TSR_OK;
    }
    if (name == NULL || strncasecmp(name, "modelopt", strlen("modelopt")) == 0) {
        *ret_method = METHOD_MODELOPT;
        return TSR_OK;
    }
    return tsr_fields_refuse(fields, "quant_method",
                             "\"%.64s\" is not supported; export with ModelOpt", name);
}

/* Both files are there. config.json of an FP8 model speaks of the model before it was quantized
 * again, so there is nothing to compare. */
static tsr_status read_both(const tsr_fields *config, method said, const tsr_fields *hf_quant,
                            tsr_arena *memory, tsr_declarations *ret_declared)
{
    tsr_declarations used;
    tsr_declarations other;
    tsr_status st = read_modelopt(hf_quant, true, memory, &used);

    if (said == METHOD_FP8) {
        if (check_fp8(config) != TSR_OK)
            st = TSR_ERR_CHECKPOINT;
        if (st != TSR_OK)
            return st;
        used.fp8_block_base = true;
        *ret_declared = used;
        return TSR_OK;
    }
    if (st != TSR_OK)
        return st;
    st = read_modelopt(config, false, memory, &other);
    if (st != TSR_OK)
        return st;
    tsr_quant_compare(&used, &other, config->problems);
    *ret_declared = used;
    return TSR_OK;
}

tsr_status tsr_quant_config_read(const json_t *config, const json_t *hf_quant, tsr_arena *memory,
                                 tsr_problems *problems, tsr_declarations *ret_declared)
{
    const tsr_fields whole = {config, "config.json", problems};
    const tsr_fields fields = {tsr_fields_get(&whole, "quantization_config"), config_source,
                               problems};
    const tsr_fields hf_fields = {hf_quant, hf_source, problems};
    method said = METHOD_NONE;

    if (fields.object != NULL && !json_is_object(fields.object))
        return tsr_fields_refuse(&whole, "quantization_config", "is not an object");
    if (hf_quant != NULL && !json_is_object(hf_quant)) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: is not an object", hf_source);
        return TSR_ERR_CHECKPOINT;
    }
    if (fields.object != NULL && read_method(&fields, &said) != TSR_OK)
        return TSR_ERR_CHECKPOINT;
    if (tsr_file_fields_check(&fields, &tsr_fields_of_quantization, NULL) != TSR_OK ||
        tsr_file_fields_check(&hf_fields, &tsr_fields_of_quantization, NULL) != TSR_OK)
        return TSR_ERR_CHECKPOINT;

    if (said != METHOD_NONE && hf_quant != NULL)
        return read_both(&fields, said, &hf_fields, memory, ret_declared);
    if (said == METHOD_FP8)
        return read_fp8(&fields, memory, ret_declared);
    if (said == METHOD_MODELOPT)
        return read_modelopt(&fields, true, memory, ret_declared);
    if (hf_quant != NULL)
        return read_modelopt(&hf_fields, true, memory, ret_declared);

    *ret_declared = (tsr_declarations){.source = "config.json"};
    return TSR_OK;
}
