/* The bounds a plan must keep: every shape positive, every index inside what it points into. */
#include "proto/plan_check.h"

#include <math.h>
#include <string.h>

static bool within(int32_t value, int32_t low, int32_t high)
{
    return value >= low && value <= high;
}

/* The longest beginning of a file that ranks are sent to read: a header of 100 MiB and its length.
 */
enum { LONGEST_HEAD = (100 << 20) + 8 };

/* Far above every model, far below what would overflow a product of two. */
enum { LARGEST_DIMENSION = 1 << 24 };

static bool is_dimension(int32_t value)
{
    return within(value, 1, LARGEST_DIMENSION);
}

static bool experts_are_sound(const tsr_model_facts *m)
{
    if (m->experts == 0)
        return true;
    return within(m->experts, 1, TSR_MAX_EXPERTS) && is_dimension(m->expert_intermediate) &&
           within(m->top_k, 1, TSR_MAX_TOP_K) && m->top_k <= m->experts &&
           within(m->groups, 1, m->experts) && within(m->top_groups, 1, m->groups);
}

const char *tsr_plan_check_model(const tsr_model_facts *m)
{
    if (!within(m->layers, 1, TSR_MAX_LAYERS) || !within(m->mtp_layers, 0, TSR_MAX_LAYERS))
        return "the number of layers is out of bounds";
    if (!is_dimension(m->hidden) || !is_dimension(m->vocab) || !is_dimension(m->q_heads) ||
        !is_dimension(m->kv_heads) || !is_dimension(m->head_dim) || !is_dimension(m->max_positions))
        return "a dimension of the model is out of bounds";
    if (m->q_heads % m->kv_heads != 0 || !within(m->rotary_dim, 0, m->head_dim) ||
        m->rotary_dim % 2 != 0)
        return "the attention heads do not fit together";
    if (!within(m->dense_intermediate, 0, LARGEST_DIMENSION) ||
        !within(m->shared_intermediate, 0, LARGEST_DIMENSION))
        return "an intermediate size is out of bounds";
    if (!experts_are_sound(m))
        return "the experts' shape is out of bounds";
    if (!isfinite(m->routed_scale) || !isfinite(m->norm_eps) || !isfinite(m->rope_theta))
        return "a constant of the model is not finite";
    for (int32_t layer = 0; layer < m->layers; layer++)
        if (m->sparse[layer] && m->experts == 0)
            return "a sparse layer in a model without experts";
    return NULL;
}

static const char *check_limits(const tsr_plan *plan)
{
    const tsr_engine_limits *l = &plan->limits;
    const int32_t positive[] = {l->max_model_len,   l->max_num_seqs,    l->max_batched_tokens,
                                l->exchange_tokens, l->kv_block_tokens, l->logit_rows};

    for (size_t i = 0; i < sizeof(positive) / sizeof(positive[0]); i++)
        if (!is_dimension(positive[i]))
            return "a limit is out of bounds";
    if (l->kv_blocks < 0 || !within(l->threads, 1, 4096))
        return "a limit is out of bounds";
    if (!within(plan->token_ids, 0, plan->model.vocab))
        return "the number of token ids exceeds the vocabulary";
    return NULL;
}

static bool place_is_sound(const tsr_plan *plan, const tsr_tensor_place *place)
{
    if (place->file == TSR_NO_FILE)
        return true;
    if (!within(place->file, 0, plan->file_count - 1))
        return false;
    const uint64_t end = plan->marks[place->file].bytes;
    return place->offset <= end && place->bytes <= end - place->offset;
}

static bool linear_is_sound(const tsr_plan *plan, const tsr_linear_plan *l)
{
    const bool of_expert = l->role == TSR_ROLE_EXPERT_GATE || l->role == TSR_ROLE_EXPERT_UP ||
                           l->role == TSR_ROLE_EXPERT_DOWN;

    return tsr_role_is_linear(l->role) && within(l->layer, -1, plan->model.layers - 1) &&
           within(l->expert, of_expert ? 0 : -1, of_expert ? plan->model.experts - 1 : -1) &&
           is_dimension(l->out) && is_dimension(l->in) && l->weight.file != TSR_NO_FILE &&
           place_is_sound(plan, &l->weight) && place_is_sound(plan, &l->scale) &&
           place_is_sound(plan, &l->global_scale) && place_is_sound(plan, &l->input_scale) &&
           place_is_sound(plan, &l->pre_quant_scale) && place_is_sound(plan, &l->bias);
}

static const char *check_tensors(const tsr_plan *plan)
{
    for (int32_t i = 0; i < plan->linear_count; i++)
        if (!linear_is_sound(plan, &plan->linears[i]))
            return "a linear is out of bounds";
    for (int32_t i = 0; i < plan->vector_count; i++) {
        const tsr_vector_plan *v = &plan->vectors[i];
        if (tsr_role_is_linear(v->role) || !within(v->layer, -1, plan->model.layers - 1) ||
            !is_dimension(v->elements) || v->place.file == TSR_NO_FILE ||
            !place_is_sound(plan, &v->place))
            return "a vector is out of bounds";
    }
    return NULL;
}

/* Names stay inside the folder: a plan may not reach for other files. */
static const char *check_files(const tsr_plan *plan)
{
    if (plan->folder[0] == '\0')
        return "the folder is empty";
    for (int32_t i = 0; i < plan->file_count; i++) {
        const char *name = plan->files[i];
        if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
            return "a file name leaves the folder";
        if (plan->marks[i].bytes > INT64_MAX || plan->marks[i].head_bytes > plan->marks[i].bytes ||
            plan->marks[i].head_bytes > LONGEST_HEAD)
            return "the mark of a file is out of bounds";
    }
    return NULL;
}

static const char *check_placement(const tsr_plan *plan)
{
    const int32_t experts = plan->model.experts;

    for (int32_t layer = 0; layer < plan->model.layers; layer++) {
        const bool sparse = plan->model.sparse[layer];
        const int32_t *row = plan->expert_rank + (size_t)layer * (size_t)experts;
        for (int32_t e = 0; e < experts; e++)
            if (!within(row[e], sparse ? 0 : -1, sparse ? plan->ranks - 1 : -1))
                return "an expert is placed on a rank that does not exist";
    }
    return NULL;
}

const char *tsr_plan_check(const tsr_plan *plan)
{
    const char *wrong = tsr_plan_check_model(&plan->model);

    if (wrong == NULL && !within(plan->ranks, 1, TSR_PLAN_MAX_RANKS))
        wrong = "the number of ranks is out of bounds";
    if (wrong == NULL)
        wrong = check_limits(plan);
    if (wrong == NULL)
        wrong = check_files(plan);
    if (wrong == NULL)
        wrong = check_tensors(plan);
    if (wrong == NULL)
        wrong = check_placement(plan);
    return wrong;
}
