/*
 * The other blocks of a layer and of the head, each from the residual stream on: against the
 * definition in double and against the operations it is made of. Embedding, experts and combination
 * are operations themselves (test_rows, test_mlp).
 */
#include "tests/kernels/bounded.h"
#include "tests/kernels/mlps.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

static const tsr_stream stream = {NULL};

enum { H = 48, I = 64, T = 9 };

static const float eps = 1e-6F;
static const sample_kind plain_kind = {TSR_WEIGHT_F32, TSR_ACTIVATION_NONE, false, false};

/* norm(x) of rows in device memory, in rows of our own. */
static void *normed(tsr_device *device, const void *x, const float *weight, int32_t tokens)
{
    const tsr_norm_args a = {
        .out = sample_row_room(device, (size_t)tokens * H),
        .x = x,
        .weight = weight,
        .tokens = tokens,
        .hidden = H,
        .eps = eps,
    };

    ASSERT_STATUS(TSR_OK, device->ops->norm(device, &a, stream));
    return a.out;
}

/* Rows and the weight of their norm. */
typedef struct stream_rows {
    float x[T * H];
    float norm[H];
} stream_rows;

static void fill_rows(sample_random *r, stream_rows *rows)
{
    sample_floats(r, rows->x, (size_t)T * H, 2.0F);
    sample_floats(r, rows->norm, H, 0.7F);
}

static void run_mlp_block(tsr_device *device, const sample_mlp *m, const stream_rows *rows,
                          float *x)
{
    const tsr_mlp mlp = sample_mlp_load(device, m);
    const tsr_mlp_block b = {
        .x = sample_rows(device, rows->x, (size_t)T * H),
        .norm = sample_put(device, rows->norm, sizeof(rows->norm)),
        .mlp = &mlp,
        .tokens = T,
        .eps = eps,
    };

    ASSERT_STATUS(TSR_OK, tsr_block_mlp(device, &b, stream));
    sample_get_rows(device, x, b.x, (size_t)T * H);
}

/* Norm, MLP and sum, one after the other. */
static void run_mlp_parts(tsr_device *device, const sample_mlp *m, const stream_rows *rows,
                          float *x)
{
    const tsr_mlp mlp = sample_mlp_load(device, m);
    void *stream_x = sample_rows(device, rows->x, (size_t)T * H);
    const tsr_mlp_args a = {
        .out = sample_row_room(device, (size_t)T * H),
        .x = normed(device, stream_x, sample_put(device, rows->norm, sizeof(rows->norm)), T),
        .mlp = &mlp,
        .x_row_bytes = H * tsr_device_activation_bytes(device),
        .tokens = T,
    };
    const tsr_add_args add = {.out = stream_x, .a = stream_x, .b = a.out, .tokens = T, .hidden = H};

    ASSERT_STATUS(TSR_OK, device->ops->mlp(device, &a, stream));
    ASSERT_STATUS(TSR_OK, device->ops->add(device, &add, stream));
    sample_get_rows(device, x, stream_x, (size_t)T * H);
}

static void mlp_by_definition(const sample_mlp *m, const stream_rows *rows, bounded *x)
{
    bounded row[H];
    bounded inner[I];

    for (size_t t = 0; t < T; t++) {
        for (size_t i = 0; i < H; i++)
            x[t * H + i] = bounded_exact((double)rows->x[t * H + i]);
        bounded_norm(x + t * H, rows->norm, H, eps, row);
        for (size_t i = 0; i < I; i++) {
            const bounded gate = bounded_dot(row, m->gate->value + i * H, H);
            const bounded up = bounded_dot(row, m->up->value + i * H, H);
            inner[i] = bounded_mul(bounded_silu(gate), up);
        }
        for (size_t i = 0; i < H; i++)
            x[t * H + i] = bounded_add(x[t * H + i], bounded_dot(inner, m->down->value + i * I, I));
    }
}

/* Kind 0 is unquantized: only there the definition has no rounding that could tip over. */
static void the_mlp_block_is_its_definition_and_its_parts(void **state)
{
    static bounded expected[T * H];
    sample_random r = {1};
    stream_rows rows;
    float first[T * H];
    float whole[T * H];
    float parts[T * H];

    (void)state;
    for (int kind = 0; kind < SAMPLE_MLP_KINDS; kind++) {
        sample_mlp m = sample_mlp_new(&r, kind, H, I);
        fill_rows(&r, &rows);
        for (int i = 0; i < SAMPLE_DEVICES; i++) {
            tsr_device *device = sample_device(i, &sample_heads_shape);
            if (device == NULL)
                continue;
            run_mlp_block(device, &m, &rows, whole);
            run_mlp_parts(device, &m, &rows, parts);
            assert_memory_equal(parts, whole, sizeof(whole));
            if (i == 0)
                memcpy(first, whole, sizeof(first));
            if (kind == 0)
                sample_assert_like(i, first, whole, (size_t)T * H);
            else
                sample_assert_tipped(i, first, whole, (size_t)T * H);
            sample_close(device);
        }
        if (kind == 0) {
            mlp_by_definition(&m, &rows, expected);
            bounded_assert("x", expected, first, (size_t)T * H);
        }
        sample_mlp_free(&m);
    }
}

