/* A value that the file leaves out stays out, so that a request's own, the command line's and
 * OpenAI's can come after it. do_sample: false is temperature 0, whatever temperature says. */
#include "runtime/checkpoint/generation_config.h"

#include "runtime/checkpoint/file_fields.h"

#include <stdio.h>
#include <string.h>

/* Adds "name: value" to the list, as far as there is room. */
static void add_unserved(const char *name, const json_t *value, tsr_generation_defaults *defaults)
{
    char shown[TSR_SHOWN_BYTES];
    const size_t used = strlen(defaults->unserved);

    (void)snprintf(defaults->unserved + used, sizeof(defaults->unserved) - used, "%s%s %s",
                   used > 0 ? ", " : "", name, tsr_field_show(value, shown));
}

/* What is not served is no error here: a checkpoint can be scored with it, or served without the
 * file's defaults. It is a warning, and whoever would use the defaults refuses. */
static void judge_fields(const tsr_fields *generation, tsr_generation_defaults *defaults)
{
    const char *name = NULL;
    json_t *value = NULL;

    json_object_foreach((json_t *)(uintptr_t)generation->object, name, value)
    {
        char shown[TSR_SHOWN_BYTES];
        const tsr_field_verdict verdict = tsr_field_judge(&tsr_fields_of_generation, name, value);
        if (verdict == TSR_FIELD_NOT_SERVED)
            add_unserved(name, value, defaults);
        else if (verdict == TSR_FIELD_UNKNOWN)
            tsr_problems_add(generation->problems, TSR_SEVERITY_WARNING,
                             "%s: %s: is not known and has no effect", generation->file,
                             tsr_field_show_name(name, shown));
    }
    if (defaults->unserved[0] != '\0')
        tsr_problems_add(generation->problems, TSR_SEVERITY_WARNING,
                         "%s: %s: not served; run samples with --generation-config none only",
                         generation->file, defaults->unserved);
}

tsr_status tsr_generation_config_read(const tsr_fields *generation,
                                      tsr_generation_defaults *ret_defaults)
{
    static const tsr_number_rule temperature_rule = {
        .name = "temperature", .above = -1e-30, .largest = 100.0};
    static const tsr_number_rule top_p_rule = {.name = "top_p", .above = 0.0, .largest = 1.0};
    static const tsr_number_rule min_p_rule = {.name = "min_p", .above = -1e-30, .largest = 1.0};
    static const tsr_number_rule repetition_rule = {
        .name = "repetition_penalty", .above = 0.0, .largest = 100.0};
    static const tsr_int_rule max_rule = {
        .name = "max_new_tokens", .smallest = 1, .largest = INT32_MAX};
    static const tsr_int_rule top_k_rule = {.name = "top_k", .smallest = -1, .largest = INT32_MAX};
    double temperature = 0.0;
    double top_p = 0.0;
    double min_p = 0.0;
    double repetition = 0.0;
    int32_t top_k = 0;
    int32_t max_new_tokens = 0;
    bool samples = true;

    tsr_status st = tsr_fields_number(generation, &temperature_rule, &temperature);
    if (tsr_fields_number(generation, &top_p_rule, &top_p) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (tsr_fields_number(generation, &min_p_rule, &min_p) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (tsr_fields_number(generation, &repetition_rule, &repetition) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (tsr_fields_int(generation, &top_k_rule, &top_k) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (tsr_fields_int(generation, &max_rule, &max_new_tokens) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (tsr_fields_bool(generation, "do_sample", true, &samples) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (st != TSR_OK)
        return st;

    *ret_defaults = (tsr_generation_defaults){
        .has_temperature = !samples || tsr_fields_get(generation, "temperature") != NULL,
        .has_top_p = tsr_fields_get(generation, "top_p") != NULL,
        .has_top_k = tsr_fields_get(generation, "top_k") != NULL,
        .temperature = samples ? (float)temperature : 0.0f,
        .top_p = (float)top_p,
        .top_k = top_k > 0 ? top_k : 0,
        .min_p = (float)min_p,
        .repetition_penalty = (float)repetition,
        .max_new_tokens = max_new_tokens,
    };
    judge_fields(generation, ret_defaults);
    return TSR_OK;
}

static bool holds_eos(const tsr_model_facts *facts, json_int_t id)
{
    for (int32_t i = 0; i < facts->eos_count; i++) {
        if (facts->eos[i] == id)
            return true;
    }
    return false;
}

bool tsr_model_add_eos(tsr_model_facts *facts, int32_t id)
{
    if (id < 0 || id >= facts->vocab)
        return false;
    if (holds_eos(facts, id))
        return true;
    if (facts->eos_count == TSR_MAX_EOS)
        return false;
    facts->eos[facts->eos_count++] = id;
    return true;
}

static tsr_status add_eos(const tsr_fields *file, const json_t *value, tsr_model_facts *facts)
{
    const json_int_t id = json_integer_value(value);

    if (!json_is_integer(value) || id < 0 || id >= facts->vocab)
        return tsr_fields_refuse(file, "eos_token_id", "is not an id from 0 to %d",
                                 facts->vocab - 1);
    if (!tsr_model_add_eos(facts, (int32_t)id))
        return tsr_fields_refuse(file, "eos_token_id", "more than %d ids", TSR_MAX_EOS);
    return TSR_OK;
}

tsr_status tsr_eos_read(const tsr_fields *file, tsr_model_facts *facts)
{
    const json_t *value = tsr_fields_get(file, "eos_token_id");

    if (value == NULL)
        return TSR_OK;
    if (!json_is_array(value))
        return add_eos(file, value, facts);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const tsr_status st = add_eos(file, json_array_get(value, i), facts);
        if (st != TSR_OK)
            return st;
    }
    return TSR_OK;
}
