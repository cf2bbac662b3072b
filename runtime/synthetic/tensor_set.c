/* From the modules a model must have to the tensors ModelOpt writes for them. */
#include "runtime/synthetic/tensor_set.h"

#include "runtime/plan/algos.h"
#include "runtime/plan/modules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = TSR_MODULE_NAME_BYTES + 32, FIRST_CAPACITY = 1024 };

/* Rows that meet a weight have been normed, or come out of a gate: 6 is further out than they get. */
static const float largest_activation = 6.0F;
static const float largest_e4m3 = 448.0F;
static const float largest_e2m1 = 6.0F;

/* The tensor, to be described further; NULL without memory. */
static tsr_synthetic_tensor *add_tensor(tsr_tensor_set *set, const char *module, const char *suffix)
{
    char name[NAME_BYTES];
    const int length = snprintf(name, sizeof(name), "%s%s", module, suffix);

    if (set->count == set->capacity) {
        const int32_t capacity = set->capacity > 0 ? 2 * set->capacity : FIRST_CAPACITY;
        tsr_synthetic_tensor *larger =
            realloc(set->tensors, (size_t)capacity * sizeof(*set->tensors));
        if (larger == NULL)
            return NULL;
        set->tensors = larger;
        set->capacity = capacity;
    }
    tsr_synthetic_tensor *t = &set->tensors[set->count];
    *t = (tsr_synthetic_tensor){.name = tsr_arena_text(set->memory, name, (size_t)length)};
    if (t->name == NULL)
        return NULL;
    set->count++;
    return t;
}

static tsr_status add_f32(tsr_tensor_set *set, const char *module, const char *suffix, float centre,
                          uint64_t alike)
{
    tsr_synthetic_tensor *t = add_tensor(set, module, suffix);
    if (t == NULL)
        return TSR_ERR_MEMORY;
    t->dtype = TSR_DTYPE_F32;
    t->kind = TSR_RANDOM_F32;
    t->centre = centre;
    t->alike = alike;
    return TSR_OK;
}

/* The linears that see the same rows have seen the same largest value of them: one number for all
 * of these. */
static uint64_t input_of(const tsr_linear_plan *l)
{
    tsr_role first = l->role;

    if (l->role == TSR_ROLE_K || l->role == TSR_ROLE_V)
        first = TSR_ROLE_Q;
    if (l->role == TSR_ROLE_UP)
        first = TSR_ROLE_GATE;
    if (l->role == TSR_ROLE_SHARED_UP)
        first = TSR_ROLE_SHARED_GATE;
    if (l->role == TSR_ROLE_EXPERT_UP)
        first = TSR_ROLE_EXPERT_GATE;
    return (((uint64_t)(l->layer + 1) << 32) | ((uint64_t)(l->expert + 1) << 8) | (uint64_t)first) +
           1;
}

/* A matrix, or a vector where `columns` is 0. */
static tsr_status add_rows(tsr_tensor_set *set, const char *module, const char *suffix,
                           const tsr_synthetic_tensor *like)
{
    tsr_synthetic_tensor *t = add_tensor(set, module, suffix);
    if (t == NULL)
        return TSR_ERR_MEMORY;
    const char *name = t->name;
    *t = *like;
    t->name = name;
    return TSR_OK;
}

static tsr_random_kind kind_of_weight(tsr_role role, tsr_weight_format format)
{
    if (role == TSR_ROLE_EMBED)
        return TSR_RANDOM_EMBED_BF16;
    if (format == TSR_WEIGHT_NVFP4)
        return TSR_RANDOM_E2M1;
    return format == TSR_WEIGHT_BF16 ? TSR_RANDOM_WEIGHT_BF16 : TSR_RANDOM_E4M3;
}

static tsr_status add_weight(tsr_tensor_set *set, const tsr_linear_plan *l, const char *module,
                             tsr_weight_format format)
{
    const tsr_synthetic_tensor weight = {
        .dtype = tsr_format_row_of(format)->weight_dtype,
        .kind = kind_of_weight(l->role, format),
        .rank = 2,
        .shape = {l->out, tsr_weight_columns(format, l->in)},
    };
    return add_rows(set, module, ".weight", &weight);
}

