/*
 * The attention block, from the residual stream back to it: against its definition in double,
 * against the operations it is made of, and with the bits of one call where a sequence comes in
 * chunks.
 */
#include "tests/kernels/block_parts.h"
#include "tests/kernels/bounded.h"
#include "tests/kernels/mlps.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tsr_stream stream = {NULL};

enum { H = 64, HEADS = 4, KV_HEADS = 2, D = 16, ROTARY = 8, BLOCK_TOKENS = 4, BLOCKS = 5 };
enum { FIRST = 5, SECOND = 4, T = FIRST + SECOND, Q = HEADS * D, KV = KV_HEADS * D };

static const float eps = 1e-6F;

/* Two sequences from their first position on, and what a layer does to them; on the host. */
typedef struct layer_data {
    sample_linear *q, *k, *v, *o;
    tsr_kv_format format;
    float x[T * H];
    float norm[H];
    float q_norm[D];
    float k_norm[D];
    float cos[T * ROTARY / 2];
    float sin[T * ROTARY / 2];
} layer_data;

static const int32_t position[T] = {0, 1, 2, 3, 4, 0, 1, 2, 3};
static const int32_t blocks[3] = {4, 1, 2}; /* two of the first sequence, one of the second */

static layer_data new_layer(sample_random *r, sample_kind kind, tsr_kv_format format)
{
    layer_data d = {
        .q = sample_linear_new(r, kind, Q, H),
        .k = sample_linear_new(r, kind, KV, H),
        .v = sample_linear_new(r, kind, KV, H),
        .o = sample_linear_new(r, kind, H, Q),
        .format = format,
    };

    sample_floats(r, d.x, (size_t)T * H, 2.0F);
    sample_floats(r, d.norm, H, 0.5F);
    sample_floats(r, d.q_norm, D, 1.0F);
    sample_floats(r, d.k_norm, D, 1.0F);
    for (int i = 0; i < T * ROTARY / 2; i++) {
        d.cos[i] = cosf((float)i);
        d.sin[i] = sinf((float)i);
    }
    return d;
}

static void free_layer(layer_data *d)
{
    sample_linear_free(d->q);
    sample_linear_free(d->k);
    sample_linear_free(d->v);
    sample_linear_free(d->o);
}

/* The same in device memory. */
typedef struct loaded_layer {
    tsr_linear q, k, v, o;
    tsr_kv_layer cache;
    tsr_attention_block block;
} loaded_layer;

static void load_layer(tsr_device *device, const layer_data *d, loaded_layer *ret)
{
    static const tsr_attention_sequence both[2] = {
        {.first_row = 0, .rows = FIRST, .first_block = 0},
        {.first_row = FIRST, .rows = SECOND, .first_block = 2},
    };
    const size_t cache_bytes = sizeof(float) * BLOCKS * BLOCK_TOKENS * KV;

    ret->q = sample_load(device, d->q);
    ret->k = sample_load(device, d->k);
    ret->v = sample_load(device, d->v);
    ret->o = sample_load(device, d->o);
    ret->cache = (tsr_kv_layer){
        .keys = sample_room(device, cache_bytes),
        .values = sample_room(device, cache_bytes),
        .format = d->format,
        .key_scale = 0.01F,
        .value_scale = 0.02F,
        .blocks = BLOCKS,
        .block_tokens = BLOCK_TOKENS,
        .kv_heads = KV_HEADS,
        .head_dim = D,
    };
    ret->block = (tsr_attention_block){
        .x = sample_rows(device, d->x, (size_t)T * H),
        .norm = sample_put(device, d->norm, sizeof(d->norm)),
        .q = &ret->q,
        .k = &ret->k,
        .v = &ret->v,
        .o = &ret->o,
        .q_norm = sample_put(device, d->q_norm, sizeof(d->q_norm)),
        .k_norm = sample_put(device, d->k_norm, sizeof(d->k_norm)),
        .cos = sample_put(device, d->cos, sizeof(d->cos)),
        .sin = sample_put(device, d->sin, sizeof(d->sin)),
        .cache = &ret->cache,
        .position = sample_put(device, position, sizeof(position)),
        .sequence = sample_put(device, both, sizeof(both)),
        .blocks = sample_put(device, blocks, sizeof(blocks)),
        .tokens = T,
        .sequences = 2,
        .q_heads = HEADS,
        .rotary_dim = ROTARY,
        .eps = eps,
    };
}

