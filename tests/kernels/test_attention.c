/*
 * Attention over the paged cache, against its definition in double; chunks, blocks and neighbours
 * change no bit, nor does it matter whether a position is one of a prompt or decoded.
 */
#include "tests/kernels/samples.h"

#include "runtime/base/numeric.h"
#include "runtime/base/sizes.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tsr_stream stream = {NULL};

/* One model shape and cache; sequences of rows, some of which may be in the cache already. */
typedef struct attention_case {
    tsr_kv_format format;
    int32_t q_heads, kv_heads, head_dim, block_tokens;
    int32_t positions; /* of one sequence */
} attention_case;

typedef struct sequence_data {
    float *q; /* [positions, q_heads, D] */
    float *k;
    float *v;
    float *out;
} sequence_data;

static size_t q_floats(const attention_case *c)
{
    return (size_t)c->positions * (size_t)c->q_heads * (size_t)c->head_dim;
}

static size_t kv_floats(const attention_case *c)
{
    return (size_t)c->positions * (size_t)c->kv_heads * (size_t)c->head_dim;
}

static sequence_data new_sequence(sample_random *r, const attention_case *c)
{
    const sequence_data s = {
        .q = sample_memory(q_floats(c) * sizeof(float)),
        .k = sample_memory(kv_floats(c) * sizeof(float)),
        .v = sample_memory(kv_floats(c) * sizeof(float)),
        .out = sample_memory(q_floats(c) * sizeof(float)),
    };

    sample_floats(r, s.q, q_floats(c), 1.0F);
    sample_floats(r, s.k, kv_floats(c), 1.0F);
    sample_floats(r, s.v, kv_floats(c), 1.0F);
    return s;
}

static void free_sequence(sequence_data *s)
{
    free(s->q);
    free(s->k);
    free(s->v);
    free(s->out);
}

enum { MOST_BLOCKS = 200 };

/* A cache whose block table runs backwards from its end; all of it in device memory. */
typedef struct cache_data {
    tsr_kv_layer layer;
    int32_t *table;
} cache_data;

static void open_cache(tsr_device *device, const attention_case *c, cache_data *ret)
{
    const int32_t blocks = tsr_pieces(c->positions, c->block_tokens) + 1;
    const size_t bytes =
        (size_t)(blocks * c->block_tokens * c->kv_heads * c->head_dim) * sizeof(float);
    int32_t table[MOST_BLOCKS];

    assert_true(blocks <= MOST_BLOCKS);
    for (int32_t b = 0; b < blocks; b++)
        table[b] = blocks - 1 - b;
    ret->table = sample_put(device, table, (size_t)blocks * sizeof(*table));
    ret->layer = (tsr_kv_layer){
        .keys = sample_room(device, bytes),
        .values = sample_room(device, bytes),
        .format = c->format,
        .key_scale = c->format == TSR_KV_FP8 ? 0.01F : 1.0F,
        .value_scale = c->format == TSR_KV_FP8 ? 0.02F : 1.0F,
        .blocks = blocks,
        .block_tokens = c->block_tokens,
        .kv_heads = c->kv_heads,
        .head_dim = c->head_dim,
    };
}

/* Positions first .. first + rows in one operation. */
static void attend(tsr_device *device, const attention_case *c, sequence_data *s,
                   const cache_data *cache, int32_t first, int32_t rows)
{
    const size_t q_row = (size_t)c->q_heads * (size_t)c->head_dim;
    const size_t kv_row = (size_t)c->kv_heads * (size_t)c->head_dim;
    const size_t q_at = (size_t)first * q_row;
    const size_t kv_at = (size_t)first * kv_row;
    const tsr_attention_sequence sequence = {.rows = rows, .first_position = first};
    const tsr_attention_args a = {
        .out = sample_row_room(device, (size_t)rows * q_row),
        .q = sample_rows(device, s->q + q_at, (size_t)rows * q_row),
        .k = sample_rows(device, s->k + kv_at, (size_t)rows * kv_row),
        .v = sample_rows(device, s->v + kv_at, (size_t)rows * kv_row),
        .cache = &cache->layer,
        .sequence = sample_put(device, &sequence, sizeof(sequence)),
        .blocks = cache->table,
        .sequences = 1,
        .tokens = rows,
        .q_heads = c->q_heads,
    };
    ASSERT_STATUS(TSR_OK, device->ops->attention(device, &a, stream));
    sample_get_rows(device, s->out + q_at, a.out, (size_t)rows * q_row);
}