static tsr_status add_scales(tsr_tensor_set *set, const tsr_linear_plan *l, const char *module,
                             tsr_weight_format format)
{
    const tsr_format_row *row = tsr_format_row_of(format);
    const tsr_scale_shape shape = tsr_scale_shape_of(format, l->out, l->in);
    const bool codes = row->scale_dtype == TSR_DTYPE_F8_E4M3;
    const tsr_synthetic_tensor scales = {
        .dtype = row->scale_dtype,
        .kind = codes ? TSR_RANDOM_SCALE_E4M3 : TSR_RANDOM_F32,
        .rank = row->scales == TSR_SCALES_CHANNEL ? 1 : 2,
        .shape = {shape.rows, shape.columns},
        .centre = TSR_RANDOM_E4M3_SCALE,
    };
    if (row->scales == TSR_SCALES_NONE)
        return TSR_OK;
    if (row->scales == TSR_SCALES_TENSOR)
        return add_f32(set, module, ".weight_scale", TSR_RANDOM_E4M3_SCALE, 0);
    const tsr_status st = add_rows(set, module, ".weight_scale", &scales);
    return st == TSR_OK && row->global_scale
               ? add_f32(set, module, ".weight_scale_2", TSR_RANDOM_E2M1_SCALE, 0)
               : st;
}

static tsr_status add_linear(tsr_tensor_set *set, const tsr_linear_plan *l, bool bias,
                             tsr_algo algo)
{
    const tsr_algo_row *row = tsr_algo_row_of(algo);
    const tsr_synthetic_tensor bias_row = {
        .dtype = TSR_DTYPE_BF16, .kind = TSR_RANDOM_WEIGHT_BF16, .rank = 1, .shape = {l->out, 0}};
    char module[TSR_MODULE_NAME_BYTES];

    tsr_module_name(l, module);
    tsr_status st = add_weight(set, l, module, row->format);
    if (st == TSR_OK)
        st = add_scales(set, l, module, row->format);
    if (st == TSR_OK && tsr_activation_is_static(row->activation))
        st = add_f32(set, module, ".input_scale",
                     row->format == TSR_WEIGHT_NVFP4
                         ? largest_activation / (largest_e4m3 * largest_e2m1)
                         : largest_activation / largest_e4m3,
                     input_of(l));
    if (st == TSR_OK && bias)
        st = add_rows(set, module, ".bias", &bias_row);
    return st;
}

/* Experts by block, everything else by its own name. */
static tsr_status declare(tsr_tensor_set *set, const tsr_linear_plan *l, tsr_algo algo)
{
    char name[TSR_MODULE_NAME_BYTES];

    if (algo == TSR_ALGO_NONE || l->expert > 0 || l->role == TSR_ROLE_EXPERT_UP ||
        l->role == TSR_ROLE_EXPERT_DOWN)
        return TSR_OK;
    tsr_module_name(l, name);
    if (l->role == TSR_ROLE_EXPERT_GATE)
        (void)snprintf(name, sizeof(name), "model.layers.%d.mlp.experts", l->layer);
    const char *kept = tsr_arena_text(set->memory, name, strlen(name));
    if (kept == NULL)
        return TSR_ERR_MEMORY;
    set->declared[set->declared_count++] = (tsr_synthetic_declared){.name = kept, .algo = algo};
    return TSR_OK;
}

/* Layers in front of this one that have the module as well. */
static int32_t ordinal_of(const tsr_model_facts *model, int32_t layer, tsr_synthetic_module module)
{
    const bool sparse = module == TSR_SYNTHETIC_EXPERTS || module == TSR_SYNTHETIC_SHARED;
    int32_t ordinal = 0;

    for (int32_t l = 0; l < layer; l++)
        ordinal += module == TSR_SYNTHETIC_ATTENTION || model->sparse[l] == sparse;
    return ordinal;
}