enum { SLOTS = 3 };

/* What a combine in front of the block adds up. */
typedef struct combined {
    float answers[T * SLOTS * H];
    float weight[T * SLOTS];
    int32_t tokens;            /* all, or fewer of the first sequence */
    const sample_mlp *experts; /* who answers a single row instead; NULL: nobody */
    const sample_linear *router;
} combined;

enum { EXPERTS = 4, WIDTH = 32 };

/* Answers to the first row by experts that are chosen for it, each of them the same: a device may send
 * them to the combine before it is its turn. */
static void let_experts_answer(tsr_device *device, const combined *c, const loaded_layer *l,
                               tsr_combine_block *ret)
{
    static const int32_t number[EXPERTS] = {0, 1, 2, 3};
    static const int32_t tags[EXPERTS] = {0};
    static const int32_t one = 1;
    const tsr_mlp mlp = sample_mlp_load(device, c->experts);
    const tsr_mlp mlps[EXPERTS] = {mlp, mlp, mlp, mlp};
    const tsr_linear gate = sample_load(device, c->router);
    const tsr_experts_source source = {
        .router = {.gate = &gate, .top_k = SLOTS, .groups = 1, .top_groups = 1},
        .mlps = mlps,
        .local_of = number,
        .tag_of = tags,
        .experts = EXPERTS,
        .local = EXPERTS,
        .hidden = H,
    };
    tsr_experts experts;

    ASSERT_STATUS(TSR_OK, sample_experts_make(device, &source, &experts));
    const tsr_choose_block choose = {
        .rows = sample_room(device, experts.row_bytes),
        .tag = sample_room(device, sizeof(tags)),
        .weight = sample_room(device, SLOTS * sizeof(float)),
        .x = l->block.x,
        .norm = l->block.norm,
        .experts = &experts,
        .tokens = 1,
        .eps = eps,
        .stays = true,
    };
    const tsr_experts_block answer = {
        .answers = sample_row_room(device, (size_t)SLOTS * H),
        .rows = choose.rows,
        .row_count = sample_put(device, &one, sizeof(one)),
        .answer_of = sample_put(device, number, sizeof(number)),
        .experts = &experts,
        .most_rows = 1,
        .chosen = true,
    };
    ASSERT_STATUS(TSR_OK, tsr_block_choose(device, &choose, stream));
    ASSERT_STATUS(TSR_OK, tsr_block_experts(device, &answer, stream));
    ret->answers = answer.answers;
    ret->weight = choose.weight;
    ret->computed = true;
}

/* Whoever takes answers leaves all ones. */
static void expect_taken(tsr_device *device, const void *answers, size_t count)
{
    static uint32_t left[T * SLOTS * H];

    sample_get(device, left, answers, count * sizeof(left[0]));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(left[i], UINT32_MAX);
}

