#include "tests/plan/made_checkpoint.h"

#include "runtime/plan/algos.h"
#include "runtime/plan/modules.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TENSORS = 16384, MOST_KEYS = 2048, MOST_EXCLUDES = 32 };

struct made_checkpoint {
    tsr_checkpoint c;
    tsr_tensor tensors[MOST_TENSORS];
    tsr_declared keys[MOST_KEYS];
    char *excludes[MOST_EXCLUDES];
    char *files[1];
    tsr_file_mark marks[1];
    uint64_t end; /* of the file so far */
};

tsr_model_facts made_model(void)
{
    tsr_model_facts model = {
        .family = TSR_FAMILY_GLM4_MOE,
        .router = TSR_ROUTER_SIGMOID,
        .layers = MADE_LAYERS,
        .mtp_layers = 1,
        .hidden = 64,
        .vocab = 96,
        .q_heads = 4,
        .kv_heads = 2,
        .head_dim = 16,
        .rotary_dim = 8,
        .dense_intermediate = 96,
        .expert_intermediate = 32,
        .shared_intermediate = 32,
        .experts = MADE_EXPERTS,
        .top_k = 2,
        .groups = 1,
        .top_groups = 1,
        .max_positions = 512,
        .norm_top_k = true,
        .qkv_bias = true,
        .routed_scale = 1.0F,
        .norm_eps = 1e-5F,
        .rope_theta = 10000.0,
        .eos = {1},
        .eos_count = 1,
    };
    for (int32_t layer = 1; layer < MADE_LAYERS; layer++)
        model.sparse[layer] = true;
    return model;
}

static int by_tensor_name(const void *a, const void *b)
{
    return strcmp(((const tsr_tensor *)a)->name, ((const tsr_tensor *)b)->name);
}

static int by_key_name(const void *a, const void *b)
{
    return strcmp(((const tsr_declared *)a)->name, ((const tsr_declared *)b)->name);
}

void made_add(made_checkpoint *made, const char *name, tsr_dtype dtype, int32_t rank,
              const int64_t *shape)
{
    tsr_tensor *t = &made->tensors[made->c.tensor_count];

    assert_true(made->c.tensor_count < MOST_TENSORS);
    made->c.tensor_count++;
    *t = (tsr_tensor){.name = strdup(name), .dtype = dtype, .rank = rank, .offset = made->end};
    t->bytes = tsr_dtype_bytes(dtype);
    for (int32_t i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        t->bytes *= (uint64_t)shape[i];
    }
    made->end += t->bytes;
}

/* rows and columns of 0 leave the dimension out. */
static void add_beside(made_checkpoint *made, const char *module, const char *suffix,
                       tsr_dtype dtype, int64_t rows, int64_t columns)
{
    const int64_t shape[2] = {rows, columns};
    char name[TSR_MODULE_NAME_BYTES + 32];

    (void)snprintf(name, sizeof(name), "%s.%s", module, suffix);
    made_add(made, name, dtype, (rows > 0) + (columns > 0), shape);
}

static void store_linear(made_checkpoint *made, const tsr_linear_plan *l, tsr_algo algo)
{
    const tsr_algo_row *row = tsr_algo_row_of(algo);
    char module[TSR_MODULE_NAME_BYTES];

    tsr_module_name(l, module);
    if (tsr_module_has_bias(&made->c.model, l->role))
        add_beside(made, module, "bias", TSR_DTYPE_BF16, l->out, 0);
    if (algo == TSR_ALGO_NONE) {
        add_beside(made, module, "weight", TSR_DTYPE_BF16, l->out, l->in);
        return;
    }
    if (row->format == TSR_WEIGHT_NVFP4) {
        add_beside(made, module, "weight", TSR_DTYPE_U8, l->out, l->in / 2);
        add_beside(made, module, "weight_scale", TSR_DTYPE_F8_E4M3, l->out, l->in / 16);
        add_beside(made, module, "weight_scale_2", TSR_DTYPE_F32, 0, 0);
    } else {
        add_beside(made, module, "weight", TSR_DTYPE_F8_E4M3, l->out, l->in);
        if (row->format == TSR_WEIGHT_FP8)
            add_beside(made, module, "weight_scale", TSR_DTYPE_F32, 0, 0);
        else if (row->format == TSR_WEIGHT_FP8_CHANNEL)
            add_beside(made, module, "weight_scale", TSR_DTYPE_F32, l->out, 0);
        else
            add_beside(made, module, "weight_scale", TSR_DTYPE_F32, (l->out + 127) / 128,
                       (l->in + 127) / 128);
    }
    if (tsr_activation_is_static(row->activation))
        add_beside(made, module, "input_scale", TSR_DTYPE_F32, 0, 0);
}

