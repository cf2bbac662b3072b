/*
 * Which experts a row chooses, and with what weights: against the definition in double, with
 * ties, groups and logits far from zero; in any company, alone and as a block.
 */
#include "tests/kernels/mlps.h"

#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { H = 16, MOST_E = 48, MOST_K = 8, MOST_T = 40 };

static const tsr_stream stream = {NULL};

typedef struct router_case {
    tsr_router_kind kind;
    int32_t experts, top_k, groups, top_groups;
    bool bias, normalise;
    float routed_scale;
} router_case;

typedef struct chosen {
    int32_t expert[MOST_T * MOST_K];
    float weight[MOST_T * MOST_K];
} chosen;

/* Rows and the bias that meet them. */
typedef struct router_rows {
    const float *x;
    const float *bias;
    int32_t tokens;
} router_rows;

static void run_router(tsr_device *device, const router_case *c, const sample_linear *gate,
                       router_rows rows, chosen *out)
{
    const size_t choices = (size_t)rows.tokens * (size_t)c->top_k;
    const size_t bias_bytes = (size_t)c->experts * sizeof(float);
    const tsr_linear linear = sample_load(device, gate);
    const tsr_router router = {
        .gate = &linear,
        .bias = c->bias ? sample_put(device, rows.bias, bias_bytes) : NULL,
        .kind = c->kind,
        .top_k = c->top_k,
        .groups = c->groups,
        .top_groups = c->top_groups,
        .normalise = c->normalise,
        .routed_scale = c->routed_scale,
    };
    const tsr_router_args a = {
        .expert = sample_room(device, choices * sizeof(int32_t)),
        .weight = sample_room(device, choices * sizeof(float)),
        .x = sample_rows(device, rows.x, (size_t)rows.tokens * H),
        .router = &router,
        .tokens = rows.tokens,
    };
    ASSERT_STATUS(TSR_OK, device->ops->router(device, &a, stream));
    sample_get(device, out->expert, a.expert, choices * sizeof(int32_t));
    sample_get(device, out->weight, a.weight, choices * sizeof(float));
}

static int best(const double *choice, const bool *out, int count)
{
    int b = -1;

    for (int e = 0; e < count; e++) {
        if (!out[e] && (b < 0 || choice[e] > choice[b]))
            b = e;
    }
    return b;
}

static void mask_groups(const router_case *c, double *choice)
{
    const int size = c->experts / c->groups;
    double score[MOST_E] = {0};
    bool kept[MOST_E] = {false};

    for (int g = 0; g < c->groups; g++) {
        bool taken[MOST_E] = {false};
        const int first = best(choice + (ptrdiff_t)g * size, taken, size);
        taken[first] = true;
        const int second = best(choice + (ptrdiff_t)g * size, taken, size);
        score[g] = choice[g * size + first] + (second < 0 ? 0.0 : choice[g * size + second]);
    }
    for (int i = 0; i < c->top_groups; i++)
        kept[best(score, kept, c->groups)] = true;
    for (int e = 0; e < c->experts; e++) {
        if (!kept[e / size])
            choice[e] = (double)-INFINITY;
    }
}

static void scores(const router_case *c, const double *logit, const float *bias, double *score,
                   double *choice)
{
    double most = (double)-INFINITY;
    double sum = 0.0;

    for (int e = 0; e < c->experts; e++)
        most = fmax(most, logit[e]);
    for (int e = 0; e < c->experts; e++)
        sum += exp(logit[e] - most);
    for (int e = 0; e < c->experts; e++) {
        score[e] = c->kind == TSR_ROUTER_SOFTMAX ? exp(logit[e] - most) / sum
                                                 : 1.0 / (1.0 + exp(-logit[e]));
        choice[e] = score[e] + (c->bias ? (double)bias[e] : 0.0);
    }
    if (c->kind == TSR_ROUTER_SIGMOID)
        mask_groups(c, choice);
}