/* The block behind a combine of the same rows, with or without being entered by it. */
static void run_behind_combine(tsr_device *device, const layer_data *d, const combined *c,
                               bool is_entered, float *x)
{
    const int32_t tokens = c->tokens;
    const tsr_attention_sequence first = {.rows = tokens};
    loaded_layer l;

    void *answers = sample_rows(device, c->answers, (size_t)T * SLOTS * H);

    load_layer(device, d, &l);
    tsr_combine_block combine = {
        .x = l.block.x,
        .answers = answers,
        .weight = sample_put(device, c->weight, sizeof(c->weight)),
        .tokens = tokens,
        .hidden = H,
        .top_k = SLOTS,
    };
    if (tokens < T) {
        l.block.tokens = tokens;
        l.block.sequences = 1;
        l.block.sequence = sample_put(device, &first, sizeof(first));
    }
    if (is_entered)
        combine.next = (tsr_block_entry){l.block.norm, &l.q, eps};
    if (c->experts != NULL) {
        let_experts_answer(device, c, &l, &combine);
    } else if (is_entered && tsr_device_flights(device) > 1) { /* as if they had just come */
        combine.coming = answers;
        combine.ended = sample_room(device, 2 * sizeof(int32_t));
    }
    l.block.is_entered = is_entered;
    ASSERT_STATUS(TSR_OK, tsr_block_combine(device, &combine, stream));
    ASSERT_STATUS(TSR_OK, tsr_block_attention(device, &l.block, stream));
    sample_get_rows(device, x, l.block.x, (size_t)tokens * H);
    ASSERT_STATUS(TSR_OK, tsr_device_fault(device));
    if (combine.coming != NULL)
        expect_taken(device, answers, (size_t)tokens * SLOTS * H);
}

static void run_block(tsr_device *device, const layer_data *d, float *x)
{
    loaded_layer l;

    load_layer(device, d, &l);
    ASSERT_STATUS(TSR_OK, tsr_block_attention(device, &l.block, stream));
    sample_get_rows(device, x, l.block.x, (size_t)T * H);
    ASSERT_STATUS(TSR_OK, tsr_device_fault(device));
}

static void linear_by_definition(const sample_linear *l, const bounded *x, bounded *y)
{
    const size_t in = (size_t)l->source.in;

    for (int32_t o = 0; o < l->source.out; o++)
        y[o] = bounded_dot(x, l->value + (size_t)o * in, in);
}

/* Norm and rotation of one head. */
static void rotate_by_definition(const layer_data *d, const float *norm, int32_t p, bounded *head)
{
    const int half = ROTARY / 2;

    bounded_norm(head, norm, D, eps, head);
    for (int i = 0; i < half; i++) {
        const bounded c = bounded_exact((double)d->cos[p * half + i]);
        const bounded s = bounded_exact((double)d->sin[p * half + i]);
        const bounded low = head[i];
        const bounded high = head[i + half];
        const bounded minus = {-s.value, 0.0};
        head[i] = bounded_add(bounded_mul(low, c), bounded_mul(high, minus));
        head[i + half] = bounded_add(bounded_mul(high, c), bounded_mul(low, s));
    }
}

/* One head of row t, which sees rows first .. t. */
static void attend_by_definition(const bounded *q, const bounded (*k)[KV], const bounded (*v)[KV],
                                 int first, int t, bounded *out)
{
    const bounded scale = bounded_div(bounded_exact(1.0), bounded_exact(sqrt((double)D)));
    bounded weight[T];
    bounded part[T];
    double most = (double)-INFINITY;
    const size_t seen = (size_t)(t - first) + 1;

    for (size_t i = 0; i < seen; i++) {
        bounded product[D];
        for (int e = 0; e < D; e++)
            product[e] = bounded_mul(q[e], k[(size_t)first + i][e]);
        weight[i] = bounded_mul(bounded_sum(product, D), scale);
        most = fmax(most, weight[i].value);
    }
    for (size_t i = 0; i < seen; i++)
        weight[i] = bounded_exp(bounded_add(weight[i], bounded_exact(-most)));
    const bounded share = bounded_div(bounded_exact(1.0), bounded_sum(weight, seen));
    for (int e = 0; e < D; e++) {
        for (size_t i = 0; i < seen; i++)
            part[i] = bounded_mul(bounded_mul(weight[i], share), v[(size_t)first + i][e]);
        out[e] = bounded_sum(part, seen);
    }
}