/* What the cache keeps of x. */
static double kept(const attention_case *c, float x, float scale)
{
    if (c->format == TSR_KV_BF16)
        return (double)tsr_bf16_to_f32(tsr_f32_to_bf16(x));
    if (c->format == TSR_KV_FP8)
        return (double)tsr_e4m3_to_f32(tsr_f32_to_e4m3(x / scale)) * (double)scale;
    return (double)x;
}

/*
 * One row and head in double. A score errs by (D/16 + 6) 2^-24 of its magnitudes, which are at most
 * D |q| |k| / sqrt(D) <= sqrt(D); exp turns that into a relative error of each weight; a sum of n
 * weights and n products adds n / 16 + n roundings.
 */
static void assert_head(const attention_case *c, const sequence_data *s, int32_t p, int32_t head)
{
    const size_t dim = (size_t)c->head_dim;
    const size_t kv = (size_t)(head / (c->q_heads / c->kv_heads));
    const float *q = s->q + ((size_t)p * (size_t)c->q_heads + (size_t)head) * dim;
    const float *out = s->out + ((size_t)p * (size_t)c->q_heads + (size_t)head) * dim;
    const double bound = ((double)c->head_dim / 16.0 + 6.0) * 2.0 * sqrt((double)c->head_dim) +
                         (double)p * 17.0 / 16.0 + 12.0;
    double weight[512];
    double most = (double)-INFINITY;
    double sum = 0.0;

    for (int32_t i = 0; i <= p; i++) {
        const float *k = s->k + ((size_t)i * (size_t)c->kv_heads + kv) * dim;
        weight[i] = 0.0;
        for (size_t d = 0; d < dim; d++)
            weight[i] += (double)q[d] * kept(c, k[d], 0.01F);
        weight[i] /= sqrt((double)c->head_dim);
        most = fmax(most, weight[i]);
    }
    for (int32_t i = 0; i <= p; i++)
        sum += weight[i] = exp(weight[i] - most);
    for (size_t d = 0; d < dim; d++) {
        double expected = 0.0;
        double size = 0.0;
        for (int32_t i = 0; i <= p; i++) {
            const float *v = s->v + ((size_t)i * (size_t)c->kv_heads + kv) * dim;
            expected += weight[i] / sum * kept(c, v[d], 0.02F);
            size += weight[i] / sum * fabs(kept(c, v[d], 0.02F));
        }
        if (!(fabs((double)out[d] - expected) <= bound * 0x1p-24 * size))
            fail_msg("position %d, head %d: %.9g, not %.9g", (int)p, (int)head, (double)out[d],
                     expected);
    }
}

static const attention_case cases[] = {
    {TSR_KV_F32, 4, 2, 32, 16, 37},  {TSR_KV_BF16, 8, 1, 16, 5, 21},
    {TSR_KV_FP8, 6, 2, 64, 8, 33},   {TSR_KV_F32, 1, 1, 128, 1, 3},
    {TSR_KV_FP8, 32, 2, 48, 32, 19}, {TSR_KV_BF16, 3, 3, 112, 16, 17},
    {TSR_KV_F32, 2, 1, 16, 16, 290},
};
enum { CASES = sizeof(cases) / sizeof(cases[0]) };

