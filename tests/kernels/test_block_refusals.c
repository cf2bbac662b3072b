/*
 * What blocks refuse. Arguments against shapes and workspace: at the front door, at once. What
 * stands wrong in device memory: as a fault, which stays, is told once, and stops every block.
 */
#include "tests/kernels/mlps.h"
#include "tests/log_lines.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

static const tsr_stream stream = {NULL};
static log_lines lines;

enum { H = 32, I = 48, D = 16, E = 4, LOCAL = 2, K = 2, V = 20, T = 2, SLOTS = 2, POSITIONS = 4 };

static const tsr_work_shape shape = {
    .max_tokens = T,
    .max_rows = T,
    .max_answers = 3,
    .max_in = 48,
    .max_intermediate = I,
    .max_experts = E,
    .max_context = 8,
    .max_logit_rows = 2,
    .vocab = V,
    .hidden = H,
    .q_heads = 2,
    .kv_heads = 1,
    .head_dim = D,
    .top_k = K,
};

/* Everything blocks of a small model are given, in device memory; all of it is right. */
typedef struct model {
    tsr_device *device;
    sample_random random;
    tsr_linear table, q, k, v, o, router, head;
    tsr_mlp mlp;
    tsr_kv_layer cache;
    tsr_experts experts;
    void *x;
    int32_t *place;      /* [T] slots, positions and rows of x at once: all 0 */
    int32_t *text;       /* [SLOTS, POSITIONS] */
    int32_t *kv_table;   /* [1] */
    int32_t *row_count;  /* [1] */
    int32_t *answer_of;  /* [T, K] */
    unsigned char *rows; /* [T, row_bytes] */
    tsr_attention_sequence *sequence;
    tsr_sample_row *sample; /* [2] */
    float *floats;          /* enough for any norm, weight or logits */
} model;

static tsr_linear load(model *m, int32_t out, int32_t in)
{
    const sample_kind kind = {TSR_WEIGHT_F32, TSR_ACTIVATION_NONE, false, false};
    sample_linear *l = sample_linear_new(&m->random, kind, out, in);
    const tsr_linear linear = sample_load(m->device, l);

    sample_linear_free(l);
    return linear;
}

static void load_linears(model *m)
{
    m->table = load(m, V, H);
    m->q = load(m, 2 * D, H);
    m->k = load(m, D, H);
    m->v = load(m, D, H);
    m->o = load(m, H, 2 * D);
    m->router = load(m, E, H);
    m->head = load(m, V, H);
    m->mlp = (tsr_mlp){.gate = load(m, I, H), .up = load(m, I, H), .down = load(m, H, I)};
}

static void make_experts(model *m)
{
    static const int32_t local_of[E] = {0, -1, 1, -1};
    static const int32_t tag_of[E] = {0};
    const tsr_mlp mlps[LOCAL] = {m->mlp, m->mlp};
    const tsr_experts_source source = {
        .router = {.gate = &m->router, .top_k = K},
        .mlps = mlps,
        .local_of = local_of,
        .tag_of = tag_of,
        .experts = E,
        .local = LOCAL,
        .hidden = H,
    };

    ASSERT_STATUS(TSR_OK, sample_experts_make(m->device, &source, &m->experts));
}

static void open_model(model *m)
{
    static const int32_t answer_of[T * K] = {0, 1, 2, -1};
    static const float ones[64] = {1.0F};
    static const int32_t two = T;
    const tsr_attention_sequence sequence = {.rows = T};

    *m = (model){.device = sample_device(0, &shape), .random = {1}};
    load_linears(m);
    make_experts(m);
    m->x = sample_row_room(m->device, (size_t)T * H);
    m->place = sample_room(m->device, T * sizeof(int32_t));
    m->text = sample_room(m->device, sizeof(int32_t) * SLOTS * POSITIONS);
    m->kv_table = sample_room(m->device, sizeof(int32_t));
    m->row_count = sample_put(m->device, &two, sizeof(two));
    m->answer_of = sample_put(m->device, answer_of, sizeof(answer_of));
    m->rows = sample_room(m->device, T * m->experts.row_bytes);
    m->sequence = sample_put(m->device, &sequence, sizeof(sequence));
    m->sample = sample_room(m->device, 2 * sizeof(*m->sample));
    m->floats = sample_put(m->device, ones, sizeof(ones));
    m->cache = (tsr_kv_layer){
        .keys = sample_room(m->device, sizeof(float) * 8 * D),
        .values = sample_room(m->device, sizeof(float) * 8 * D),
        .key_scale = 1.0F,
        .value_scale = 1.0F,
        .blocks = 1,
        .block_tokens = 8,
        .kv_heads = 1,
        .head_dim = D,
    };
    log_lines_clear(&lines);
}

