/* A plan arrives as it left, or not at all. */
#include "proto/plan.h"

#include "runtime/base/log.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 3, EXPERTS = 4, RANKS = 3 };

static const tsr_tensor_place nowhere = {.file = TSR_NO_FILE};

static tsr_linear_plan a_linear(int32_t layer, tsr_role role, int32_t expert)
{
    return (tsr_linear_plan){.layer = layer,
                             .role = role,
                             .expert = expert,
                             .algo = TSR_ALGO_NVFP4,
                             .format = TSR_WEIGHT_NVFP4,
                             .activation = TSR_ACTIVATION_NVFP4,
                             .out = 128,
                             .in = 64,
                             .weight = {1, TSR_DTYPE_U8, UINT64_C(5000000000), 4096},
                             .scale = {0, TSR_DTYPE_F8_E4M3, 8, 512},
                             .global_scale = {0, TSR_DTYPE_F32, 520, 4},
                             .input_scale = {0, TSR_DTYPE_BF16, 524, 2},
                             .pre_quant_scale = nowhere,
                             .bias = nowhere};
}

static void fill_model(tsr_model_facts *m)
{
    *m = (tsr_model_facts){.family = TSR_FAMILY_GLM4_MOE,
                           .router = TSR_ROUTER_SIGMOID,
                           .layers = LAYERS,
                           .hidden = 64,
                           .vocab = 1000,
                           .q_heads = 4,
                           .kv_heads = 2,
                           .head_dim = 32,
                           .rotary_dim = 16,
                           .dense_intermediate = 96,
                           .expert_intermediate = 128,
                           .shared_intermediate = 32,
                           .experts = EXPERTS,
                           .top_k = 2,
                           .groups = 2,
                           .top_groups = 1,
                           .max_positions = 4096,
                           .norm_top_k = true,
                           .qkv_bias = true,
                           .routed_scale = 2.5F,
                           .norm_eps = 1e-5F,
                           .rope_theta = 1e6,
                           .eos = {7, 9},
                           .eos_count = 2};
    m->sparse[1] = true;
    m->sparse[2] = true;
}

static tsr_plan *sample(void)
{
    tsr_plan *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    fill_model(&p->model);
    p->limits = (tsr_engine_limits){1024, 8, 64, 32, 16, 512, 64, 2};
    p->kv_format = TSR_KV_FP8;
    p->token_ids = 990;
    p->ranks = RANKS;
    p->folder = strdup("/models/tiny");
    p->file_count = 2;
    p->files = calloc(2, sizeof(*p->files));
    p->files[0] = strdup("model-00001-of-00002.safetensors");
    p->files[1] = strdup("model-00002-of-00002.safetensors");
    p->marks = calloc(2, sizeof(*p->marks));
    p->marks[0] = (tsr_file_mark){1000, 8, 77};
    p->marks[1] = (tsr_file_mark){UINT64_C(5000004096), 100, UINT64_MAX};
    p->linear_count = 2 + 2 * EXPERTS;
    p->linears = calloc((size_t)p->linear_count, sizeof(*p->linears));
    p->linears[0] = a_linear(-1, TSR_ROLE_EMBED, -1);
    p->linears[1] = a_linear(0, TSR_ROLE_Q, -1);
    for (int32_t i = 0; i < 2 * EXPERTS; i++)
        p->linears[2 + i] = a_linear(1 + i / EXPERTS, TSR_ROLE_EXPERT_DOWN, i % EXPERTS);
    p->vector_count = 2;
    p->vectors = calloc(2, sizeof(*p->vectors));
    p->vectors[0] = (tsr_vector_plan){-1, TSR_ROLE_FINAL_NORM, 64, {0, TSR_DTYPE_BF16, 600, 128}};
    p->vectors[1] = (tsr_vector_plan){2, TSR_ROLE_K_SCALE, 1, {1, TSR_DTYPE_F32, 728, 4}};
    p->expert_rank = calloc((size_t)LAYERS * EXPERTS, sizeof(*p->expert_rank));
    for (int32_t i = 0; i < LAYERS * EXPERTS; i++)
        p->expert_rank[i] = i < EXPERTS ? -1 : i % RANKS;
    p->budget = calloc(RANKS, sizeof(*p->budget));
    for (int32_t r = 0; r < RANKS; r++)
        p->budget[r] = (tsr_rank_budget){UINT64_C(1) << 40, 2, 3, (uint64_t)r, 5};
    return p;
}

static void quiet(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    (void)level;
    (void)line;
}

typedef struct packed {
    unsigned char *bytes;
    size_t count;
} packed;

static packed pack(tsr_plan *plan)
{
    packed p;

    ASSERT_STATUS(TSR_OK, tsr_plan_pack(plan, &p.bytes, &p.count));
    return p;
}