static void store_vectors(made_checkpoint *made)
{
    tsr_vector_plan *vectors;
    int32_t count;

    ASSERT_STATUS(TSR_OK, tsr_vectors_list(&made->c.model, &vectors, &count));
    for (int32_t i = 0; i < count; i++) {
        char name[TSR_MODULE_NAME_BYTES];
        int64_t shape = vectors[i].elements;
        if (vectors[i].role == TSR_ROLE_K_SCALE || vectors[i].role == TSR_ROLE_V_SCALE)
            continue;
        tsr_vector_name(&vectors[i], name);
        made_add(made, name, TSR_DTYPE_BF16, 1, &shape);
    }
    free(vectors);
}

made_checkpoint *made_open(const tsr_model_facts *model, made_storage storage)
{
    static char file[] = "model.safetensors", folder[] = "made";
    made_checkpoint *made = calloc(1, sizeof(*made));
    tsr_linear_plan *linears;
    int32_t count;

    assert_non_null(made);
    made->files[0] = file;
    made->c = (tsr_checkpoint){.folder = folder,
                               .files = made->files,
                               .marks = made->marks,
                               .file_count = 1,
                               .tensors = made->tensors,
                               .model = *model};
    made->c.declared.source = "hf_quant_config.json";
    made->c.declared.layers = made->keys;
    made->c.declared.excludes = made->excludes;
    made->c.declared.exclude_originals = made->excludes;
    ASSERT_STATUS(TSR_OK, tsr_modules_list(model, &linears, &count));
    for (int32_t i = 0; i < count; i++)
        store_linear(made, &linears[i], storage(&linears[i]));
    free(linears);
    store_vectors(made);
    return made;
}

void made_close(made_checkpoint *made)
{
    for (size_t i = 0; i < made->c.tensor_count; i++)
        free((void *)(uintptr_t)made->tensors[i].name);
    for (size_t i = 0; i < made->c.declared.layer_count; i++)
        free((void *)(uintptr_t)made->keys[i].name);
    free(made);
}

void made_uniform(made_checkpoint *made, const char *algo, int32_t group_size)
{
    made->c.declared.quantized = true;
    made->c.declared.uniform = (tsr_declared){.algo = algo, .group_size = group_size};
}

void made_mixed(made_checkpoint *made)
{
    made->c.declared.quantized = true;
    made->c.declared.mixed = true;
}

void made_key(made_checkpoint *made, const char *name, const char *algo, int32_t group_size)
{
    const size_t at = made->c.declared.layer_count++;
    char *copy = strdup(name);

    assert_true(at < MOST_KEYS);
    made_mixed(made);
    made->keys[at] = (tsr_declared){copy, copy, algo, group_size};
}

void made_exclude(made_checkpoint *made, const char *pattern)
{
    assert_true(made->c.declared.exclude_count < MOST_EXCLUDES);
    made->excludes[made->c.declared.exclude_count++] = (char *)(uintptr_t)pattern;
}

void made_expert_keys(made_checkpoint *made, int32_t layer, int32_t first, const char *algo)
{
    static const char *const projections[] = {"gate_proj", "up_proj", "down_proj"};
    char name[TSR_MODULE_NAME_BYTES];

    for (int32_t e = first; e < made->c.model.experts; e++) {
        for (int p = 0; p < 3; p++) {
            (void)snprintf(name, sizeof(name), "model.layers.%d.mlp.experts.%d.%s", layer, e,
                           projections[p]);
            made_key(made, name, algo, 0);
        }
    }
}