static tsr_embed_block embed_of(const model *m)
{
    return (tsr_embed_block){
        .x = m->x,
        .slot = m->place,
        .position = m->place,
        .table = &m->table,
        .text = {m->text, SLOTS, POSITIONS},
        .tokens = T,
    };
}

static tsr_attention_block attention_of(const model *m)
{
    return (tsr_attention_block){
        .x = m->x,
        .norm = m->floats,
        .q = &m->q,
        .k = &m->k,
        .v = &m->v,
        .o = &m->o,
        .cos = m->floats,
        .sin = m->floats,
        .cache = &m->cache,
        .position = m->place,
        .sequence = m->sequence,
        .blocks = m->kv_table,
        .tokens = T,
        .sequences = 1,
        .q_heads = 2,
        .rotary_dim = D,
        .eps = 1.0F,
    };
}

static tsr_mlp_block mlp_of(const model *m)
{
    return (tsr_mlp_block){.x = m->x, .norm = m->floats, .mlp = &m->mlp, .tokens = T, .eps = 1.0F};
}

static tsr_choose_block choose_of(const model *m)
{
    return (tsr_choose_block){
        .rows = m->rows,
        .tag = sample_room(m->device, sizeof(int32_t) * T * K),
        .weight = m->floats,
        .x = m->x,
        .norm = m->floats,
        .experts = &m->experts,
        .tokens = T,
        .eps = 1.0F,
    };
}

static tsr_shared_block shared_of(const model *m)
{
    return (tsr_shared_block){
        .out = sample_row_room(m->device, (size_t)T * H),
        .rows = m->rows,
        .mlp = &m->mlp,
        .row_bytes = m->experts.row_bytes,
        .tokens = T,
    };
}

static tsr_experts_block experts_of(const model *m)
{
    return (tsr_experts_block){
        .answers = sample_row_room(m->device, (size_t)T * K * H),
        .rows = m->rows,
        .row_count = m->row_count,
        .answer_of = m->answer_of,
        .experts = &m->experts,
        .most_rows = T,
    };
}

static tsr_combine_block combine_of(const model *m)
{
    return (tsr_combine_block){
        .x = m->x,
        .answers = sample_row_room(m->device, (size_t)T * K * H),
        .weight = m->floats,
        .tokens = T,
        .hidden = H,
        .top_k = K,
    };
}

static tsr_predict_block predict_of(const model *m)
{
    return (tsr_predict_block){
        .sampled = sample_room(m->device, 2 * sizeof(tsr_sampled)),
        .logits = sample_room(m->device, sizeof(float) * 2 * V),
        .x = m->x,
        .x_row = m->place,
        .row = m->sample,
        .norm = m->floats,
        .head = &m->head,
        .text = {m->text, SLOTS, POSITIONS},
        .rows = 2,
        .samples = 2,
        .allowed = V,
        .eps = 1.0F,
    };
}

/* All blocks, on rows that are right or as many as `tokens`. */
static void run_all(const model *m, int32_t tokens)
{
    tsr_embed_block embed = embed_of(m);
    tsr_attention_block attention = attention_of(m);
    tsr_mlp_block mlp = mlp_of(m);
    tsr_choose_block choose = choose_of(m);
    tsr_shared_block shared = shared_of(m);
    tsr_experts_block experts = experts_of(m);
    tsr_combine_block combine = combine_of(m);
    tsr_predict_block predict = predict_of(m);

    embed.tokens = attention.tokens = mlp.tokens = choose.tokens = tokens;
    shared.tokens = combine.tokens = predict.rows = predict.samples = tokens;
    if (tokens == 0)
        sample_write(m->device, m->row_count, &tokens, sizeof(tokens));
    ASSERT_STATUS(TSR_OK, tsr_block_embed(m->device, &embed, stream));
    ASSERT_STATUS(TSR_OK, tsr_block_attention(m->device, &attention, stream));
    ASSERT_STATUS(TSR_OK, tsr_block_mlp(m->device, &mlp, stream));
    ASSERT_STATUS(TSR_OK, tsr_block_choose(m->device, &choose, stream));
    ASSERT_STATUS(TSR_OK, tsr_block_shared(m->device, &shared, stream));
    ASSERT_STATUS(TSR_OK, tsr_block_experts(m->device, &experts, stream));
    ASSERT_STATUS(TSR_OK, tsr_block_combine(m->device, &combine, stream));
    ASSERT_STATUS(TSR_OK, tsr_block_predict(m->device, &predict, stream));
}

