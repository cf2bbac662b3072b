/*
 * The experts of a layer as one object: everything about them is looked at here, once, when they
 * are loaded, so that a step looks at nothing.
 *
 *   source (host)  mlps ----.  local_of --.  tag_of --.
 *                           v             v           v
 *   image  (host)       | mlps [local] | local_of [E] | tag_of [E] |     each on 64 bytes
 *                           |  put, in the order of the stream
 *   memory (device)         v
 *                       | mlps [local] | local_of [E] | tag_of [E] |  <- what blocks read
 *
 * All local experts have the same shape, and each of gate, up and down one format and activation,
 * so that a backend can choose one kernel for all. Scales are each expert's own.
 */
#include "kernels/experts.h"

#include "kernels/checks.h"
#include "kernels/device_ops.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"

#include <string.h>

/* Where the tables lie, in bytes from their beginning. */
typedef struct table_places {
    size_t local_of;
    size_t tag_of;
    size_t end;
} table_places;

static table_places places_of(int32_t experts, int32_t local)
{
    const size_t ids = tsr_aligned((size_t)experts * sizeof(int32_t), TSR_ALIGNMENT);
    table_places p = {.local_of = tsr_aligned((size_t)local * sizeof(tsr_mlp), TSR_ALIGNMENT)};

    p.tag_of = p.local_of + ids;
    p.end = p.tag_of + ids;
    return p;
}

uint64_t tsr_experts_bytes(int32_t experts, int32_t local)
{
    return places_of(experts, local).end;
}

size_t tsr_packed_row_bytes(size_t activation_bytes, int32_t hidden, int32_t top_k)
{
    const size_t bytes = (size_t)hidden * activation_bytes + (size_t)top_k * sizeof(int32_t);

    return tsr_aligned(bytes, TSR_ROW_ALIGNMENT);
}

static bool groups_are_right(const tsr_router *router, int32_t experts)
{
    if (router->kind == TSR_ROUTER_SOFTMAX)
        return true;
    return router->groups >= 1 && experts % router->groups == 0 && router->top_groups >= 1 &&
           router->top_groups <= router->groups &&
           router->top_k <= experts / router->groups * router->top_groups;
}

static bool router_fits(const tsr_device *device, const tsr_experts_source *source)
{
    const tsr_router *router = &source->router;
    const tsr_linear *gate = router->gate;

    return tsr_check(tsr_check_linear(device, gate) && tsr_check_float_format(gate->format) &&
                         gate->activation == TSR_ACTIVATION_NONE && gate->pre_quant_scale == NULL,
                     "router", "the gate is not an unquantized linear that fits") &&
           tsr_check(gate->in == source->hidden && gate->out == source->experts, "router",
                     "the gate does not lead from a row to the experts") &&
           tsr_check(router->kind < TSR_ROUTER_KIND_COUNT && router->top_k >= 1 &&
                         router->top_k <= source->experts && router->top_k <= TSR_MAX_TOP_K &&
                         router->top_k <= device->shape.top_k,
                     "router", "top_k is not in 1..experts, or more than reserved") &&
           tsr_check(groups_are_right(router, source->experts), "router",
                     "groups do not divide the experts or hold too few");
}

static bool same_kind(const tsr_linear *a, const tsr_linear *b)
{
    return a->format == b->format && a->activation == b->activation && a->in == b->in &&
           a->out == b->out;
}

static bool linear_is_like(int32_t id, const char *name, const tsr_linear *linear,
                           const tsr_linear *first)
{
    if (same_kind(linear, first))
        return true;
    tsr_log(TSR_LOG_ERROR,
            "experts: %s of expert %d is [%d, %d] %s with activation %s, that of the first here "
            "[%d, %d] %s with %s",
            name, (int)id, (int)linear->out, (int)linear->in,
            tsr_weight_format_name(linear->format), tsr_activation_name(linear->activation),
            (int)first->out, (int)first->in, tsr_weight_format_name(first->format),
            tsr_activation_name(first->activation));
    return false;
}

/* `first` is that of the lowest id here. */
static bool mlp_fits(const tsr_device *device, const tsr_experts_source *source, int32_t id,
                     const tsr_mlp *first)
{
    const tsr_mlp *mlp = &source->mlps[source->local_of[id]];

    if (!tsr_check_mlp(device, mlp, source->hidden)) {
        tsr_log(TSR_LOG_ERROR,
                "experts: expert %d, gate [%d, %d], does not fit rows of %d or the workspace",
                (int)id, (int)mlp->gate.out, (int)mlp->gate.in, (int)source->hidden);
        return false;
    }
    return linear_is_like(id, "gate", &mlp->gate, &first->gate) &&
           linear_is_like(id, "up", &mlp->up, &first->up) &&
           linear_is_like(id, "down", &mlp->down, &first->down);
}