static tsr_status add_linears(const tsr_model_facts *model,
                              const tsr_synthetic_precision *precision, tsr_tensor_set *set)
{
    tsr_linear_plan *linears = NULL;
    int32_t count = 0;

    tsr_status st = tsr_modules_list(model, &linears, &count);
    if (st == TSR_OK) {
        set->declared = calloc((size_t)count, sizeof(*set->declared));
        st = set->declared != NULL ? TSR_OK : TSR_ERR_MEMORY;
    }
    for (int32_t i = 0; i < count && st == TSR_OK; i++) {
        const tsr_linear_plan *l = &linears[i];
        const tsr_synthetic_module module = tsr_synthetic_module_of(l->role);
        const tsr_algo algo =
            tsr_synthetic_algo(precision, module, ordinal_of(model, l->layer, module));
        st = add_linear(set, l, tsr_module_has_bias(model, l->role), algo);
        if (st == TSR_OK)
            st = declare(set, l, algo);
    }
    free(linears);
    return st;
}

static tsr_status add_vectors(const tsr_model_facts *model, tsr_tensor_set *set)
{
    tsr_vector_plan *vectors = NULL;
    int32_t count = 0;

    tsr_status st = tsr_vectors_list(model, &vectors, &count);
    for (int32_t i = 0; i < count && st == TSR_OK; i++) {
        const bool bias = vectors[i].role == TSR_ROLE_ROUTER_BIAS;
        const tsr_synthetic_tensor like = {
            .dtype = bias ? TSR_DTYPE_F32 : TSR_DTYPE_BF16,
            .kind = bias ? TSR_RANDOM_F32 : TSR_RANDOM_NORM_BF16,
            .rank = 1,
            .shape = {vectors[i].elements, 0},
            .centre = 0.1F,
        };
        char name[TSR_MODULE_NAME_BYTES];
        if (tsr_role_is_kv_scale(vectors[i].role))
            continue;
        tsr_vector_name(&vectors[i], name);
        st = add_rows(set, name, "", &like);
    }
    free(vectors);
    return st;
}

/* The order of the safetensors library: wide elements first, then by name. */
static int by_width_and_name(const void *a, const void *b)
{
    const tsr_synthetic_tensor *x = a;
    const tsr_synthetic_tensor *y = b;
    const size_t x_bytes = tsr_dtype_bytes(x->dtype);
    const size_t y_bytes = tsr_dtype_bytes(y->dtype);

    if (x_bytes != y_bytes)
        return x_bytes > y_bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static void place_file(tsr_tensor_set *set, int32_t first, int32_t last)
{
    uint64_t offset = 0;

    qsort(set->tensors + first, (size_t)(last - first), sizeof(*set->tensors), by_width_and_name);
    for (int32_t i = first; i < last; i++) {
        set->tensors[i].file = set->files;
        set->tensors[i].offset = offset;
        offset += set->tensors[i].bytes;
    }
    set->files++;
}

static void place_tensors(tsr_tensor_set *set, uint64_t file_bytes)
{
    uint64_t used = 0;
    int32_t first = 0;

    for (int32_t i = 0; i < set->count; i++) {
        tsr_synthetic_tensor *t = &set->tensors[i];
        t->bytes = tsr_dtype_bytes(t->dtype);
        for (int32_t d = 0; d < t->rank; d++)
            t->bytes *= (uint64_t)t->shape[d];
        if (i > first && used + t->bytes > file_bytes) {
            place_file(set, first, i);
            first = i;
            used = 0;
        }
        used += t->bytes;
        set->bytes += t->bytes;
    }
    place_file(set, first, set->count);
}

tsr_status tsr_tensor_set_fill(const tsr_model_facts *model,
                               const tsr_synthetic_precision *precision, uint64_t file_bytes,
                               tsr_tensor_set *set)
{
    tsr_status st = tsr_arena_open((size_t)1 << 20, &set->memory);

    if (st == TSR_OK)
        st = add_linears(model, precision, set);
    if (st == TSR_OK)
        st = add_vectors(model, set);
    if (st == TSR_OK)
        place_tensors(set, file_bytes);
    return st;
}

void tsr_tensor_set_close(tsr_tensor_set *set)
{
    free(set->tensors);
    free(set->declared);
    tsr_arena_close(set->memory);
    *set = (tsr_tensor_set){0};
}