static void attention_meets_its_definition_with_the_same_bits_everywhere(void **state)
{
    sample_random r = {1};

    (void)state;
    for (size_t n = 0; n < CASES; n++) {
        const attention_case *c = &cases[n];
        sequence_data s = new_sequence(&r, c);
        float *first = sample_memory(q_floats(c) * sizeof(float));
        for (int i = 0; i < SAMPLE_DEVICES; i++) {
            tsr_device *device = sample_device(i, &sample_heads_shape);
            cache_data cache;
            if (device == NULL)
                continue;
            open_cache(device, c, &cache);
            attend(device, c, &s, &cache, 0, c->positions);
            if (i == 0)
                memcpy(first, s.out, q_floats(c) * sizeof(float));
            else
                sample_assert_like(i, first, s.out, q_floats(c));
            sample_close(device);
        }
        memcpy(s.out, first, q_floats(c) * sizeof(float));
        for (int32_t p = 0; p < c->positions; p++) {
            for (int32_t h = 0; h < c->q_heads; h++)
                assert_head(c, &s, p, h);
        }
        free(first);
        free_sequence(&s);
    }
}

/* In chunks of 1, 7 and all; with blocks of another size; both on every device. */
static void chunks_and_blocks_change_no_bit(void **state)
{
    static const int32_t chunks[] = {1, 7, 512};
    sample_random r = {2};

    (void)state;
    for (size_t n = 0; n < CASES; n++) {
        attention_case c = cases[n];
        sequence_data s = new_sequence(&r, &c);
        float *first = sample_memory(q_floats(&c) * sizeof(float));
        float *own = sample_memory(q_floats(&c) * sizeof(float)); /* of this device */
        for (int i = 0; i < 3 * SAMPLE_DEVICES; i++) {
            tsr_device *device = sample_device(i / 3, &sample_heads_shape);
            cache_data cache;
            if (device == NULL)
                continue;
            c.block_tokens = cases[n].block_tokens + i % 3 * 3;
            open_cache(device, &c, &cache);
            memset(s.out, 0, q_floats(&c) * sizeof(float));
            for (int32_t p = 0; p < c.positions; p += chunks[i % 3]) {
                const int32_t left = c.positions - p;
                attend(device, &c, &s, &cache, p, left < chunks[i % 3] ? left : chunks[i % 3]);
            }
            if (i % 3 == 0)
                memcpy(own, s.out, q_floats(&c) * sizeof(float));
            if (i == 0)
                memcpy(first, s.out, q_floats(&c) * sizeof(float));
            assert_memory_equal(own, s.out, q_floats(&c) * sizeof(float));
            sample_assert_like(i / 3, first, s.out, q_floats(&c));
            sample_close(device);
        }
        free(first);
        free(own);
        free_sequence(&s);
    }
}

/* Two sequences in one operation, the second with an empty one before it. */
static void sequences_beside_each_other_change_no_bit(void **state)
{
    static const attention_case c = {TSR_KV_F32, 4, 2, 32, 4, 10};
    const size_t half = q_floats(&c) / 2;
    sample_random r = {3};
    sequence_data s = new_sequence(&r, &c); /* positions 0..4 of one, then of the other */
    float *together = sample_memory(q_floats(&c) * sizeof(float));

    (void)state;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        static const tsr_attention_sequence both[3] = {
            {.first_row = 5, .rows = 5, .first_block = 2},
            {.first_row = 0, .rows = 0, .first_block = 0},
            {.first_row = 0, .rows = 5, .first_block = 0},
        };
        tsr_device *device = sample_device(i, &sample_heads_shape);
        cache_data cache;
        if (device == NULL)
            continue;
        open_cache(device, &c, &cache);
        const tsr_attention_args a = {
            .out = sample_row_room(device, q_floats(&c)),
            .q = sample_rows(device, s.q, q_floats(&c)),
            .k = sample_rows(device, s.k, kv_floats(&c)),
            .v = sample_rows(device, s.v, kv_floats(&c)),
            .cache = &cache.layer,
            .sequence = sample_put(device, both, sizeof(both)),
            .blocks = cache.table,
            .sequences = 3,
            .tokens = c.positions,
            .q_heads = c.q_heads,
        };
        ASSERT_STATUS(TSR_OK, device->ops->attention(device, &a, stream));
        sample_get_rows(device, together, a.out, q_floats(&c));
        attention_case one = c;
        one.positions = 5;
        attend(device, &one, &s, &cache, 0, 5);
        assert_memory_equal(together, s.out, half * sizeof(float));
        sequence_data second = {s.q + half, s.k + kv_floats(&c) / 2, s.v + kv_floats(&c) / 2,
                                s.out + half};
        attend(device, &one, &second, &cache, 0, 5);
        assert_memory_equal(together + half, s.out + half, half * sizeof(float));
        sample_close(device);
    }
    free(together);
    free_sequence(&s);
}