/* Ids must agree (random logits are not near ties), weights to 16 ulp. */
static void assert_choice(const router_case *c, const double *logit, const float *bias,
                          const int32_t *expert, const float *weight)
{
    double score[MOST_E] = {0};
    double choice[MOST_E] = {0};
    bool taken[MOST_E] = {false};
    int expected[MOST_K] = {0};
    double sum = c->kind == TSR_ROUTER_SIGMOID ? 1e-20 : 0.0;

    scores(c, logit, bias, score, choice);
    for (int k = 0; k < c->top_k; k++) {
        expected[k] = best(choice, taken, c->experts);
        taken[expected[k]] = true;
        sum += score[expected[k]];
    }
    for (int k = 0; k < c->top_k; k++) {
        double w = score[expected[k]];
        w = c->normalise ? w / sum : w;
        w = c->kind == TSR_ROUTER_SIGMOID ? w * (double)c->routed_scale : w;
        assert_int_equal(expected[k], expert[k]);
        assert_true(fabs((double)weight[k] - w) <= 64.0 * 0x1p-24 * w);
    }
}

static void check_router(sample_random *r, const router_case *c, tsr_weight_format format)
{
    const sample_kind kind = {format, TSR_ACTIVATION_NONE, false, false};
    sample_linear *gate = sample_linear_new(r, kind, c->experts, H);
    float x[MOST_T * H];
    float bias[MOST_E];
    chosen first;
    chosen out;

    memset(&first, 0, sizeof(first));
    memset(&out, 0, sizeof(out));
    sample_floats(r, x, (size_t)MOST_T * H, 1.0F);
    sample_floats(r, bias, MOST_E, 0.5F);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        if (device == NULL)
            continue;
        run_router(device, c, gate, (router_rows){x, bias, MOST_T}, i == 0 ? &first : &out);
        if (i > 0) {
            assert_memory_equal(first.expert, out.expert, sizeof(out.expert));
            sample_assert_like(i, first.weight, out.weight, (size_t)MOST_T * (size_t)c->top_k);
        }
        sample_close(device);
    }
    for (int t = 0; t < MOST_T; t++) {
        double row[H];
        double logit[MOST_E] = {0};
        double unused = 0.0;
        sample_quantized(gate, x + (ptrdiff_t)t * H, row);
        for (int32_t e = 0; e < c->experts; e++)
            logit[e] = sample_dot(gate, row, e, &unused);
        assert_choice(c, logit, bias, first.expert + (ptrdiff_t)t * c->top_k,
                      first.weight + (ptrdiff_t)t * c->top_k);
    }
    sample_linear_free(gate);
}

static void both_kinds_meet_their_definition(void **state)
{
    static const router_case cases[] = {
        {TSR_ROUTER_SOFTMAX, 48, 8, 1, 1, false, true, 1.0F},
        {TSR_ROUTER_SOFTMAX, 17, 3, 1, 1, false, false, 1.0F},
        {TSR_ROUTER_SOFTMAX, 1, 1, 1, 1, false, true, 1.0F},
        {TSR_ROUTER_SIGMOID, 48, 8, 1, 1, true, true, 2.5F},
        {TSR_ROUTER_SIGMOID, 32, 4, 4, 2, true, true, 1.0F},
        {TSR_ROUTER_SIGMOID, 16, 2, 16, 2, true, false, 1.5F},
        {TSR_ROUTER_SIGMOID, 20, 5, 4, 1, false, true, 1.0F},
    };
    sample_random r = {1};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        check_router(&r, &cases[i], TSR_WEIGHT_F32);
        check_router(&r, &cases[i], TSR_WEIGHT_BF16);
    }
}

/* A gate that copies x: the logits are the row. */
static sample_linear *copying_gate(sample_random *r, int32_t experts)
{
    const sample_kind kind = {TSR_WEIGHT_F32, TSR_ACTIVATION_NONE, false, false};
    sample_linear *gate = sample_linear_new(r, kind, experts, H);

    for (int32_t e = 0; e < experts; e++) {
        for (int32_t i = 0; i < H; i++)
            ((float *)gate->weight)[e * H + i] = e == i ? 1.0F : 0.0F;
    }
    return gate;
}

static void equal_choices_go_to_the_lower_id(void **state)
{
    static const router_case cases[] = {
        {TSR_ROUTER_SOFTMAX, 12, 4, 1, 1, false, true, 1.0F},
        {TSR_ROUTER_SIGMOID, 12, 4, 1, 1, false, true, 1.0F},
    };
    static const float x[H] = {1, 3, 1, 3, 1, 1, 3, 1, 1, 1, 1, 1};
    static const int32_t expected[4] = {1, 3, 6, 0};
    sample_random r = {2};
    sample_linear *gate = copying_gate(&r, 12);

    (void)state;
    for (int i = 0; i < 2 * SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i / 2, &sample_shape);
        chosen out;
        if (device == NULL)
            continue;
        run_router(device, &cases[i % 2], gate, (router_rows){x, NULL, 1}, &out);
        assert_memory_equal(out.expert, expected, sizeof(expected));
        sample_close(device);
    }
    sample_linear_free(gate);
}