/* What blocks write to, on the host. */
typedef struct written {
    float x[T * H];
    unsigned char rows[T * (H * 4 + 16)];
    int32_t text[SLOTS * POSITIONS];
} written;

static void get_written(const model *m, written *ret)
{
    memset(ret, 0, sizeof(*ret));
    sample_get_rows(m->device, ret->x, m->x, (size_t)T * H);
    sample_get(m->device, ret->rows, m->rows, T * m->experts.row_bytes);
    sample_get(m->device, ret->text, m->text, sizeof(ret->text));
}

static void no_rows_do_nothing(void **state)
{
    static const written untouched;
    written after;
    model m;

    (void)state;
    open_model(&m);
    run_all(&m, 0);
    get_written(&m, &after);
    ASSERT_STATUS(TSR_OK, tsr_device_fault(m.device));
    assert_memory_equal(&untouched, &after, sizeof(after));
    assert_int_equal(0, lines.used);
    sample_close(m.device);
}

/* So that what is refused below is refused for the one thing that is wrong. */
static void rows_that_are_right_are_taken(void **state)
{
    static const written untouched;
    static const int32_t one = 1;
    written after;
    model m;

    (void)state;
    open_model(&m);
    sample_write(m.device, m.row_count, &one, sizeof(one));
    run_all(&m, T);
    get_written(&m, &after);
    assert_memory_not_equal(untouched.x, after.x, sizeof(after.x));
    assert_memory_not_equal(untouched.rows, after.rows, sizeof(after.rows));
    assert_int_equal(0, lines.used);
    sample_close(m.device);
}

/* Ways in which a block can be wrong in device memory. */
static void embed_no_id(model *m)
{
    static const int32_t id = V;
    const tsr_embed_block b = embed_of(m);

    sample_write(m->device, m->text, &id, sizeof(id));
    ASSERT_STATUS(TSR_OK, tsr_block_embed(m->device, &b, stream));
}

static void embed_no_place(model *m)
{
    static const int32_t places[T] = {0, POSITIONS};
    tsr_embed_block b = embed_of(m);

    b.position = sample_put(m->device, places, sizeof(places));
    ASSERT_STATUS(TSR_OK, tsr_block_embed(m->device, &b, stream));
}

static void embed_no_slot(model *m)
{
    static const int32_t places[T] = {-1, 0};
    tsr_embed_block b = embed_of(m);

    b.slot = sample_put(m->device, places, sizeof(places));
    ASSERT_STATUS(TSR_OK, tsr_block_embed(m->device, &b, stream));
}

static void attend(model *m, tsr_attention_sequence sequence)
{
    const tsr_attention_block b = attention_of(m);

    sample_write(m->device, m->sequence, &sequence, sizeof(sequence));
    ASSERT_STATUS(TSR_OK, tsr_block_attention(m->device, &b, stream));
}

static void attend_beyond_the_context(model *m)
{
    attend(m, (tsr_attention_sequence){.rows = T, .first_position = 7});
}

static void attend_beyond_the_step(model *m)
{
    attend(m, (tsr_attention_sequence){.rows = T, .first_row = 1});
}

static void attend_no_block(model *m)
{
    static const int32_t block = 1;

    sample_write(m->device, m->kv_table, &block, sizeof(block));
    attend(m, (tsr_attention_sequence){.rows = T});
}

static void compute_experts(model *m)
{
    const tsr_experts_block b = experts_of(m);

    ASSERT_STATUS(TSR_OK, tsr_block_experts(m->device, &b, stream));
}

static void too_many_rows(model *m)
{
    static const int32_t count = T + 1;

    sample_write(m->device, m->row_count, &count, sizeof(count));
    compute_experts(m);
}

static void more_rows_than_said(model *m)
{
    tsr_experts_block b = experts_of(m);
    b.most_rows = T - 1;
    ASSERT_STATUS(TSR_OK, tsr_block_experts(m->device, &b, stream));
}

static void write_id(model *m, int32_t id)
{
    const size_t at = H * tsr_device_activation_bytes(m->device) + sizeof(int32_t);

    sample_write(m->device, m->rows + at, &id, sizeof(id));
    compute_experts(m);
}