/* Long enough that sums are cut several times, wherever a device cuts them. */
enum { LONG = 560 };

static const tsr_work_shape long_shape = {
    .max_tokens = LONG,
    .max_rows = 16,
    .max_answers = 16,
    .max_in = 256,
    .max_intermediate = 64,
    .max_experts = 4,
    .max_context = LONG,
    .max_logit_rows = 16,
    .vocab = 64,
    .hidden = 64,
    .q_heads = 32,
    .kv_heads = 2,
    .head_dim = 128,
    .top_k = 2,
};

static const attention_case long_cases[] = {
    {TSR_KV_BF16, 8, 1, 128, 16, LONG}, {TSR_KV_FP8, 10, 2, 64, 64, 300},
    {TSR_KV_BF16, 12, 1, 80, 7, 300},   {TSR_KV_FP8, 4, 1, 96, 16, LONG},
    {TSR_KV_BF16, 2, 2, 32, 16, LONG},  {TSR_KV_F32, 4, 1, 64, 16, 300},
    {TSR_KV_BF16, 20, 2, 32, 32, LONG},
};
enum { LONG_CASES = sizeof(long_cases) / sizeof(long_cases[0]) };

/* Rows of one sequence's positions, several such at once, against what the prompt gave. */
static void assert_rows_again(tsr_device *device, const attention_case *c, const sequence_data *s,
                              const cache_data *cache, const tsr_attention_sequence *sequence,
                              int32_t sequences)
{
    const size_t q_row = (size_t)c->q_heads * (size_t)c->head_dim;
    const size_t kv_row = (size_t)c->kv_heads * (size_t)c->head_dim;
    int32_t rows = 0;

    for (int32_t n = 0; n < sequences; n++)
        rows += sequence[n].rows;
    float *q = sample_memory((size_t)rows * q_row * sizeof(float));
    float *k = sample_memory((size_t)rows * kv_row * sizeof(float));
    float *v = sample_memory((size_t)rows * kv_row * sizeof(float));
    float *out = sample_memory((size_t)rows * q_row * sizeof(float));
    for (int32_t n = 0; n < sequences; n++) {
        const size_t to = (size_t)sequence[n].first_row;
        const size_t from = (size_t)sequence[n].first_position;
        const size_t count = (size_t)sequence[n].rows * sizeof(float);
        memcpy(q + to * q_row, s->q + from * q_row, count * q_row);
        memcpy(k + to * kv_row, s->k + from * kv_row, count * kv_row);
        memcpy(v + to * kv_row, s->v + from * kv_row, count * kv_row);
    }
    const tsr_attention_args a = {
        .out = sample_row_room(device, (size_t)rows * q_row),
        .q = sample_rows(device, q, (size_t)rows * q_row),
        .k = sample_rows(device, k, (size_t)rows * kv_row),
        .v = sample_rows(device, v, (size_t)rows * kv_row),
        .cache = &cache->layer,
        .sequence = sample_put(device, sequence, (size_t)sequences * sizeof(*sequence)),
        .blocks = cache->table,
        .sequences = sequences,
        .tokens = rows,
        .q_heads = c->q_heads,
    };
    ASSERT_STATUS(TSR_OK, device->ops->attention(device, &a, stream));
    sample_get_rows(device, out, a.out, (size_t)rows * q_row);
    for (int32_t n = 0; n < sequences; n++) {
        const size_t to = (size_t)sequence[n].first_row * q_row;
        const size_t from = (size_t)sequence[n].first_position * q_row;
        assert_memory_equal(s->out + from, out + to,
                            (size_t)sequence[n].rows * q_row * sizeof(float));
    }
    free(q);
    free(k);
    free(v);
    free(out);
}