/* All choices of the kept group are negative: with 0 in place of -inf the others would win. */
static void an_excluded_group_never_wins(void **state)
{
    static const router_case c = {TSR_ROUTER_SIGMOID, 8, 3, 2, 1, true, false, 1.0F};
    static const float x[H] = {0, 0, 0, 0, 0, 0, 0, 0};
    static const float bias[8] = {-9, -9, -9, -9, -3, -3, -4, -5};
    static const int32_t expected[3] = {4, 5, 6};
    sample_random r = {3};
    sample_linear *gate = copying_gate(&r, 8);
    tsr_device *device = sample_device(0, &sample_shape);
    chosen out;

    (void)state;
    run_router(device, &c, gate, (router_rows){x, bias, 1}, &out);
    assert_memory_equal(out.expert, expected, sizeof(expected));
    assert_true(out.weight[0] == 0.5F);
    sample_close(device);
    sample_linear_free(gate);
}

/* Far from zero exp overflows and all sigmoids vanish; what is divided by their sum stays a number.
 */
static void logits_far_from_zero_give_weights(void **state)
{
    static const router_case softmax = {TSR_ROUTER_SOFTMAX, 8, 2, 1, 1, false, true, 1.0F};
    static const router_case sigmoid = {TSR_ROUTER_SIGMOID, 8, 2, 1, 1, false, true, 2.0F};
    static const float large[H] = {500, 0, -500, 500, -500, 0, 0, 0};
    static const float small[H] = {-500, -500, -500, -500, -500, -500, -500, -500};
    sample_random r = {5};
    sample_linear *gate = copying_gate(&r, 8);

    (void)state;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        chosen out;
        if (device == NULL)
            continue;
        run_router(device, &softmax, gate, (router_rows){large, NULL, 1}, &out);
        assert_int_equal(out.expert[1], 3);
        assert_true(out.weight[0] == 0.5F && out.weight[1] == 0.5F);
        run_router(device, &softmax, gate, (router_rows){small, NULL, 1}, &out);
        assert_true(out.weight[0] == 0.5F && out.weight[1] == 0.5F);
        run_router(device, &sigmoid, gate, (router_rows){large, NULL, 1}, &out);
        assert_true(out.weight[0] == 1.0F && out.weight[1] == 1.0F);
        run_router(device, &sigmoid, gate, (router_rows){small, NULL, 1}, &out);
        assert_true(out.weight[0] == 0.0F && out.weight[1] == 0.0F);
        sample_close(device);
    }
    sample_linear_free(gate);
}

/* More rows than one chunk of the workspace (512): row t wants expert t % E. */
static void rows_beyond_a_chunk_get_their_own_experts(void **state)
{
    enum { TOKENS = 521, E = 7 };
    static const tsr_work_shape shape = {.max_tokens = TOKENS, .max_in = H, .max_experts = E};
    static float x[TOKENS * H];
    static int32_t expert[TOKENS];
    static float weight[TOKENS];
    sample_random r = {6};
    sample_linear *gate = copying_gate(&r, E);
    tsr_device *device = sample_device(0, &shape);
    const tsr_linear linear = sample_load(device, gate);
    const tsr_router router = {.gate = &linear, .top_k = 1, .normalise = true};

    (void)state;
    for (int t = 0; t < TOKENS; t++)
        x[t * H + t % E] = 1.0F;
    const tsr_router_args a = {
        .expert = sample_room(device, sizeof(expert)),
        .weight = sample_room(device, sizeof(weight)),
        .x = sample_rows(device, x, (size_t)TOKENS * H),
        .router = &router,
        .tokens = TOKENS,
    };
    ASSERT_STATUS(TSR_OK, device->ops->router(device, &a, stream));
    sample_get(device, expert, a.expert, sizeof(expert));
    sample_get(device, weight, a.weight, sizeof(weight));
    for (int t = 0; t < TOKENS; t++) {
        assert_int_equal(expert[t], t % E);
        assert_true(weight[t] == 1.0F);
    }
    sample_close(device);
    sample_linear_free(gate);
}

/* Rows that come together: as many as kernels for many rows are cut for in their several ways. */
typedef struct crowd {
    int32_t rows, width, experts;
    tsr_weight_format format;
    tsr_router_kind kind;
    int32_t groups, top_groups;
} crowd;