static void an_expert_elsewhere(model *m)
{
    write_id(m, 3);
}

static void an_expert_nowhere(model *m)
{
    write_id(m, E);
}

static void too_many_answers(model *m)
{
    static const int32_t answer_of[T * K] = {0, 1, 2, 3};

    sample_write(m->device, m->answer_of, answer_of, sizeof(answer_of));
    compute_experts(m);
}

static void predict(model *m, tsr_sample_row second)
{
    const tsr_predict_block b = predict_of(m);
    const tsr_sample_row rows[2] = {{.top_p = 1.0F}, second};

    sample_write(m->device, m->sample, rows, sizeof(rows));
    ASSERT_STATUS(TSR_OK, tsr_block_predict(m->device, &b, stream));
}

static void predict_no_row(model *m)
{
    static const int32_t rows[2] = {0, T};

    sample_write(m->device, m->place, rows, sizeof(rows));
    predict(m, (tsr_sample_row){.top_p = 1.0F});
}

static void predict_no_logits(model *m)
{
    predict(m, (tsr_sample_row){.top_p = 1.0F, .logit_row = 2});
}

static void predict_no_slot(model *m)
{
    predict(m, (tsr_sample_row){.top_p = 1.0F, .slot = SLOTS, .position = 1});
}

static const struct {
    void (*go_wrong)(model *m);
    const char *line;
} faults[] = {
    {embed_no_id, "embed: id 20 of token 0 is not in 0..19"},
    {embed_no_place, "embed: slot 0, position 4 of token 1 is outside the text"},
    {embed_no_slot, "embed: slot -1, position 0 of token 0 is outside the text"},
    {attend_beyond_the_context, "attention: sequence 0, rows up to 2, positions up to 9"},
    {attend_beyond_the_step, "attention: sequence 0, rows up to 3, positions up to 2"},
    {attend_no_block, "attention: sequence 0 holds block 1 of 1"},
    {too_many_rows, "experts: 3 rows, reserved were 2"},
    {more_rows_than_said, "experts: 2 rows, reserved were 1"},
    {an_expert_elsewhere, "experts: row 0, slot 1 asks for expert 3, which is not here"},
    {an_expert_nowhere, "experts: row 0, slot 1 asks for expert 4, which is not here"},
    {too_many_answers, "experts: row 1, slot 1 asks for one answer more than the 3 reserved"},
    {predict_no_row, "predict: logits 1 are those of row 2, reserved were 2"},
    {predict_no_logits, "predict: sample 1 is of logits 2 of 2"},
    {predict_no_slot, "predict: sample 1 goes to slot 2 of 2"},
};
enum { FAULTS = sizeof(faults) / sizeof(faults[0]) };

/* The block that finds it writes nothing, and no block after it. */
static void a_fault_stays_is_told_once_and_stops_every_block(void **state)
{
    (void)state;
    for (int i = 0; i < FAULTS; i++) {
        written before;
        written after;
        model m;
        open_model(&m);
        sample_write(m.device, m.x, "some bytes of x", 16);
        ASSERT_STATUS(TSR_OK, tsr_device_fault(m.device));
        faults[i].go_wrong(&m);
        get_written(&m, &before);
        assert_int_equal(0, lines.used);
        for (int n = 0; n < 3; n++)
            ASSERT_STATUS(TSR_ERR_ARG, tsr_device_fault(m.device));
        if (log_lines_count(&lines, faults[i].line) != 1)
            fail_msg("not said once: %s\n%s", faults[i].line, lines.text);
        run_all(&m, T);
        get_written(&m, &after);
        assert_memory_equal(&before, &after, sizeof(after));
        assert_memory_equal("some bytes of x", after.x, 16);
        sample_close(m.device);
    }
}

static void the_first_fault_is_the_one_that_is_told(void **state)
{
    written after;
    model m;

    (void)state;
    open_model(&m);
    too_many_answers(&m);
    embed_no_id(&m);
    get_written(&m, &after); /* so that both have run */
    ASSERT_STATUS(TSR_ERR_ARG, tsr_device_fault(m.device));
    assert_int_equal(1, log_lines_count(&lines, "experts: row 1, slot 1"));
    assert_int_equal(0, log_lines_count(&lines, "embed"));
    sample_close(m.device);
}