/* Positions at the borders of whatever a device may cut by, decoded: alone, all in one step, and
 * beside a chunk. All of them are of the same text, whose cache stays what it is. */
static void decode_again(tsr_device *device, const attention_case *c, const sequence_data *s,
                         const cache_data *cache)
{
    static const int32_t positions[] = {0,   1,   15,  16,  63,  64,  127, 128,
                                        255, 256, 257, 299, 511, 512, 559};
    enum { MOST = sizeof(positions) / sizeof(positions[0]) };
    tsr_attention_sequence rows[MOST + 2];
    int32_t count = 0;

    for (; count < MOST && positions[count] < c->positions; count++) {
        const tsr_attention_sequence one = {.rows = 1, .first_position = positions[count]};
        assert_rows_again(device, c, s, cache, &one, 1);
        rows[count] = one;
        rows[count].first_row = count;
    }
    assert_rows_again(device, c, s, cache, rows, count);
    /* As many rows as sequences, though not one of each. */
    rows[count] = (tsr_attention_sequence){.first_row = count, .rows = 2, .first_position = 61};
    rows[count + 1] = (tsr_attention_sequence){.first_row = 0, .rows = 0};
    assert_rows_again(device, c, s, cache, rows, count + 2);
    /* No position twice in one step: two rows would write it. */
    rows[count].first_position = 129;
    rows[count].rows = 126;
    assert_rows_again(device, c, s, cache, rows, count + 1);
}

/* So many that a device need not cut a row; the last two sequences have two rows and none. */
static void decode_dozens_again(tsr_device *device, const attention_case *c, const sequence_data *s,
                                const cache_data *cache)
{
    enum { APART = 3, MOST = LONG / APART };
    tsr_attention_sequence rows[MOST + 1];
    const int32_t count = c->positions / APART;

    for (int32_t n = 0; n < count; n++)
        rows[n] = (tsr_attention_sequence){
            .first_row = n, .rows = 1, .first_position = c->positions - 1 - n * APART};
    assert_rows_again(device, c, s, cache, rows, count);
    rows[count - 1] = (tsr_attention_sequence){.first_row = count - 1, .rows = 2};
    rows[count] = (tsr_attention_sequence){.first_row = count + 1, .rows = 0};
    assert_rows_again(device, c, s, cache, rows, count + 1);
}

static void decoding_a_position_has_the_bits_of_its_prompt(void **state)
{
    sample_random r = {4};

    (void)state;
    for (int i = 0; i < LONG_CASES * SAMPLE_DEVICES; i++) {
        attention_case c = long_cases[i % LONG_CASES];
        tsr_device *device = sample_sized_device(i / LONG_CASES, &long_shape);
        cache_data cache;
        if (device == NULL)
            continue;
        sequence_data s = new_sequence(&r, &c);
        open_cache(device, &c, &cache);
        attend(device, &c, &s, &cache, 0, c.positions);
        decode_again(device, &c, &s, &cache);
        decode_dozens_again(device, &c, &s, &cache);
        sample_close(device);
        free_sequence(&s);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_meets_its_definition_with_the_same_bits_everywhere),
        cmocka_unit_test(chunks_and_blocks_change_no_bit),
        cmocka_unit_test(sequences_beside_each_other_change_no_bit),
        cmocka_unit_test(decoding_a_position_has_the_bits_of_its_prompt),
    };
    test_choose(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