enum { E = 12, K = 3 };

static const int32_t nowhere[E] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
static const int32_t tag_of[E] = {20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

/* A layer whose experts are all elsewhere. */
static void make_router(tsr_device *device, const tsr_linear *gate, tsr_experts *ret)
{
    const tsr_experts_source source = {
        .router = {.gate = gate, .kind = TSR_ROUTER_SOFTMAX, .top_k = K, .normalise = true},
        .local_of = nowhere,
        .tag_of = tag_of,
        .experts = E,
        .hidden = H,
    };

    ASSERT_STATUS(TSR_OK, sample_experts_make(device, &source, ret));
}

/* What choose leaves, on the host. */
typedef struct chosen {
    unsigned char rows[T * (H * 4 + 16)];
    int32_t tag[T * K];
    float weight[T * K];
} chosen;

static void get_chosen(tsr_device *device, const tsr_choose_block *b, chosen *ret)
{
    memset(ret, 0, sizeof(*ret));
    assert_true(b->experts->row_bytes * T <= sizeof(ret->rows));
    sample_get(device, ret->rows, b->rows, b->experts->row_bytes * T);
    sample_get(device, ret->tag, b->tag, sizeof(ret->tag));
    sample_get(device, ret->weight, b->weight, sizeof(ret->weight));
}

static tsr_choose_block put_choose(tsr_device *device, const tsr_experts *experts,
                                   const stream_rows *rows)
{
    return (tsr_choose_block){
        .rows = sample_room(device, experts->row_bytes * T),
        .tag = sample_room(device, sizeof(int32_t) * T * K),
        .weight = sample_room(device, sizeof(float) * T * K),
        .x = sample_rows(device, rows->x, (size_t)T * H),
        .norm = sample_put(device, rows->norm, sizeof(rows->norm)),
        .experts = experts,
        .tokens = T,
        .eps = eps,
    };
}

/* Norm, router and packing, one after the other. */
static void run_choose_parts(tsr_device *device, const tsr_choose_block *b)
{
    const tsr_router_args route = {
        .expert = sample_room(device, sizeof(int32_t) * T * K),
        .weight = b->weight,
        .x = normed(device, b->x, b->norm, T),
        .router = &b->experts->router,
        .tokens = T,
    };
    const tsr_pack_args pack = {
        .rows = b->rows,
        .tag = b->tag,
        .x = route.x,
        .expert = route.expert,
        .tag_of = b->experts->tag_of,
        .row_bytes = b->experts->row_bytes,
        .tokens = T,
        .hidden = H,
        .top_k = K,
    };

    ASSERT_STATUS(TSR_OK, device->ops->router(device, &route, stream));
    ASSERT_STATUS(TSR_OK, device->ops->pack(device, &pack, stream));
}

/* The K largest of a row's logits, and the softmax over them alone: normalised weights. */
static void assert_choice(const sample_linear *gate, const stream_rows *rows, size_t t,
                          const chosen *c)
{
    bounded x[H];
    bounded logit[E];
    bounded weight[K];
    bool taken[E] = {false};

    for (size_t i = 0; i < H; i++)
        x[i] = bounded_exact((double)rows->x[t * H + i]);
    bounded_norm(x, rows->norm, H, eps, x);
    for (size_t e = 0; e < E; e++)
        logit[e] = bounded_dot(x, gate->value + e * H, H);
    for (size_t k = 0; k < K; k++) {
        int best = -1;
        for (int e = 0; e < E; e++) {
            if (!taken[e] && (best < 0 || logit[e].value > logit[best].value))
                best = e;
        }
        taken[best] = true;
        assert_int_equal(tag_of[best], c->tag[t * K + k]);
        weight[k] = bounded_exp(logit[best]);
    }
    const bounded sum = bounded_sum(weight, K);
    for (size_t k = 0; k < K; k++) {
        weight[k] = bounded_div(weight[k], sum);
        weight[k].error *= 2.0; /* the softmax over all E comes first: another exp and quotient */
    }
    bounded_assert("weight", weight, c->weight + t * K, K);
}

/* In packed row t: the normed row, then the ids whose tags stand beside it. */
static void assert_packed(int device, const unsigned char *x, size_t x_bytes, const chosen *c,
                          size_t row_bytes, size_t t)
{
    int32_t id[K];

    if (sample_is_exact(device))
        assert_memory_equal(c->rows + t * row_bytes, x + t * x_bytes, x_bytes);
    else
        sample_assert_like(device, (const float *)(const void *)(x + t * x_bytes),
                           (const float *)(const void *)(c->rows + t * row_bytes), H);
    memcpy(id, c->rows + t * row_bytes + x_bytes, sizeof(id));
    for (size_t k = 0; k < K; k++)
        assert_int_equal(tag_of[id[k]], c->tag[t * K + k]);
}

/* Parts give the same bits where the norm comes before the sums in both. */
static void assert_parts(int device, const chosen *parts, const chosen *whole)
{
    if (sample_is_exact(device)) {
        assert_memory_equal(parts, whole, sizeof(*whole));
    } else if (memcmp(parts->tag, whole->tag, sizeof(whole->tag)) == 0) {
        sample_assert_like(device, parts->weight, whole->weight, (size_t)T * K);
    }
}

static void the_choice_is_its_definition_and_its_parts(void **state)
{
    static chosen first;
    static chosen whole;
    static chosen parts;
    sample_random r = {2};
    sample_linear *gate = sample_linear_new(&r, plain_kind, E, H);
    stream_rows rows;

    (void)state;
    fill_rows(&r, &rows);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_heads_shape);
        unsigned char x[sizeof(float) * T * H];
        tsr_experts experts;
        if (device == NULL)
            continue;
        const size_t x_bytes = H * tsr_device_activation_bytes(device);
        const tsr_linear loaded = sample_load(device, gate);
        make_router(device, &loaded, &experts);
        const tsr_choose_block b = put_choose(device, &experts, &rows);
        const tsr_choose_block other = put_choose(device, &experts, &rows);
        ASSERT_STATUS(TSR_OK, tsr_block_choose(device, &b, stream));
        run_choose_parts(device, &other);
        get_chosen(device, &b, &whole);
        get_chosen(device, &other, &parts);
        assert_parts(i, &parts, &whole);
        sample_get(device, x, normed(device, b.x, b.norm, T), T * x_bytes);
        for (size_t t = 0; t < T; t++)
            assert_packed(i, x, x_bytes, &whole, experts.row_bytes, t);
        if (i == 0)
            first = whole;
        /* Rows that were rounded may change sides where two choices are close. */
        const bool same = memcmp(first.tag, whole.tag, sizeof(first.tag)) == 0;
        assert_true(same || !sample_is_exact(i));
        if (same)
            sample_assert_like(i, first.weight, whole.weight, (size_t)T * K);
        sample_close(device);
    }
    for (size_t t = 0; t < T; t++)
        assert_choice(gate, &rows, t, &first);
    sample_linear_free(gate);
}