static void a_plan_arrives_as_it_left(void **state)
{
    tsr_plan *sent = sample(), *got;
    const packed p = pack(sent);
    (void)state;
    ASSERT_STATUS(TSR_OK, tsr_plan_unpack(p.bytes, p.count, &got));
    assert_int_equal(sent->digest, got->digest);
    assert_int_not_equal(0, got->digest);
    assert_memory_equal(&sent->limits, &got->limits, sizeof(sent->limits));
    assert_int_equal(sent->kv_format, got->kv_format);
    assert_int_equal(sent->token_ids, got->token_ids);
    assert_int_equal(sent->ranks, got->ranks);
    assert_string_equal(sent->folder, got->folder);
    assert_int_equal(sent->file_count, got->file_count);
    assert_string_equal(sent->files[1], got->files[1]);
    assert_memory_equal(sent->marks, got->marks, 2 * sizeof(*sent->marks));
    assert_int_equal(sent->linear_count, got->linear_count);
    for (int32_t i = 0; i < sent->linear_count; i++)
        assert_memory_equal(&sent->linears[i], &got->linears[i], sizeof(sent->linears[i]));
    assert_int_equal(sent->vector_count, got->vector_count);
    for (int32_t i = 0; i < sent->vector_count; i++)
        assert_memory_equal(&sent->vectors[i], &got->vectors[i], sizeof(sent->vectors[i]));
    assert_memory_equal(sent->expert_rank, got->expert_rank,
                        (size_t)LAYERS * EXPERTS * sizeof(*sent->expert_rank));
    assert_memory_equal(sent->budget, got->budget, RANKS * sizeof(*sent->budget));
    assert_int_equal(sent->model.sparse[0], got->model.sparse[0]);
    assert_int_equal(sent->model.sparse[2], got->model.sparse[2]);
    assert_int_equal(sent->model.eos[1], got->model.eos[1]);
    assert_true(sent->model.routed_scale == got->model.routed_scale);
    assert_true(sent->model.rope_theta == got->model.rope_theta);
    assert_int_equal(sent->model.top_groups, got->model.top_groups);
    free(p.bytes);
    tsr_plan_close(sent);
    tsr_plan_close(got);
}

static void the_digest_follows_every_field(void **state)
{
    tsr_plan *a = sample(), *b = sample();
    packed p = pack(a), q = pack(b);
    (void)state;
    assert_int_equal(a->digest, b->digest);
    free(q.bytes);
    b->linears[3].activation = TSR_ACTIVATION_NONE;
    q = pack(b);
    assert_int_not_equal(a->digest, b->digest);
    free(q.bytes);
    b->linears[3].activation = TSR_ACTIVATION_NVFP4;
    b->model.routed_scale = nextafterf(2.5F, 3.0F);
    q = pack(b);
    assert_int_not_equal(a->digest, b->digest);
    free(p.bytes);
    free(q.bytes);
    tsr_plan_close(a);
    tsr_plan_close(b);
}

static void no_truncated_plan_is_taken(void **state)
{
    tsr_plan *sent = sample(), *got = NULL;
    const packed p = pack(sent);
    (void)state;
    tsr_log_set_sink(quiet, NULL);
    for (size_t count = 0; count < p.count; count++) {
        /* A copy of exactly that size, so that a read beyond it is seen. */
        unsigned char *part = malloc(count + (count == 0));
        memcpy(part, p.bytes, count);
        ASSERT_STATUS(TSR_ERR_MISMATCH, tsr_plan_unpack(part, count, &got));
        free(part);
    }
    tsr_log_set_sink(NULL, NULL);
    assert_null(got);
    free(p.bytes);
    tsr_plan_close(sent);
}

static void no_flipped_bit_is_taken(void **state)
{
    tsr_plan *sent = sample(), *got = NULL;
    const packed p = pack(sent);
    (void)state;
    tsr_log_set_sink(quiet, NULL);
    for (size_t bit = 0; bit < 8 * p.count; bit++) {
        p.bytes[bit / 8] ^= (unsigned char)(1U << bit % 8);
        ASSERT_STATUS(TSR_ERR_MISMATCH, tsr_plan_unpack(p.bytes, p.count, &got));
        p.bytes[bit / 8] ^= (unsigned char)(1U << bit % 8);
    }
    tsr_log_set_sink(NULL, NULL);
    assert_null(got);
    free(p.bytes);
    tsr_plan_close(sent);
}

typedef void (*damage)(tsr_plan *plan);

#define DAMAGE(name, statement)                                                                    \
    static void name(tsr_plan *p)                                                                  \
    {                                                                                              \
        statement;                                                                                 \
    }

