/*
 * The plan as bytes: a fixed head, then the protobuf message of tessera.proto.
 *
 *   | magic 4 | version 4 | digest 8 | message ... |
 *
 * The digest is XXH3 of the message, so that a changed byte anywhere is found before anything of it
 * is believed. Little-endian hosts only, as everything that travels here.
 */
#include "proto/plan.h"

#include "proto/plan_check.h"
#include "proto/tessera.pb-c.h"
#include "runtime/base/arena.h"
#include "runtime/base/log.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { HEAD_BYTES = 16, PLAN_MAGIC = 0x4c505354, PLAN_VERSION = 2 };

/* Columns come from one arena; `failed` remembers that one did not fit. */
typedef struct columns {
    tsr_arena *arena;
    bool failed;
} columns;

static void *take_column(columns *c, size_t count, size_t size, size_t *ret_count)
{
    void *memory;

    *ret_count = 0;
    if (count == 0 || c->failed)
        return NULL;
    memory = tsr_arena_array(c->arena, count, size);
    if (memory == NULL)
        c->failed = true;
    else
        *ret_count = count;
    return memory;
}

#define TAKE(c, message, field, count)                                                             \
    ((message)->field = take_column((c), (count), sizeof(*(message)->field), &(message)->n_##field))

static Tessera__Places *take_places(columns *c, size_t count)
{
    size_t one;
    Tessera__Places *places = take_column(c, 1, sizeof(*places), &one);

    if (places == NULL)
        return NULL;
    tessera__places__init(places);
    TAKE(c, places, file, count);
    TAKE(c, places, dtype, count);
    TAKE(c, places, offset, count);
    TAKE(c, places, bytes, count);
    return places;
}

/* A tensor that does not exist has no dtype, offset or size: one form, one digest. */
static void put_place(Tessera__Places *places, size_t i, const tsr_tensor_place *place)
{
    const bool exists = place->file != TSR_NO_FILE;

    places->file[i] = place->file;
    places->dtype[i] = exists ? (uint32_t)place->dtype : 0;
    places->offset[i] = exists ? place->offset : 0;
    places->bytes[i] = exists ? place->bytes : 0;
}

static void put_linears(columns *c, const tsr_plan *plan, Tessera__Linears *w)
{
    const size_t count = (size_t)plan->linear_count;

    TAKE(c, w, layer, count);
    TAKE(c, w, role, count);
    TAKE(c, w, expert, count);
    TAKE(c, w, algo, count);
    TAKE(c, w, format, count);
    TAKE(c, w, activation, count);
    TAKE(c, w, out, count);
    TAKE(c, w, in, count);
    w->weight = take_places(c, count);
    w->scale = take_places(c, count);
    w->global_scale = take_places(c, count);
    w->input_scale = take_places(c, count);
    w->pre_quant_scale = take_places(c, count);
    w->bias = take_places(c, count);
    for (size_t i = 0; i < count && !c->failed; i++) {
        const tsr_linear_plan *l = &plan->linears[i];
        w->layer[i] = l->layer;
        w->role[i] = (uint32_t)l->role;
        w->expert[i] = l->expert;
        w->algo[i] = (uint32_t)l->algo;
        w->format[i] = (uint32_t)l->format;
        w->activation[i] = (uint32_t)l->activation;
        w->out[i] = l->out;
        w->in[i] = l->in;
        put_place(w->weight, i, &l->weight);
        put_place(w->scale, i, &l->scale);
        put_place(w->global_scale, i, &l->global_scale);
        put_place(w->input_scale, i, &l->input_scale);
        put_place(w->pre_quant_scale, i, &l->pre_quant_scale);
        put_place(w->bias, i, &l->bias);
    }
}

static void put_vectors(columns *c, const tsr_plan *plan, Tessera__Vectors *w)
{
    const size_t count = (size_t)plan->vector_count;

    TAKE(c, w, layer, count);
    TAKE(c, w, role, count);
    TAKE(c, w, elements, count);
    w->place = take_places(c, count);
    for (size_t i = 0; i < count && !c->failed; i++) {
        w->layer[i] = plan->vectors[i].layer;
        w->role[i] = (uint32_t)plan->vectors[i].role;
        w->elements[i] = plan->vectors[i].elements;
        put_place(w->place, i, &plan->vectors[i].place);
    }
}

static void put_budget(columns *c, const tsr_plan *plan, Tessera__Budget *w)
{
    const size_t count = (size_t)plan->ranks;

    TAKE(c, w, weights_bytes, count);
    TAKE(c, w, kv_bytes, count);
    TAKE(c, w, workspace_bytes, count);
    TAKE(c, w, buffers_bytes, count);
    TAKE(c, w, loading_bytes, count);
    for (size_t i = 0; i < count && !c->failed; i++) {
        w->weights_bytes[i] = plan->budget[i].weights_bytes;
        w->kv_bytes[i] = plan->budget[i].kv_bytes;
        w->workspace_bytes[i] = plan->budget[i].workspace_bytes;
        w->buffers_bytes[i] = plan->budget[i].buffers_bytes;
        w->loading_bytes[i] = plan->budget[i].loading_bytes;
    }
}

static void put_marks(columns *c, const tsr_plan *plan, Tessera__Marks *w)
{
    const size_t count = (size_t)plan->file_count;

    TAKE(c, w, bytes, count);
    TAKE(c, w, head_bytes, count);
    TAKE(c, w, head_digest, count);
    for (size_t i = 0; i < count && !c->failed; i++) {
        w->bytes[i] = plan->marks[i].bytes;
        w->head_bytes[i] = plan->marks[i].head_bytes;
        w->head_digest[i] = plan->marks[i].head_digest;
    }
}

static void put_model(columns *c, const tsr_model_facts *m, Tessera__Model *w)
{
    w->family = (uint32_t)m->family;
    w->router = (uint32_t)m->router;
    w->layers = m->layers;
    w->mtp_layers = m->mtp_layers;
    w->hidden = m->hidden;
    w->vocab = m->vocab;
    w->q_heads = m->q_heads;
    w->kv_heads = m->kv_heads;
    w->head_dim = m->head_dim;
    w->rotary_dim = m->rotary_dim;
    w->dense_intermediate = m->dense_intermediate;
    w->expert_intermediate = m->expert_intermediate;
    w->shared_intermediate = m->shared_intermediate;
    w->experts = m->experts;
    w->top_k = m->top_k;
    w->groups = m->groups;
    w->top_groups = m->top_groups;
    w->max_positions = m->max_positions;
    w->norm_top_k = m->norm_top_k;
    w->qk_norm = m->qk_norm;
    w->qkv_bias = m->qkv_bias;
    w->tied_head = m->tied_head;
    w->routed_scale = m->routed_scale;
    w->norm_eps = m->norm_eps;
    w->rope_theta = m->rope_theta;
    TAKE(c, w, sparse, (size_t)m->layers);
    TAKE(c, w, eos, (size_t)m->eos_count);
    for (size_t i = 0; i < w->n_sparse; i++)
        w->sparse[i] = m->sparse[i];
    for (size_t i = 0; i < w->n_eos; i++)
        w->eos[i] = m->eos[i];
}

static void put_limits(const tsr_engine_limits *l, Tessera__Limits *w)
{
    w->max_model_len = l->max_model_len;
    w->max_num_seqs = l->max_num_seqs;
    w->max_batched_tokens = l->max_batched_tokens;
    w->exchange_tokens = l->exchange_tokens;
    w->kv_block_tokens = l->kv_block_tokens;
    w->kv_blocks = l->kv_blocks;
    w->logit_rows = l->logit_rows;
    w->threads = l->threads;
}

/* Writes head and message; the digest becomes the plan's. */
static tsr_status pack_message(const Tessera__Plan *message, tsr_plan *plan,
                               unsigned char **ret_bytes, size_t *ret_count)
{
    const uint32_t head[2] = {PLAN_MAGIC, PLAN_VERSION};
    const size_t count = tessera__plan__get_packed_size(message);
    unsigned char *bytes = malloc(HEAD_BYTES + count);

    if (bytes == NULL)
        return TSR_ERR_MEMORY;
    tessera__plan__pack(message, bytes + HEAD_BYTES);
    plan->digest = XXH3_64bits(bytes + HEAD_BYTES, count);
    memcpy(bytes, head, sizeof(head));
    memcpy(bytes + sizeof(head), &plan->digest, sizeof(plan->digest));
    *ret_bytes = bytes;
    *ret_count = HEAD_BYTES + count;
    return TSR_OK;
}

tsr_status tsr_plan_pack(tsr_plan *plan, unsigned char **ret_bytes, size_t *ret_count)
{
    Tessera__Plan message;
    Tessera__Model model = TESSERA__MODEL__INIT;
    Tessera__Limits limits = TESSERA__LIMITS__INIT;
    Tessera__Linears linears = TESSERA__LINEARS__INIT;
    Tessera__Vectors vectors = TESSERA__VECTORS__INIT;
    Tessera__Budget budget = TESSERA__BUDGET__INIT;
    Tessera__Marks marks = TESSERA__MARKS__INIT;
    columns c = {NULL, false};
    tsr_status st = tsr_arena_open((size_t)1 << 20, &c.arena);

    if (st != TSR_OK)
        return st;
    tessera__plan__init(&message);
    put_model(&c, &plan->model, &model);
    put_limits(&plan->limits, &limits);
    put_linears(&c, plan, &linears);
    put_vectors(&c, plan, &vectors);
    put_budget(&c, plan, &budget);
    put_marks(&c, plan, &marks);
    message.model = &model;
    message.limits = &limits;
    message.linears = &linears;
    message.vectors = &vectors;
    message.budget = &budget;
    message.marks = &marks;
    message.kv_format = (uint32_t)plan->kv_format;
    message.token_ids = plan->token_ids;
    message.ranks = plan->ranks;
    message.folder = plan->folder;
    message.files = plan->files;
    message.n_files = (size_t)plan->file_count;
    message.expert_rank = plan->expert_rank;
    message.n_expert_rank = (size_t)plan->model.layers * (size_t)plan->model.experts;
    st = c.failed ? TSR_ERR_MEMORY : pack_message(&message, plan, ret_bytes, ret_count);
    tsr_arena_close(c.arena);
    return st;
}

static tsr_status malformed(const char *what)
{
    tsr_log(TSR_LOG_ERROR, "plan message: %s", what);
    return TSR_ERR_MISMATCH;
}

static bool has_columns(const Tessera__Places *p, size_t count)
{
    return p != NULL && p->n_file == count && p->n_dtype == count && p->n_offset == count &&
           p->n_bytes == count;
}

/* False when the dtype is not one of ours. */
static bool get_place(const Tessera__Places *places, size_t i, tsr_tensor_place *place)
{
    place->file = places->file[i];
    place->dtype = (tsr_dtype)places->dtype[i];
    place->offset = places->offset[i];
    place->bytes = places->bytes[i];
    return places->dtype[i] < TSR_DTYPE_COUNT;
}

static bool linears_are_columns(const Tessera__Linears *w)
{
    const size_t n = w->n_layer;

    return n <= INT32_MAX && w->n_role == n && w->n_expert == n && w->n_algo == n &&
           w->n_format == n && w->n_activation == n && w->n_out == n && w->n_in == n &&
           has_columns(w->weight, n) && has_columns(w->scale, n) &&
           has_columns(w->global_scale, n) && has_columns(w->input_scale, n) &&
           has_columns(w->pre_quant_scale, n) && has_columns(w->bias, n);
}

static bool get_linear(const Tessera__Linears *w, size_t i, tsr_linear_plan *l)
{
    if (w->role[i] >= TSR_ROLE_COUNT || w->algo[i] >= TSR_ALGO_COUNT ||
        w->format[i] >= TSR_WEIGHT_FORMAT_COUNT || w->activation[i] >= TSR_ACTIVATION_COUNT)
        return false;
    l->layer = w->layer[i];
    l->role = (tsr_role)w->role[i];
    l->expert = w->expert[i];
    l->algo = (tsr_algo)w->algo[i];
    l->format = (tsr_weight_format)w->format[i];
    l->activation = (tsr_activation)w->activation[i];
    l->out = w->out[i];
    l->in = w->in[i];
    return get_place(w->weight, i, &l->weight) && get_place(w->scale, i, &l->scale) &&
           get_place(w->global_scale, i, &l->global_scale) &&
           get_place(w->input_scale, i, &l->input_scale) &&
           get_place(w->pre_quant_scale, i, &l->pre_quant_scale) && get_place(w->bias, i, &l->bias);
}

static tsr_status get_linears(const Tessera__Linears *w, tsr_plan *plan)
{
    if (w == NULL || !linears_are_columns(w))
        return malformed("the columns of the linears differ in length");
    plan->linears = calloc(w->n_layer + 1, sizeof(*plan->linears));
    if (plan->linears == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < w->n_layer; i++)
        if (!get_linear(w, i, &plan->linears[i]))
            return malformed("a linear has an unknown role, algorithm, format or type");
    plan->linear_count = (int32_t)w->n_layer;
    return TSR_OK;
}

static tsr_status get_vectors(const Tessera__Vectors *w, tsr_plan *plan)
{
    if (w == NULL || w->n_layer > INT32_MAX || w->n_role != w->n_layer ||
        w->n_elements != w->n_layer || !has_columns(w->place, w->n_layer))
        return malformed("the columns of the vectors differ in length");
    plan->vectors = calloc(w->n_layer + 1, sizeof(*plan->vectors));
    if (plan->vectors == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < w->n_layer; i++) {
        tsr_vector_plan *v = &plan->vectors[i];
        v->layer = w->layer[i];
        v->role = (tsr_role)w->role[i];
        v->elements = w->elements[i];
        if (w->role[i] >= TSR_ROLE_COUNT || !get_place(w->place, i, &v->place))
            return malformed("a vector has an unknown role or type");
    }
    plan->vector_count = (int32_t)w->n_layer;
    return TSR_OK;
}

static tsr_status get_model(const Tessera__Model *w, tsr_model_facts *m)
{
    const char *wrong;

    if (w == NULL || w->family >= TSR_FAMILY_COUNT || w->router >= TSR_ROUTER_KIND_COUNT)
        return malformed("an unknown model family or router");
    if (w->layers < 1 || w->layers > TSR_MAX_LAYERS || w->n_sparse != (size_t)w->layers ||
        w->n_eos > TSR_MAX_EOS)
        return malformed("the number of layers or end tokens is out of bounds");
    *m = (tsr_model_facts){
        .family = (tsr_family)w->family,
        .router = (tsr_router_kind)w->router,
        .layers = w->layers,
        .mtp_layers = w->mtp_layers,
        .hidden = w->hidden,
        .vocab = w->vocab,
        .q_heads = w->q_heads,
        .kv_heads = w->kv_heads,
        .head_dim = w->head_dim,
        .rotary_dim = w->rotary_dim,
        .dense_intermediate = w->dense_intermediate,
        .expert_intermediate = w->expert_intermediate,
        .shared_intermediate = w->shared_intermediate,
        .experts = w->experts,
        .top_k = w->top_k,
        .groups = w->groups,
        .top_groups = w->top_groups,
        .max_positions = w->max_positions,
        .norm_top_k = w->norm_top_k != 0,
        .qk_norm = w->qk_norm != 0,
        .qkv_bias = w->qkv_bias != 0,
        .tied_head = w->tied_head != 0,
        .routed_scale = w->routed_scale,
        .norm_eps = w->norm_eps,
        .rope_theta = w->rope_theta,
        .eos_count = (int32_t)w->n_eos,
    };
    for (size_t i = 0; i < w->n_sparse; i++)
        m->sparse[i] = w->sparse[i] != 0;
    for (size_t i = 0; i < w->n_eos; i++)
        m->eos[i] = w->eos[i];
    wrong = tsr_plan_check_model(m);
    return wrong == NULL ? TSR_OK : malformed(wrong);
}

static tsr_status get_limits(const Tessera__Limits *w, tsr_engine_limits *l)
{
    if (w == NULL)
        return malformed("the limits are missing");
    *l = (tsr_engine_limits){
        .max_model_len = w->max_model_len,
        .max_num_seqs = w->max_num_seqs,
        .max_batched_tokens = w->max_batched_tokens,
        .exchange_tokens = w->exchange_tokens,
        .kv_block_tokens = w->kv_block_tokens,
        .kv_blocks = w->kv_blocks,
        .logit_rows = w->logit_rows,
        .threads = w->threads,
    };
    return TSR_OK;
}

static tsr_status get_names(const Tessera__Plan *w, tsr_plan *plan)
{
    if (w->n_files > INT32_MAX)
        return malformed("too many files");
    plan->folder = strdup(w->folder);
    plan->files = calloc(w->n_files + 1, sizeof(*plan->files));
    if (plan->folder == NULL || plan->files == NULL)
        return TSR_ERR_MEMORY;
    plan->file_count = (int32_t)w->n_files;
    for (size_t i = 0; i < w->n_files; i++) {
        plan->files[i] = strdup(w->files[i]);
        if (plan->files[i] == NULL)
            return TSR_ERR_MEMORY;
    }
    return TSR_OK;
}

/* Needs the names. */
static tsr_status get_marks(const Tessera__Marks *w, tsr_plan *plan)
{
    const size_t n = (size_t)plan->file_count;

    if (w == NULL || w->n_bytes != n || w->n_head_bytes != n || w->n_head_digest != n)
        return malformed("the marks do not have one row for each file");
    plan->marks = calloc(n + 1, sizeof(*plan->marks));
    if (plan->marks == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < n; i++)
        plan->marks[i] = (tsr_file_mark){w->bytes[i], w->head_bytes[i], w->head_digest[i]};
    return TSR_OK;
}

/* Needs the model and the number of ranks. */
static tsr_status get_placement(const Tessera__Plan *w, tsr_plan *plan)
{
    const size_t places = (size_t)plan->model.layers * (size_t)plan->model.experts;

    if (w->n_expert_rank != places)
        return malformed("the placement does not have one rank for each expert");
    plan->expert_rank = calloc(places + 1, sizeof(*plan->expert_rank));
    if (plan->expert_rank == NULL)
        return TSR_ERR_MEMORY;
    if (places > 0)
        memcpy(plan->expert_rank, w->expert_rank, places * sizeof(*plan->expert_rank));
    return TSR_OK;
}

static tsr_status get_budget(const Tessera__Budget *w, tsr_plan *plan)
{
    const size_t n = (size_t)plan->ranks;

    if (w == NULL || w->n_weights_bytes != n || w->n_kv_bytes != n || w->n_workspace_bytes != n ||
        w->n_buffers_bytes != n || w->n_loading_bytes != n)
        return malformed("the budget does not have one row for each rank");
    plan->budget = calloc(n, sizeof(*plan->budget));
    if (plan->budget == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < n; i++)
        plan->budget[i] =
            (tsr_rank_budget){w->weights_bytes[i], w->kv_bytes[i], w->workspace_bytes[i],
                              w->buffers_bytes[i], w->loading_bytes[i]};
    return TSR_OK;
}

static tsr_status get_plan(const Tessera__Plan *w, tsr_plan *plan)
{
    const char *wrong;
    tsr_status st = get_model(w->model, &plan->model);

    if (st == TSR_OK &&
        (w->kv_format >= TSR_KV_FORMAT_COUNT || w->ranks < 1 || w->ranks > TSR_PLAN_MAX_RANKS))
        st = malformed("the number of ranks or the KV format is out of bounds");
    plan->kv_format = (tsr_kv_format)w->kv_format;
    plan->token_ids = w->token_ids;
    plan->ranks = w->ranks;
    if (st == TSR_OK)
        st = get_limits(w->limits, &plan->limits);
    if (st == TSR_OK)
        st = get_names(w, plan);
    if (st == TSR_OK)
        st = get_marks(w->marks, plan);
    if (st == TSR_OK)
        st = get_linears(w->linears, plan);
    if (st == TSR_OK)
        st = get_vectors(w->vectors, plan);
    if (st == TSR_OK)
        st = get_placement(w, plan);
    if (st == TSR_OK)
        st = get_budget(w->budget, plan);
    if (st != TSR_OK)
        return st;
    wrong = tsr_plan_check(plan);
    return wrong == NULL ? TSR_OK : malformed(wrong);
}

/* The message behind a head that holds. */
static tsr_status open_head(const unsigned char *bytes, size_t count, uint64_t *ret_digest)
{
    uint32_t head[2];
    uint64_t digest;

    if (count < HEAD_BYTES)
        return malformed("shorter than its head");
    memcpy(head, bytes, sizeof(head));
    memcpy(&digest, bytes + sizeof(head), sizeof(digest));
    if (head[0] != PLAN_MAGIC)
        return malformed("does not begin as a plan does");
    if (head[1] != PLAN_VERSION)
        return malformed("of another version: all ranks must run the same program");
    if (digest != XXH3_64bits(bytes + HEAD_BYTES, count - HEAD_BYTES))
        return malformed("the digest does not hold");
    *ret_digest = digest;
    return TSR_OK;
}

tsr_status tsr_plan_unpack(const unsigned char *bytes, size_t count, tsr_plan **ret_plan)
{
    Tessera__Plan *message;
    tsr_plan *plan;
    uint64_t digest;
    tsr_status st = open_head(bytes, count, &digest);

    if (st != TSR_OK)
        return st;
    message = tessera__plan__unpack(NULL, count - HEAD_BYTES, bytes + HEAD_BYTES);
    if (message == NULL)
        return malformed("cannot be decoded");
    plan = calloc(1, sizeof(*plan));
    st = plan == NULL ? TSR_ERR_MEMORY : get_plan(message, plan);
    tessera__plan__free_unpacked(message, NULL);
    if (st != TSR_OK) {
        tsr_plan_close(plan);
        return st;
    }
    plan->digest = digest;
    *ret_plan = plan;
    return TSR_OK;
}