/* Of packed rows, which stay as they are: they may be travelling. */
static void the_shared_experts_read_packed_rows(void **state)
{
    sample_random r = {3};
    sample_linear *gate = sample_linear_new(&r, plain_kind, E, H);
    sample_mlp m = sample_mlp_new(&r, 1, H, I);
    stream_rows rows;

    (void)state;
    fill_rows(&r, &rows);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        static chosen before;
        static chosen after;
        tsr_device *device = sample_device(i, &sample_heads_shape);
        tsr_experts experts;
        float out[T * H];
        float alone[T * H];
        float x[T * H];
        if (device == NULL)
            continue;
        const tsr_linear loaded = sample_load(device, gate);
        const tsr_mlp mlp = sample_mlp_load(device, &m);
        make_router(device, &loaded, &experts);
        const tsr_choose_block choose = put_choose(device, &experts, &rows);
        ASSERT_STATUS(TSR_OK, tsr_block_choose(device, &choose, stream));
        get_chosen(device, &choose, &before);
        const tsr_shared_block b = {
            .out = sample_row_room(device, (size_t)T * H),
            .rows = choose.rows,
            .mlp = &mlp,
            .row_bytes = experts.row_bytes,
            .tokens = T,
        };
        ASSERT_STATUS(TSR_OK, tsr_block_shared(device, &b, stream));
        get_chosen(device, &choose, &after);
        assert_memory_equal(&before, &after, sizeof(after));
        const tsr_mlp_args a = {
            .out = sample_row_room(device, (size_t)T * H),
            .x = normed(device, choose.x, choose.norm, T),
            .mlp = &mlp,
            .x_row_bytes = H * tsr_device_activation_bytes(device),
            .tokens = T,
        };
        ASSERT_STATUS(TSR_OK, device->ops->mlp(device, &a, stream));
        sample_get_rows(device, out, b.out, (size_t)T * H);
        sample_get_rows(device, alone, a.out, (size_t)T * H);
        assert_memory_equal(alone, out, sizeof(out));
        sample_get_rows(device, x, a.x, (size_t)T * H);
        for (size_t t = 0; i == 0 && t < T; t++)
            sample_assert_mlp(&m, x + t * H, out + t * H);
        sample_close(device);
    }
    sample_mlp_free(&m);
    sample_linear_free(gate);
}