/* All rows, or a few and then up to 512 at a time. */
static void run_crowd(tsr_device *device, const tsr_router_args *all, const crowd *c, bool whole)
{
    /* Clusters of a GPU with a row each, two, four and eight. */
    static const int32_t pieces[] = {1, 2, 5, 8, 20, 31, 60, 128};
    const int32_t few = (int32_t)(sizeof(pieces) / sizeof(pieces[0]));
    const size_t row_bytes = (size_t)c->width * tsr_device_activation_bytes(device);
    int32_t rows = 0;

    for (int32_t first = 0, i = 0; first < c->rows; first += rows, i++) {
        const size_t at = (size_t)first;
        rows = whole ? c->rows : i < few ? pieces[i] : 512;
        rows = rows < c->rows - first ? rows : c->rows - first;
        const tsr_router_args a = {
            .expert = all->expert + at * (size_t)all->router->top_k,
            .weight = all->weight + at * (size_t)all->router->top_k,
            .x = (const unsigned char *)all->x + at * row_bytes,
            .router = all->router,
            .tokens = rows,
        };
        ASSERT_STATUS(TSR_OK, device->ops->router(device, &a, stream));
    }
}

static void check_crowd(sample_random *r, const crowd *c)
{
    const sample_kind kind = {c->format, TSR_ACTIVATION_NONE, false, false};
    const size_t choices = (size_t)c->rows * MOST_K;
    const size_t values = (size_t)c->rows * (size_t)c->width;
    const tsr_work_shape shape = {.max_tokens = c->rows,
                                  .max_answers = c->rows * MOST_K,
                                  .max_in = c->width,
                                  .max_experts = c->experts};
    sample_linear *gate = sample_linear_new(r, kind, c->experts, c->width);
    float *x = malloc(values * sizeof(*x));
    int32_t *expert = malloc(2 * choices * sizeof(*expert));
    float *weight = malloc(2 * choices * sizeof(*weight));

    sample_floats(r, x, values, 1.0F);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_sized_device(i, &shape);
        if (device == NULL)
            continue;
        const tsr_linear linear = sample_load(device, gate);
        const tsr_router router = {.gate = &linear,
                                   .kind = c->kind,
                                   .top_k = MOST_K,
                                   .groups = c->groups,
                                   .top_groups = c->top_groups,
                                   .normalise = true,
                                   .routed_scale = 1.0F};
        const tsr_router_args a = {
            .expert = sample_room(device, choices * sizeof(*expert)),
            .weight = sample_room(device, choices * sizeof(*weight)),
            .x = sample_rows(device, x, values),
            .router = &router,
        };
        for (size_t piecewise = 0; piecewise < 2; piecewise++) {
            run_crowd(device, &a, c, piecewise == 0);
            sample_get(device, expert + piecewise * choices, a.expert, choices * sizeof(*expert));
            sample_get(device, weight + piecewise * choices, a.weight, choices * sizeof(*weight));
        }
        assert_memory_equal(expert, expert + choices, choices * sizeof(*expert));
        assert_memory_equal(weight, weight + choices, choices * sizeof(*weight));
        sample_close(device);
    }
    free(weight);
    free(expert);
    free(x);
    sample_linear_free(gate);
}

/* As many as a device has kernels for, one, and everything in between: the same bits. */
static void rows_choose_alike_in_any_company(void **state)
{
    static const crowd crowds[] = {
        {1100, 528, 48, TSR_WEIGHT_BF16, TSR_ROUTER_SOFTMAX, 1, 1},
        {4096, 144, 32, TSR_WEIGHT_F32, TSR_ROUTER_SOFTMAX, 1, 1},
        {4200, 336, 160, TSR_WEIGHT_F16, TSR_ROUTER_SOFTMAX, 1, 1},
        {16400, 144, 20, TSR_WEIGHT_BF16, TSR_ROUTER_SOFTMAX, 1, 1},
        {1100, 144, 32, TSR_WEIGHT_BF16, TSR_ROUTER_SIGMOID, 1, 1},
        {1100, 144, 32, TSR_WEIGHT_BF16, TSR_ROUTER_SIGMOID, 4, 2},
    };
    sample_random r = {7};

    (void)state;
    for (size_t i = 0; i < sizeof(crowds) / sizeof(crowds[0]); i++)
        check_crowd(&r, &crowds[i]);
}

