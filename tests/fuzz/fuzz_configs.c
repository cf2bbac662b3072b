/*
 * Any bytes as config.json, and behind a zero byte as hf_quant_config.json: the model, the
 * declarations, the sampling defaults, and every exclusion matched against names.
 */
#include "tests/fuzz/fuzz.h"

#include "runtime/base/json_file.h"
#include "runtime/checkpoint/generation_config.h"
#include "runtime/checkpoint/model_config.h"
#include "runtime/checkpoint/module_name.h"
#include "runtime/checkpoint/quant_config.h"

#include <stdlib.h>
#include <string.h>

static json_t *load(const char *bytes, size_t count)
{
    tsr_problems problems = {0};
    json_t *json = NULL;

    if (tsr_json_load_bytes("fuzz", bytes, count, &problems, &json) != TSR_OK)
        json = NULL;
    tsr_problems_close(&problems);
    return json;
}

static void read_model(const json_t *config)
{
    tsr_problems problems = {0};
    tsr_model_facts facts = {0};
    tsr_generation_defaults defaults;
    const tsr_fields fields = {config, "fuzz", &problems};

    const tsr_status st = tsr_model_config_read(&fields, &facts);
    if ((st == TSR_OK) == tsr_problems_has_error(&problems))
        abort();
    if (st == TSR_OK) {
        if (facts.hidden % 16 != 0 || facts.experts < facts.top_k || facts.layers < 1 ||
            facts.rotary_dim > facts.head_dim || facts.experts % facts.groups != 0)
            abort();
        if (tsr_eos_read(&fields, &facts) == TSR_OK && facts.eos_count > TSR_MAX_EOS)
            abort();
    }
    if (tsr_generation_config_read(&fields, &defaults) == TSR_OK && defaults.temperature < 0)
        abort();
    tsr_problems_close(&problems);
}

static void match_names(const tsr_declarations *declared)
{
    static const char *const names[] = {"model.layers.10.mlp.experts.3.gate_proj", "lm_head", "a"};
    tsr_problems problems = {0};
    tsr_name_patterns *patterns = NULL;

    if (tsr_name_patterns_open(declared->excludes, declared->exclude_count, "fuzz", &problems,
                               &patterns) == TSR_OK) {
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            size_t index = 0;
            if (tsr_name_patterns_match(patterns, names[i], &index) &&
                index >= declared->exclude_count)
                abort();
        }
    }
    tsr_name_patterns_close(patterns);
    tsr_problems_close(&problems);
}

static void read_quant(const json_t *config, const json_t *hf_quant)
{
    tsr_problems problems = {0};
    tsr_declarations declared = {0};
    tsr_arena *memory = NULL;
    if (tsr_arena_open(4096, &memory) != TSR_OK)
        abort();

    const tsr_status st = tsr_quant_config_read(config, hf_quant, memory, &problems, &declared);
    if ((st == TSR_OK) == tsr_problems_has_error(&problems))
        abort();
    for (size_t i = 1; i < declared.layer_count; i++) {
        if (strcmp(declared.layers[i - 1].name, declared.layers[i].name) >= 0)
            abort();
    }
    if (st == TSR_OK)
        match_names(&declared);
    tsr_problems_close(&problems);
    tsr_arena_close(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    const uint8_t *split = count > 0 ? memchr(bytes, 0, count) : NULL;
    const size_t first = split != NULL ? (size_t)(split - bytes) : count;
    json_t *config = load((const char *)bytes, first);
    json_t *hf_quant = split != NULL ? load((const char *)split + 1, count - first - 1) : NULL;

    if (config != NULL) {
        read_model(config);
        read_quant(config, hf_quant);
    }
    json_decref(config);
    json_decref(hf_quant);
    return 0;
}