enum { V = 50, ROWS = 5, SAMPLES = 7, SLOTS = 4, POSITIONS = 6 };

static const int32_t x_row[ROWS] = {8, 0, 3, 8, 5};
static const tsr_sample_row sample_row[SAMPLES] = {
    {.seed = 1, .temperature = 0.8F, .top_p = 1.0F, .logit_row = 4, .slot = 0, .position = 2},
    {.seed = 1, .temperature = 0.8F, .top_p = 1.0F, .logit_row = 1, .slot = 1, .position = 0},
    {.top_p = 1.0F, .logit_row = 0, .slot = 2, .position = 5},
    {.top_p = 1.0F, .logit_row = 3, .slot = 3, .position = 1}, /* x row 8 again */
    {.top_p = 1.0F, .logit_row = 1, .slot = 0, .position = 3},
    {.seed = 9, .temperature = 1.5F, .top_p = 0.8F, .logit_row = 1, .slot = 1, .position = 6},
    {.top_p = 1.0F, .logit_row = 2, .slot = 3, .position = 0},
};

/* What predict leaves, on the host. */
typedef struct predicted {
    tsr_sampled sampled[SAMPLES];
    float logits[ROWS * V];
    int32_t text[SLOTS * POSITIONS];
} predicted;

static tsr_predict_block put_predict(tsr_device *device, const tsr_linear *head,
                                     const stream_rows *rows)
{
    static const int32_t none[SLOTS * POSITIONS] = {0};

    return (tsr_predict_block){
        .sampled = sample_room(device, SAMPLES * sizeof(tsr_sampled)),
        .logits = sample_room(device, sizeof(float) * ROWS * V),
        .x = sample_rows(device, rows->x, (size_t)T * H),
        .x_row = sample_put(device, x_row, sizeof(x_row)),
        .row = sample_put(device, sample_row, sizeof(sample_row)),
        .norm = sample_put(device, rows->norm, sizeof(rows->norm)),
        .head = head,
        .text = {sample_put(device, none, sizeof(none)), SLOTS, POSITIONS},
        .rows = ROWS,
        .samples = SAMPLES,
        .allowed = V - 2,
        .eps = eps,
    };
}

static void get_predicted(tsr_device *device, const tsr_predict_block *b, predicted *ret)
{
    sample_get(device, ret->sampled, b->sampled, sizeof(ret->sampled));
    sample_get(device, ret->logits, b->logits, sizeof(ret->logits));
    sample_get(device, ret->text, b->text.ids, sizeof(ret->text));
}

/* All rows normed, then all logits, of which those that are wanted are looked up; then samples one
 * at a time. */
static void run_predict_parts(tsr_device *device, const tsr_predict_block *b, predicted *ret)
{
    const tsr_head_args head = {
        .logits = sample_room(device, sizeof(float) * T * V),
        .x = normed(device, b->x, b->norm, T),
        .head = b->head,
        .rows = T,
    };
    float logits[T * V];

    memset(ret->text, 0, sizeof(ret->text));
    ASSERT_STATUS(TSR_OK, device->ops->head(device, &head, stream));
    sample_get(device, logits, head.logits, sizeof(logits));
    for (size_t i = 0; i < ROWS; i++)
        memcpy(ret->logits + i * V, logits + (size_t)x_row[i] * V, V * sizeof(float));
    for (size_t i = 0; i < SAMPLES; i++) {
        tsr_sample_row row = sample_row[i];
        const size_t at = (size_t)row.slot * POSITIONS + (size_t)row.position;
        row.logit_row = x_row[row.logit_row];
        const tsr_sample_args a = {
            .sampled = sample_room(device, sizeof(tsr_sampled)),
            .logits = head.logits,
            .row = sample_put(device, &row, sizeof(row)),
            .rows = T,
            .samples = 1,
            .vocab = V,
            .allowed = b->allowed,
        };
        ASSERT_STATUS(TSR_OK, device->ops->sample(device, &a, stream));
        sample_get(device, &ret->sampled[i], a.sampled, sizeof(ret->sampled[i]));
        if (row.position < POSITIONS)
            ret->text[at] = ret->sampled[i].token;
    }
}