/* Whole blocks: what is chosen, and the normed rows that travel. */
enum { MANY = 700, BROAD = 1040, BLOCK_E = 12, BLOCK_K = 3 };

static const float block_eps = 1e-6F;

/* A layer whose experts are all elsewhere. */
static void make_block_router(tsr_device *device, const tsr_linear *gate, tsr_experts *ret)
{
    static const int32_t nowhere[BLOCK_E] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    static const int32_t tag_of[BLOCK_E] = {20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    const tsr_experts_source source = {
        .router = {.gate = gate, .top_k = BLOCK_K, .normalise = true},
        .local_of = nowhere,
        .tag_of = tag_of,
        .experts = BLOCK_E,
        .hidden = gate->in,
    };

    ASSERT_STATUS(TSR_OK, sample_experts_make(device, &source, ret));
}

/* What a block leaves. */
typedef struct chosen_block {
    unsigned char rows[MANY * (BROAD * 4 + 16)];
    int32_t tag[MANY * BLOCK_K];
    float weight[MANY * BLOCK_K];
} chosen_block;

/* So many rows at a time. */
static void choose_by(tsr_device *device, const tsr_choose_block *all, int32_t together,
                      chosen_block *ret)
{
    const size_t row_bytes = all->experts->row_bytes;

    memset(ret, 0, sizeof(*ret));
    assert_true(row_bytes * MANY <= sizeof(ret->rows));
    for (int32_t first = 0; first < MANY; first += together) {
        const size_t at = (size_t)first;
        tsr_choose_block b = *all;
        b.rows = (unsigned char *)all->rows + at * row_bytes;
        b.tag = all->tag + at * BLOCK_K;
        b.weight = all->weight + at * BLOCK_K;
        b.x = (const unsigned char *)all->x + at * BROAD * tsr_device_activation_bytes(device);
        b.tokens = together < MANY - first ? together : MANY - first;
        ASSERT_STATUS(TSR_OK, tsr_block_choose(device, &b, stream));
    }
    sample_get(device, ret->rows, all->rows, row_bytes * MANY);
    sample_get(device, ret->tag, all->tag, sizeof(ret->tag));
    sample_get(device, ret->weight, all->weight, sizeof(ret->weight));
}

/* Normed rows, choices and weights do not depend on the company. */
static void many_rows_are_chosen_for_as_few_are(void **state)
{
    static const tsr_work_shape shape = {
        .max_tokens = MANY,
        .max_answers = MANY * BLOCK_K,
        .max_in = BROAD,
        .max_experts = BLOCK_E,
        .hidden = BROAD,
        .top_k = BLOCK_K,
    };
    static float x[MANY * BROAD];
    static float norm[BROAD];
    static chosen_block whole;
    static chosen_block pieces;
    const sample_kind kind = {TSR_WEIGHT_F32, TSR_ACTIVATION_NONE, false, false};
    sample_random r = {8};
    sample_linear *gate = sample_linear_new(&r, kind, BLOCK_E, BROAD);

    (void)state;
    sample_floats(&r, x, (size_t)MANY * BROAD, 2.0F);
    sample_floats(&r, norm, BROAD, 0.7F);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_sized_device(i, &shape);
        tsr_experts experts;
        if (device == NULL)
            continue;
        const tsr_linear loaded = sample_load(device, gate);
        make_block_router(device, &loaded, &experts);
        const tsr_choose_block b = {
            .rows = sample_room(device, experts.row_bytes * MANY),
            .tag = sample_room(device, sizeof(whole.tag)),
            .weight = sample_room(device, sizeof(whole.weight)),
            .x = sample_rows(device, x, (size_t)MANY * BROAD),
            .norm = sample_put(device, norm, sizeof(norm)),
            .experts = &experts,
            .eps = block_eps,
        };
        choose_by(device, &b, MANY, &whole);
        choose_by(device, &b, 99, &pieces);
        assert_memory_equal(&pieces, &whole, sizeof(whole));
        sample_close(device);
    }
    sample_linear_free(gate);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_kinds_meet_their_definition),
        cmocka_unit_test(equal_choices_go_to_the_lower_id),
        cmocka_unit_test(an_excluded_group_never_wins),
        cmocka_unit_test(logits_far_from_zero_give_weights),
        cmocka_unit_test(rows_beyond_a_chunk_get_their_own_experts),
        cmocka_unit_test(rows_choose_alike_in_any_company),
        cmocka_unit_test(many_rows_are_chosen_for_as_few_are),
    };
    test_choose(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