/* How the first tensor of a module says it is stored. */
static const char *stored_algo(made_checkpoint *made, const char *module)
{
    char name[TSR_MODULE_NAME_BYTES + 16];

    (void)snprintf(name, sizeof(name), "%s.weight", module);
    const tsr_dtype dtype = made_tensor(made, name)->dtype;
    if (dtype == TSR_DTYPE_U8)
        return "NVFP4";
    return dtype == TSR_DTYPE_F8_E4M3 ? "FP8" : NULL;
}

void made_keys_as_stored(made_checkpoint *made)
{
    tsr_linear_plan *linears;
    int32_t count;

    made_mixed(made);
    ASSERT_STATUS(TSR_OK, tsr_modules_list(&made->c.model, &linears, &count));
    for (int32_t i = 0; i < count; i++) {
        char name[TSR_MODULE_NAME_BYTES];
        const char *algo;
        tsr_module_name(&linears[i], name);
        algo = stored_algo(made, name);
        if (algo == NULL || linears[i].expert > 0 || linears[i].role == TSR_ROLE_EXPERT_UP ||
            linears[i].role == TSR_ROLE_EXPERT_DOWN)
            continue;
        if (linears[i].expert == 0)
            (void)snprintf(name, sizeof(name), "model.layers.%d.mlp.experts", linears[i].layer);
        made_key(made, name, algo, 0);
    }
    free(linears);
}

tsr_tensor *made_tensor(made_checkpoint *made, const char *name)
{
    for (size_t i = 0; i < made->c.tensor_count; i++)
        if (strcmp(made->tensors[i].name, name) == 0)
            return &made->tensors[i];
    fail_msg("there is no tensor %s", name);
    abort();
}

void made_drop(made_checkpoint *made, const char *name)
{
    tsr_tensor *t = made_tensor(made, name);

    free((void *)(uintptr_t)t->name);
    *t = made->tensors[--made->c.tensor_count];
}

const tsr_checkpoint *made_view(made_checkpoint *made)
{
    qsort(made->tensors, made->c.tensor_count, sizeof(made->tensors[0]), by_tensor_name);
    qsort(made->keys, made->c.declared.layer_count, sizeof(made->keys[0]), by_key_name);
    made->marks[0].bytes = made->end;
    return &made->c;
}

static bool may_be_quantized(const tsr_linear_plan *linear)
{
    return linear->role != TSR_ROLE_EMBED && linear->role != TSR_ROLE_HEAD &&
           linear->role != TSR_ROLE_ROUTER;
}

tsr_algo stored_plain(const tsr_linear_plan *linear)
{
    (void)linear;
    return TSR_ALGO_NONE;
}

tsr_algo stored_nvfp4(const tsr_linear_plan *linear)
{
    return may_be_quantized(linear) ? TSR_ALGO_NVFP4 : TSR_ALGO_NONE;
}

tsr_algo stored_nvfp4_experts(const tsr_linear_plan *linear)
{
    return linear->expert >= 0 ? TSR_ALGO_NVFP4 : TSR_ALGO_NONE;
}

const tsr_claim *claim_named(const tsr_precision *precision, const char *module)
{
    char name[TSR_MODULE_NAME_BYTES];

    for (int32_t i = 0; i < precision->linear_count; i++) {
        tsr_module_name(&precision->linears[i], name);
        if (strcmp(name, module) == 0)
            return &precision->claims[i];
    }
    fail_msg("there is no module %s", module);
    abort();
}

static void print_problems(const tsr_problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        print_message("  %d: %s\n", problems->items[i].severity, problems->items[i].text);
}

void assert_problem(const tsr_problems *problems, tsr_severity severity, const char *first,
                    const char *second)
{
    for (size_t i = 0; i < problems->count; i++)
        if (problems->items[i].severity == severity &&
            (first == NULL || strstr(problems->items[i].text, first) != NULL) &&
            (second == NULL || strstr(problems->items[i].text, second) != NULL))
            return;
    print_problems(problems);
    fail_msg("no problem says '%s' and '%s'", first, second != NULL ? second : "");
}

void assert_errors(const tsr_problems *problems, size_t count)
{
    if (problems->errors == count)
        return;
    print_problems(problems);
    fail_msg("%zu errors instead of %zu", problems->errors, count);
}