/* Logits of the wanted rows in double, and the largest where sampling is greedy. */
static void assert_predicted(const sample_linear *head, const stream_rows *rows, const predicted *p)
{
    bounded logit[ROWS * V];
    bounded x[H];

    for (size_t n = 0; n < ROWS; n++) {
        for (size_t i = 0; i < H; i++)
            x[i] = bounded_exact((double)rows->x[(size_t)x_row[n] * H + i]);
        bounded_norm(x, rows->norm, H, eps, x);
        for (size_t v = 0; v < V; v++)
            logit[n * V + v] = bounded_dot(x, head->value + v * H, H);
    }
    bounded_assert("logit", logit, p->logits, (size_t)ROWS * V);
    for (size_t i = 0; i < SAMPLES; i++) {
        const bounded *row = logit + (size_t)sample_row[i].logit_row * V;
        const int32_t token = p->sampled[i].token;
        double worst = 0.0;
        double sum = 0.0;
        assert_in_range(token, 0, V - 3);
        for (size_t v = 0; v < V - 2; v++) {
            sum += exp(row[v].value);
            worst = fmax(worst, row[v].error);
            if (sample_row[i].temperature == 0.0F)
                assert_true(row[v].value <= row[token].value);
        }
        /* The sum of exponentials errs like its worst logit and V / 16 + 12 roundings. */
        const double expected = row[token].value - log(sum);
        const double tolerance = 2.0 * worst + (V / 16.0 + 12.0 + fabs(expected)) * 0x1p-24;
        assert_true(fabs((double)p->sampled[i].logprob - expected) <= tolerance);
    }
}

static void the_prediction_is_its_definition_and_its_parts(void **state)
{
    static predicted first;
    static predicted whole;
    static predicted parts;
    const sample_kind kind = {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false};
    sample_random r = {4};
    sample_linear *head = sample_linear_new(&r, kind, V, H);
    stream_rows rows;

    (void)state;
    fill_rows(&r, &rows);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_heads_shape);
        if (device == NULL)
            continue;
        const tsr_linear loaded = sample_load(device, head);
        const tsr_predict_block b = put_predict(device, &loaded, &rows);
        ASSERT_STATUS(TSR_OK, tsr_block_predict(device, &b, stream));
        ASSERT_STATUS(TSR_OK, tsr_device_fault(device));
        get_predicted(device, &b, &whole);
        run_predict_parts(device, &b, &parts);
        assert_memory_equal(&parts, &whole, sizeof(whole));
        if (i == 0)
            first = whole;
        sample_assert_like(i, first.logits, whole.logits, (size_t)ROWS * V);
        /* Logits that were rounded may draw another token. */
        if (sample_is_exact(i))
            assert_memory_equal(first.text, whole.text, sizeof(first.text));
        sample_close(device);
    }
    assert_predicted(head, &rows, &first);
    sample_linear_free(head);
}

/* For those who only want probabilities. */
static void logits_alone_write_no_token(void **state)
{
    static const predicted untouched;
    static predicted p;
    sample_random r = {5};
    sample_linear *head = sample_linear_new(&r, plain_kind, V, H);
    tsr_device *device = sample_device(0, &sample_heads_shape);
    const tsr_linear loaded = sample_load(device, head);
    stream_rows rows;

    (void)state;
    fill_rows(&r, &rows);
    tsr_predict_block b = put_predict(device, &loaded, &rows);
    b.samples = 0;
    b.allowed = 0;
    ASSERT_STATUS(TSR_OK, tsr_block_predict(device, &b, stream));
    get_predicted(device, &b, &p);
    assert_memory_equal(untouched.text, p.text, sizeof(p.text));
    assert_memory_equal(untouched.sampled, p.sampled, sizeof(p.sampled));
    assert_memory_not_equal(untouched.logits, p.logits, sizeof(p.logits));
    sample_close(device);
    sample_linear_free(head);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mlp_block_is_its_definition_and_its_parts),
        cmocka_unit_test(the_choice_is_its_definition_and_its_parts),
        cmocka_unit_test(the_shared_experts_read_packed_rows),
        cmocka_unit_test(the_prediction_is_its_definition_and_its_parts),
        cmocka_unit_test(logits_alone_write_no_token),
    };
    test_choose(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