/* Every local expert is that of one id, and fits. */
static bool locals_fit(const tsr_device *device, const tsr_experts_source *source)
{
    bool seen[TSR_MAX_EXPERTS] = {false};
    const tsr_mlp *first = NULL;
    int32_t found = 0;

    for (int32_t id = 0; id < source->experts; id++) {
        const int32_t local = source->local_of[id];
        if (local == -1)
            continue;
        if (local < 0 || local >= source->local || seen[local]) {
            tsr_log(TSR_LOG_ERROR,
                    "experts: expert %d is local expert %d, of %d here or of another already",
                    (int)id, (int)local, (int)source->local);
            return false;
        }
        seen[local] = true;
        found++;
        first = first != NULL ? first : &source->mlps[local];
        if (!mlp_fits(device, source, id, first))
            return false;
    }
    return tsr_check(found == source->local, "experts", "a local expert has no id");
}

static bool source_fits(const tsr_device *device, const tsr_experts_source *source)
{
    const tsr_work_shape *most = &device->shape;

    return tsr_check(tsr_check_hidden(device, source->hidden), "experts",
                     "rows are not a multiple of 16 or wider than reserved") &&
           tsr_check(source->experts >= 1 && source->experts <= most->max_experts &&
                         source->experts <= TSR_MAX_EXPERTS,
                     "experts", "there are none, or more than reserved") &&
           tsr_check(tsr_check_within(source->local, source->experts), "experts",
                     "more are here than there are") &&
           router_fits(device, source) && locals_fit(device, source);
}

static tsr_linear_kind kind_of(const tsr_linear *linear)
{
    return (tsr_linear_kind){.format = linear->format, .activation = linear->activation};
}

/* Whether two linears make the same of a row before they multiply it. */
static bool sees_alike(const tsr_linear *a, const tsr_linear *b)
{
    return a->activation == b->activation && a->input_scale == b->input_scale &&
           a->pre_quant_scale == b->pre_quant_scale;
}

static bool gates_are_ups(const tsr_experts_source *source)
{
    for (int32_t i = 0; i < source->local; i++) {
        if (!sees_alike(&source->mlps[i].gate, &source->mlps[i].up))
            return false;
    }
    return true;
}

static bool gates_are_alike(const tsr_experts_source *source)
{
    for (int32_t i = 0; i < source->local; i++) {
        if (!sees_alike(&source->mlps[i].gate, &source->mlps[0].gate))
            return false;
    }
    return true;
}

/* What the host sees, with the tables at `memory`. */
static tsr_experts describe(const tsr_device *device, const tsr_experts_source *source,
                            const unsigned char *memory)
{
    const table_places at = places_of(source->experts, source->local);
    tsr_experts e = {
        .router = source->router,
        .row_bytes = tsr_packed_row_bytes(device->table->activation_bytes, source->hidden,
                                          source->router.top_k),
        .experts = source->experts,
        .local = source->local,
        .top_k = source->router.top_k,
        .hidden = source->hidden,
        .mlps = (const tsr_mlp *)(const void *)memory,
        .local_of = (const int32_t *)(const void *)(memory + at.local_of),
        .tag_of = (const int32_t *)(const void *)(memory + at.tag_of),
    };

    if (source->local > 0) {
        e.intermediate = source->mlps[0].gate.out;
        e.gate = kind_of(&source->mlps[0].gate);
        e.up = kind_of(&source->mlps[0].up);
        e.down = kind_of(&source->mlps[0].down);
        e.gate_is_up = gates_are_ups(source);
        e.gates_alike = e.gate_is_up && gates_are_alike(source);
        e.gate_input_scale = source->mlps[0].gate.input_scale;
        e.gate_pre_quant_scale = source->mlps[0].gate.pre_quant_scale;
    }
    return e;
}

static void fill_image(const tsr_experts_source *source, unsigned char *image)
{
    const table_places at = places_of(source->experts, source->local);
    const size_t id_bytes = (size_t)source->experts * sizeof(int32_t);

    if (source->local > 0)
        memcpy(image, source->mlps, (size_t)source->local * sizeof(*source->mlps));
    memcpy(image + at.local_of, source->local_of, id_bytes);
    memcpy(image + at.tag_of, source->tag_of, id_bytes);
}

tsr_status tsr_experts_make(tsr_device *device, const tsr_experts_source *source, void *image,
                            void *memory, tsr_stream stream, tsr_experts *ret_experts)
{
    if (!source_fits(device, source))
        return TSR_ERR_ARG;
    fill_image(source, image);
    const tsr_status st = tsr_device_put(
        device, memory, image, (size_t)tsr_experts_bytes(source->experts, source->local), stream);
    if (st == TSR_OK)
        *ret_experts = describe(device, source, memory);
    return st;
}