DAMAGE(many_layers, p->model.layers = 2; p->model.sparse[2] = false)
DAMAGE(no_hidden, p->model.hidden = 0)
DAMAGE(negative_vocab, p->model.vocab = -1)
DAMAGE(odd_heads, p->model.q_heads = 3)
DAMAGE(wide_rotary, p->model.rotary_dim = 34)
DAMAGE(many_chosen, p->model.top_k = EXPERTS + 1)
DAMAGE(many_groups, p->model.top_groups = 3)
DAMAGE(infinite_scale, p->model.routed_scale = INFINITY)
DAMAGE(nan_theta, p->model.rope_theta = (double)NAN)
DAMAGE(unknown_family, p->model.family = TSR_FAMILY_COUNT)
DAMAGE(unknown_kv, p->kv_format = TSR_KV_FORMAT_COUNT)
DAMAGE(many_ids, p->token_ids = 1001)
DAMAGE(no_context, p->limits.max_model_len = 0)
DAMAGE(negative_blocks, p->limits.kv_blocks = -1)
DAMAGE(no_threads, p->limits.threads = 0)
DAMAGE(outer_file, memcpy(p->files[0], "../secret", 10))
DAMAGE(rooted_file, memcpy(p->files[0], "/etc/passwd", 12))
DAMAGE(long_head, p->marks[0].head_bytes = 1001)
DAMAGE(huge_head, p->marks[1].head_bytes = UINT64_C(200000000))
DAMAGE(huge_file, p->marks[1].bytes = UINT64_MAX)
DAMAGE(short_file, p->marks[1].bytes--)
DAMAGE(no_folder, p->folder[0] = '\0')
DAMAGE(unknown_role, p->linears[0].role = TSR_ROLE_COUNT)
DAMAGE(vector_role, p->linears[0].role = TSR_ROLE_INPUT_NORM)
DAMAGE(unknown_algo, p->linears[0].algo = TSR_ALGO_COUNT)
DAMAGE(unknown_format, p->linears[0].format = TSR_WEIGHT_FORMAT_COUNT)
DAMAGE(unknown_activation, p->linears[0].activation = TSR_ACTIVATION_COUNT)
DAMAGE(far_layer, p->linears[1].layer = LAYERS)
DAMAGE(far_expert, p->linears[2].expert = EXPERTS)
DAMAGE(no_expert, p->linears[2].expert = -1)
DAMAGE(stray_expert, p->linears[1].expert = 0)
DAMAGE(no_rows, p->linears[1].out = 0)
DAMAGE(far_file, p->linears[1].weight.file = 2)
DAMAGE(negative_file, p->linears[1].scale.file = -2)
DAMAGE(no_weight, p->linears[1].weight.file = TSR_NO_FILE)
DAMAGE(unknown_dtype, p->linears[1].weight.dtype = TSR_DTYPE_COUNT)
DAMAGE(far_offset, p->linears[1].weight.offset = UINT64_MAX)
DAMAGE(wrapping_bytes, p->linears[1].weight.bytes = UINT64_MAX - 1)
DAMAGE(linear_vector, p->vectors[0].role = TSR_ROLE_Q)
DAMAGE(empty_vector, p->vectors[0].elements = 0)
DAMAGE(far_rank, p->expert_rank[EXPERTS] = RANKS)
DAMAGE(homeless_expert, p->expert_rank[EXPERTS] = -1)
DAMAGE(dense_expert, p->expert_rank[0] = 0)

static void no_plan_out_of_bounds_is_taken(void **state)
{
    static const damage damages[] = {
        many_layers,  no_hidden,       negative_vocab,     odd_heads,
        wide_rotary,  many_chosen,     many_groups,        infinite_scale,
        nan_theta,    unknown_family,  unknown_kv,         many_ids,
        no_context,   negative_blocks, no_threads,         outer_file,
        rooted_file,  no_folder,       unknown_role,       vector_role,
        unknown_algo, unknown_format,  unknown_activation, far_layer,
        far_expert,   no_expert,       stray_expert,       no_rows,
        far_file,     negative_file,   no_weight,          unknown_dtype,
        far_offset,   wrapping_bytes,  linear_vector,      empty_vector,
        far_rank,     homeless_expert, dense_expert,       long_head,
        huge_head,    huge_file,       short_file,
    };
    (void)state;
    tsr_log_set_sink(quiet, NULL);
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        tsr_plan *sent = sample(), *got = NULL;
        damages[i](sent);
        const packed p = pack(sent);
        if (tsr_plan_unpack(p.bytes, p.count, &got) != TSR_ERR_MISMATCH)
            fail_msg("damage %zu was taken", i);
        free(p.bytes);
        tsr_plan_close(sent);
    }
    tsr_log_set_sink(NULL, NULL);
}

static void roles_have_names_and_linears_come_first(void **state)
{
    (void)state;
    for (int role = 0; role < TSR_ROLE_COUNT; role++) {
        assert_true(strlen(tsr_role_name((tsr_role)role)) > 0);
        assert_int_equal(role < TSR_ROLE_FINAL_NORM, tsr_role_is_linear((tsr_role)role));
    }
    assert_string_equal("experts.gate_proj", tsr_role_name(TSR_ROLE_EXPERT_GATE));
    assert_non_null(tsr_role_name(TSR_ROLE_COUNT));
    tsr_plan_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_arrives_as_it_left),
        cmocka_unit_test(the_digest_follows_every_field),
        cmocka_unit_test(no_truncated_plan_is_taken),
        cmocka_unit_test(no_flipped_bit_is_taken),
        cmocka_unit_test(no_plan_out_of_bounds_is_taken),
        cmocka_unit_test(roles_have_names_and_linears_come_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