static void block_by_definition(const layer_data *d, bounded *x)
{
    static bounded q[T][Q];
    static bounded k[T][KV];
    static bounded v[T][KV];
    bounded normed[H];
    bounded attended[Q];
    bounded delta[H];

    for (int t = 0; t < T; t++) {
        for (int i = 0; i < H; i++)
            x[t * H + i] = bounded_exact((double)d->x[t * H + i]);
        bounded_norm(x + (ptrdiff_t)t * H, d->norm, H, eps, normed);
        linear_by_definition(d->q, normed, q[t]);
        linear_by_definition(d->k, normed, k[t]);
        linear_by_definition(d->v, normed, v[t]);
        for (ptrdiff_t h = 0; h < HEADS; h++)
            rotate_by_definition(d, d->q_norm, position[t], q[t] + h * D);
        for (ptrdiff_t h = 0; h < KV_HEADS; h++)
            rotate_by_definition(d, d->k_norm, position[t], k[t] + h * D);
    }
    for (int t = 0; t < T; t++) {
        const int first = t < FIRST ? 0 : FIRST;
        for (ptrdiff_t h = 0; h < HEADS; h++) {
            const ptrdiff_t kv = h / (HEADS / KV_HEADS) * D;
            attend_by_definition(q[t] + h * D, (const bounded(*)[KV])(k[0] + kv),
                                 (const bounded(*)[KV])(v[0] + kv), first, t, attended + h * D);
        }
        linear_by_definition(d->o, attended, delta);
        for (int i = 0; i < H; i++)
            x[t * H + i] = bounded_add(x[t * H + i], delta[i]);
    }
}

static void the_block_meets_its_definition_on_every_device(void **state)
{
    static bounded expected[T * H];
    static const sample_kind kind = {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false};
    sample_random r = {1};
    layer_data d = new_layer(&r, kind, TSR_KV_F32);
    float first[T * H];
    float x[T * H];

    (void)state;
    block_by_definition(&d, expected);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_heads_shape);
        if (device == NULL)
            continue;
        run_block(device, &d, i == 0 ? first : x);
        if (i == 0)
            bounded_assert("x", expected, first, (size_t)T * H);
        else
            sample_assert_like(i, first, x, (size_t)T * H);
        sample_close(device);
    }
    free_layer(&d);
}

static void run_parts(tsr_device *device, const layer_data *d, float *x)
{
    loaded_layer l;

    load_layer(device, d, &l);
    attend_by_parts(device, &l.block);
    sample_get_rows(device, x, l.block.x, (size_t)T * H);
}

static void the_block_has_the_bits_of_its_parts(void **state)
{
    static const sample_kind kinds[] = {
        {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, true, false},
        {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8, false, true},
        {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, false, false},
    };
    sample_random r = {2};

    (void)state;
    for (int n = 0; n < 3 * SAMPLE_DEVICES; n++) {
        layer_data d = new_layer(&r, kinds[n % 3], (tsr_kv_format)(n % TSR_KV_FORMAT_COUNT));
        tsr_device *device = sample_device(n / 3, &sample_heads_shape);
        float whole[T * H];
        float parts[T * H];
        if (device != NULL) {
            run_block(device, &d, whole);
            run_parts(device, &d, parts);
            assert_memory_equal(parts, whole, sizeof(whole));
            assert_memory_not_equal(d.x, whole, sizeof(whole));
        }
        sample_close(device);
        free_layer(&d);
    }
}

/* What the combine in front of it does for it has the bits of what it does itself, in every way that
 * rows are quantized, whoever has the answers. */
