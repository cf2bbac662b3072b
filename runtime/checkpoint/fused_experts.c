/* Only names are looked at until there is something to split, for nearly no checkpoint has it. */
#include "runtime/checkpoint/fused_experts.h"

#include "runtime/checkpoint/module_name.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = 96, MOST_PARTS = 2 };

/* What a fused tensor holds of every expert, one after the other. */
typedef struct fused_kind {
    const char *rest; /* of the name, behind the layer */
    const char *part[MOST_PARTS];
} fused_kind;

static const fused_kind kinds[] = {
    {"mlp.experts.gate_up_proj", {"gate_proj", "up_proj"}},
    {"mlp.experts.down_proj", {"down_proj", NULL}},
};

static int32_t parts_of(const fused_kind *kind)
{
    return kind->part[1] != NULL ? 2 : 1;
}

/* NULL for all other tensors, and for those of layers that the model does not have. */
static const fused_kind *kind_of(const tsr_tensor *t, const tsr_model_facts *model,
                                 int32_t *ret_layer)
{
    const char *rest = NULL;

    if (!tsr_name_layer(t->name, ret_layer, &rest) || *ret_layer >= model->layers)
        return NULL;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(rest, kinds[i].rest) == 0)
            return &kinds[i];
    }
    return NULL;
}

static tsr_status check(const tsr_tensor_list *list, const tsr_tensor *t, const fused_kind *kind,
                        const tsr_model_facts *model, tsr_problems *problems)
{
    const int64_t rows =
        parts_of(kind) == 2 ? 2 * (int64_t)model->expert_intermediate : (int64_t)model->hidden;
    const int64_t columns = parts_of(kind) == 2 ? model->hidden : model->expert_intermediate;
    const char *file = list->index.files[t->file];

    if (!tsr_dtype_is_plain(t->dtype)) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%s: tensor \"%s\": holds all experts of a layer in %s; fused experts are "
                         "served unquantized only: export with a tensor for each expert",
                         file, t->name, tsr_dtype_name(t->dtype));
        return TSR_ERR_CHECKPOINT;
    }
    if (t->rank == 3 && t->shape[0] == model->experts && t->shape[1] == rows &&
        t->shape[2] == columns)
        return TSR_OK;
    tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                     "%s: tensor \"%s\": holds all experts of a layer, of rank %d and [%" PRId64
                     ", %" PRId64 ", %" PRId64 "] where [%d, %" PRId64 ", %" PRId64
                     "] is served: export with a tensor for each expert",
                     file, t->name, t->rank, t->shape[0], t->shape[1], t->shape[2], model->experts,
                     rows, columns);
    return TSR_ERR_CHECKPOINT;
}

/* How many tensors the list has when all are split. */
static tsr_status count_split(const tsr_tensor_list *list, const tsr_model_facts *model,
                              tsr_problems *problems, size_t *ret_count)
{
    tsr_status st = TSR_OK;
    size_t count = list->count;
    int32_t layer = 0;

    for (size_t i = 0; i < list->count; i++) {
        const fused_kind *kind = kind_of(&list->tensors[i], model, &layer);
        if (kind == NULL)
            continue;
        if (check(list, &list->tensors[i], kind, model, problems) != TSR_OK)
            st = TSR_ERR_CHECKPOINT;
        count += (size_t)model->experts * (size_t)parts_of(kind) - 1;
    }
    *ret_count = count;
    return st;
}

/* One expert's part. */
static tsr_status cut(const tsr_tensor *from, const char *name, int64_t piece, int64_t pieces,
                      tsr_arena *memory, tsr_tensor *ret_tensor)
{
    const char *kept = tsr_arena_text(memory, name, strlen(name));
    const uint64_t bytes = from->bytes / (uint64_t)pieces;
    const int64_t rows = from->shape[0] * from->shape[1] / pieces;

    if (kept == NULL)
        return TSR_ERR_MEMORY;
    *ret_tensor = (tsr_tensor){
        .name = kept,
        .dtype = from->dtype,
        .rank = 2,
        .shape = {rows, from->shape[2]},
        .file = from->file,
        .offset = from->offset + (uint64_t)piece * bytes,
        .bytes = bytes,
    };
    return TSR_OK;
}

static tsr_status split(const tsr_tensor *from, const fused_kind *kind, int32_t layer,
                        tsr_arena *memory, tsr_tensor *to)
{
    const int32_t parts = parts_of(kind);
    const int64_t pieces = from->shape[0] * parts;

    for (int64_t piece = 0; piece < pieces; piece++) {
        char name[NAME_BYTES];
        (void)snprintf(name, sizeof(name),
                       "model.layers.%" PRId32 ".mlp.experts.%" PRId64 ".%s.weight", layer,
                       piece / parts, kind->part[piece % parts]);
        const tsr_status st = cut(from, name, piece, pieces, memory, &to[piece]);
        if (st != TSR_OK)
            return st;
    }
    return TSR_OK;
}

tsr_status tsr_fused_experts_split(tsr_tensor_list *list, const tsr_model_facts *model,
                                   tsr_arena *memory, tsr_problems *problems)
{
    size_t count = 0;
    const tsr_status counted = count_split(list, model, problems, &count);
    if (counted != TSR_OK || count == list->count)
        return counted;

    tsr_tensor *tensors = tsr_arena_array(memory, count, sizeof(*tensors));
    if (tensors == NULL)
        return TSR_ERR_MEMORY;
    size_t used = 0;
    for (size_t i = 0; i < list->count; i++) {
        const tsr_tensor *t = &list->tensors[i];
        int32_t layer = 0;
        const fused_kind *kind = kind_of(t, model, &layer);
        if (kind == NULL) {
            tensors[used++] = *t;
            continue;
        }
        const tsr_status st = split(t, kind, layer, memory, &tensors[used]);
        if (st != TSR_OK)
            return st;
        used += (size_t)model->experts * (size_t)parts_of(kind);
    }
    list->tensors = tensors;
    list->count = used;
    return TSR_OK;
}