static void refused(tsr_status st, const char *what)
{
    ASSERT_STATUS(TSR_ERR_ARG, st);
    if (!log_lines_say(&lines, what))
        fail_msg("%s does not say: %s", lines.text, what);
    log_lines_clear(&lines);
}

#define REFUSED(name, field, wrong, what)                                                          \
    do {                                                                                           \
        tsr_##name##_block b_ = name##_of(&m);                                                     \
        b_.field = wrong;                                                                          \
        refused(tsr_block_##name(m.device, &b_, stream), what);                                    \
    } while (0)

static void more_than_reserved_is_refused(void **state)
{
    model m;

    (void)state;
    open_model(&m);
    REFUSED(embed, tokens, T + 1, "embed: more tokens than reserved");
    REFUSED(embed, tokens, -1, "embed: more tokens than reserved");
    REFUSED(attention, tokens, T + 1, "attention: more tokens than reserved");
    REFUSED(mlp, tokens, T + 1, "mlp: more tokens than reserved");
    REFUSED(choose, tokens, T + 1, "choose: more tokens than reserved");
    REFUSED(shared, tokens, T + 1, "shared: more tokens than reserved");
    REFUSED(combine, tokens, T + 1, "combine: more tokens than reserved");
    REFUSED(predict, rows, 3, "predict: more rows or samples than reserved");
    REFUSED(predict, samples, 3, "predict: more rows or samples than reserved");
    sample_close(m.device);
}

static void shapes_that_contradict_each_other_are_refused(void **state)
{
    tsr_linear wide, unloaded;
    tsr_mlp crooked;
    model m;

    (void)state;
    open_model(&m);
    wide = load(&m, H, 64);
    unloaded = m.head;
    unloaded.weight = NULL;
    crooked = m.mlp;
    crooked.down = m.o;
    REFUSED(embed, table, &wide, "embed: the table is not");
    REFUSED(embed, text.ids, NULL, "embed: there is no text");
    REFUSED(attention, q_heads, 1, "attention: q, k, v and o do not fit");
    REFUSED(attention, k, &m.q, "attention: q, k, v and o do not fit");
    REFUSED(attention, o, &wide, "attention: q, k, v and o do not fit");
    REFUSED(attention, rotary_dim, 5, "attention: rotary_dim is odd");
    REFUSED(attention, rotary_dim, D + 2, "attention: rotary_dim is odd or wider");
    REFUSED(attention, cache, NULL, "attention: the cache has a missing or odd shape");
    REFUSED(mlp, mlp, &crooked, "mlp: gate, up and down do not fit");
    REFUSED(mlp, mlp, NULL, "mlp: gate, up and down do not fit");
    REFUSED(choose, experts, NULL, "choose: the experts are not made");
    REFUSED(shared, mlp, &crooked, "shared: gate, up and down do not fit");
    REFUSED(shared, row_bytes, m.experts.row_bytes + 8, "shared: row_bytes is not that of");
    REFUSED(experts, experts, NULL, "experts: the experts are not made");
    REFUSED(combine, top_k, 0, "combine: no width or no slots");
    REFUSED(combine, coming, &m, "combine: nobody says when answers come no more");
    REFUSED(predict, head, &wide, "predict: the head is not loaded or wider than reserved");
    REFUSED(predict, head, &unloaded, "predict: the head is not loaded");
    REFUSED(predict, allowed, 0, "predict: the allowed ids are not 1..vocab");
    REFUSED(predict, allowed, V + 1, "predict: the allowed ids are not 1..vocab");
    m.cache.kv_heads = 3;
    REFUSED(attention, q_heads, 2, "attention: query heads are not a multiple of kv heads");
    m.cache.head_dim = 2 * D;
    REFUSED(attention, q_heads, 2, "attention: heads wider than reserved");
    ASSERT_STATUS(TSR_OK, tsr_device_fault(m.device));
    sample_close(m.device);
}

static int catch_lines(void **state)
{
    (void)state;
    tsr_log_set_sink(log_lines_catch, &lines);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_rows_do_nothing),
        cmocka_unit_test(rows_that_are_right_are_taken),
        cmocka_unit_test(a_fault_stays_is_told_once_and_stops_every_block),
        cmocka_unit_test(the_first_fault_is_the_one_that_is_told),
        cmocka_unit_test(more_than_reserved_is_refused),
        cmocka_unit_test(shapes_that_contradict_each_other_are_refused),
    };
    return cmocka_run_group_tests(tests, catch_lines, NULL);
}