static void a_block_that_is_entered_has_the_bits_of_one_that_is_not(void **state)
{
    static const sample_kind kinds[] = {
        {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, true, false},
        {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8, false, true},
        {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8_TOKEN, false, false},
        {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, false, false},
        {TSR_WEIGHT_F32, TSR_ACTIVATION_NONE, false, false},
        {TSR_WEIGHT_FP8_BLOCK, TSR_ACTIVATION_FP8_GROUP, false, false},
    };
    static const int32_t tokens[] = {1, 2, 3, T};
    enum { KINDS = sizeof(kinds) / sizeof(kinds[0]), COUNTS = sizeof(tokens) / sizeof(tokens[0]) };
    static const sample_kind nvfp4 = {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NONE, false, false};
    static const sample_kind f32 = {TSR_WEIGHT_F32, TSR_ACTIVATION_NONE, false, false};
    static combined c;
    sample_random r = {4};
    sample_mlp experts = {
        .gate = sample_linear_new(&r, nvfp4, WIDTH, H),
        .up = sample_linear_new(&r, nvfp4, WIDTH, H),
        .down = sample_linear_new(&r, nvfp4, H, WIDTH),
    };
    sample_linear *router = sample_linear_new(&r, f32, EXPERTS, H);

    (void)state;
    experts.up->source.input_scale = experts.gate->source.input_scale;
    c.router = router;
    sample_floats(&r, c.answers, (size_t)T * SLOTS * H, 1.0F);
    sample_floats(&r, c.weight, (size_t)T * SLOTS, 1.0F);
    for (int n = 0; n < KINDS * SAMPLE_DEVICES; n++) {
        layer_data d = new_layer(&r, kinds[n % KINDS], TSR_KV_BF16);
        tsr_device *device = sample_device(n / KINDS, &sample_heads_shape);
        float x[2][T * H];
        for (int i = 0; device != NULL && i < COUNTS; i++) {
            const size_t bytes = sizeof(float) * (size_t)tokens[i] * H;
            c.tokens = tokens[i];
            run_behind_combine(device, &d, &c, false, x[0]);
            run_behind_combine(device, &d, &c, true, x[1]);
            assert_memory_equal(x[0], x[1], bytes);
            assert_memory_not_equal(d.x, x[0], bytes);
        }
        if (device != NULL) {
            c.tokens = 1;
            c.experts = &experts;
            run_behind_combine(device, &d, &c, false, x[0]);
            run_behind_combine(device, &d, &c, true, x[1]);
            assert_memory_equal(x[0], x[1], sizeof(float) * H);
            c.experts = NULL;
        }
        sample_close(device);
        free_layer(&d);
    }
    sample_mlp_free(&experts);
    sample_linear_free(router);
}

/* The first sequence's last two positions come a step later, alone. */
static void a_sequence_in_two_steps_has_the_bits_of_one(void **state)
{
    enum { LATER = 2, EARLIER = FIRST - LATER };
    static const sample_kind kind = {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8_TOKEN, false, false};
    static const tsr_attention_sequence steps[2] = {{.rows = EARLIER},
                                                    {.rows = LATER, .first_position = EARLIER}};
    sample_random r = {3};
    layer_data d = new_layer(&r, kind, TSR_KV_FP8);

    (void)state;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_heads_shape);
        loaded_layer l;
        float whole[T * H];
        float x[FIRST * H];
        if (device == NULL)
            continue;
        run_block(device, &d, whole);
        load_layer(device, &d, &l);
        l.block.sequences = 1;
        for (int n = 0; n < 2; n++) {
            const size_t first = n == 0 ? 0 : EARLIER;
            const size_t rows = n == 0 ? EARLIER : LATER;
            l.block.x = sample_rows(device, d.x + first * H, rows * H);
            l.block.sequence = sample_put(device, &steps[n], sizeof(steps[n]));
            l.block.position = sample_put(device, position + first, rows * sizeof(*position));
            l.block.tokens = (int32_t)rows;
            ASSERT_STATUS(TSR_OK, tsr_block_attention(device, &l.block, stream));
            sample_get_rows(device, x + first * H, l.block.x, rows * H);
        }
        assert_memory_equal(whole, x, sizeof(x));
        sample_close(device);
    }
    free_layer(&d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_block_meets_its_definition_on_every_device),
        cmocka_unit_test(the_block_has_the_bits_of_its_parts),
        cmocka_unit_test(a_block_that_is_entered_has_the_bits_of_one_that_is_not),
        cmocka_unit_test(a_sequence_in_two_steps_has_the_bits_of_one),
    };
    test_choose(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
