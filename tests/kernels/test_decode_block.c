/*
 * The attention block of one row each of several sequences, whose keys and values are in the cache: the
 * bits of the operations that it is made of, whatever kernels a device has for so few rows.
 */
#include "tests/kernels/block_parts.h"
#include "tests/kernels/samples.h"
#include "tests/test.h"

#include <stdlib.h>

static const tsr_stream stream = {NULL};

static const float eps = 1e-6F;

enum { H = 256, ROWS = 8, BLOCK_TOKENS = 16, WIDEST = 4096 };

/* Heads, and where the rows are. */
typedef struct decode_shape {
    int32_t heads;
    int32_t kv_heads;
    int32_t dim;
    int32_t rotary;
    int32_t rows;
    int32_t position[ROWS]; /* the first is the last of all */
} decode_shape;

/* A row of each sequence, behind what is in the cache. */
typedef struct decode_data {
    const decode_shape *shape;
    sample_linear *linear[4];
    float x[ROWS * H];
    float norm[H];
    float head_norm[WIDEST];
    float *turn;
    unsigned char *cache;
    unsigned char *after[2]; /* keys, then values */
    size_t bytes;            /* of keys */
    tsr_attention_sequence sequence[ROWS];
    int32_t *table;
    int32_t blocks; /* of a sequence */
    tsr_kv_format format;
    tsr_status status; /* that the device comes to */
} decode_data;

static void new_decode(sample_random *r, const decode_shape *s, sample_kind kind,
                       tsr_kv_format format, decode_data *d)
{
    const int32_t width = s->heads * s->dim;
    const int32_t kv = s->kv_heads * s->dim;
    const int32_t out[4] = {width, kv, kv, H};
    const size_t turns = (size_t)(s->position[0] + 1) * (size_t)s->rotary / 2;

    d->shape = s;
    d->format = format;
    d->status = TSR_OK;
    d->blocks = s->position[0] / BLOCK_TOKENS + 1;
    d->bytes = (size_t)s->rows * (size_t)d->blocks * BLOCK_TOKENS * (size_t)kv * 2;
    d->turn = sample_memory(turns * sizeof(float));
    d->cache = sample_memory(d->bytes);
    d->after[0] = sample_memory(2 * d->bytes);
    d->after[1] = sample_memory(2 * d->bytes);
    d->table = sample_memory(sizeof(int32_t) * (size_t)(s->rows * d->blocks));
    for (int i = 0; i < 4; i++)
        d->linear[i] = sample_linear_new(r, kind, out[i], i < 3 ? H : width);
    sample_floats(r, d->x, sizeof(d->x) / sizeof(float), 2.0F);
    sample_floats(r, d->norm, H, 0.5F);
    sample_floats(r, d->head_norm, (size_t)s->dim, 1.0F);
    sample_floats(r, d->turn, turns, 1.0F);
    for (size_t i = 0; i < d->bytes; i++)
        d->cache[i] = (unsigned char)(sample_u32(r) & 0xbf); /* small numbers in every format */
    for (int i = 0; i < s->rows * d->blocks; i++)
        d->table[i] = s->rows * d->blocks - 1 - i;
    for (int i = 0; i < s->rows; i++)
        d->sequence[i] = (tsr_attention_sequence){.first_row = i,
                                                  .rows = 1,
                                                  .first_position = s->position[i],
                                                  .first_block = i * d->blocks};
}

static void free_decode(decode_data *d)
{
    for (int i = 0; i < 4; i++)
        sample_linear_free(d->linear[i]);
    free(d->turn);
    free(d->cache);
    free(d->after[0]);
    free(d->after[1]);
    free(d->table);
}

/* By the block, or by its parts: so many rows, and the whole cache. */
static void decode(tsr_device *device, const decode_data *d, int32_t rows, bool by_parts, float *x)
{
    const decode_shape *s = d->shape;
    tsr_linear linear[4];
    tsr_kv_layer layer = {
        .keys = sample_put(device, d->cache, d->bytes),
        .values = sample_put(device, d->cache, d->bytes),
        .format = d->format,
        .key_scale = 0.01F,
        .value_scale = 0.02F,
        .blocks = s->rows * d->blocks,
        .block_tokens = BLOCK_TOKENS,
        .kv_heads = s->kv_heads,
        .head_dim = s->dim,
    };
    const size_t turns = (size_t)(s->position[0] + 1) * (size_t)s->rotary / 2;

    for (int i = 0; i < 4; i++)
        linear[i] = sample_load(device, d->linear[i]);
    const tsr_attention_block b = {
        .x = sample_rows(device, d->x, (size_t)rows * H),
        .norm = sample_put(device, d->norm, sizeof(d->norm)),
        .q = &linear[0],
        .k = &linear[1],
        .v = &linear[2],
        .o = &linear[3],
        .q_norm = sample_put(device, d->head_norm, sizeof(float) * (size_t)s->dim),
        .k_norm = sample_put(device, d->head_norm, sizeof(float) * (size_t)s->dim),
        .cos = sample_put(device, d->turn, sizeof(float) * turns),
        .sin = sample_put(device, d->turn, sizeof(float) * turns),
        .cache = &layer,
        .position = sample_put(device, s->position, sizeof(s->position)),
        .sequence = sample_put(device, d->sequence, sizeof(d->sequence)),
        .blocks = sample_put(device, d->table, sizeof(int32_t) * (size_t)(s->rows * d->blocks)),
        .tokens = rows,
        .sequences = rows,
        .q_heads = s->heads,
        .rotary_dim = s->rotary,
        .eps = eps,
    };
    if (by_parts)
        attend_by_parts(device, &b);
    ASSERT_STATUS(TSR_OK, by_parts ? TSR_OK : tsr_block_attention(device, &b, stream));
    sample_get_rows(device, x, b.x, (size_t)rows * H);
    sample_get(device, d->after[by_parts], layer.keys, d->bytes);
    sample_get(device, d->after[by_parts] + d->bytes, layer.values, d->bytes);
    ASSERT_STATUS(d->status, tsr_device_fault(device));
}

/* One behind the other, so that what a kernel leaves for the next is looked at too. */
static void compare(tsr_device *device, const decode_data *d, int count, const int32_t *rows)
{
    float x[2][ROWS * H];

    for (int i = 0; i < count; i++) {
        const size_t bytes = sizeof(float) * (size_t)rows[i] * H;
        decode(device, d, rows[i], false, x[0]);
        decode(device, d, rows[i], true, x[1]);
        assert_memory_equal(x[0], x[1], bytes);
        assert_memory_not_equal(d->x, x[0], bytes);
        assert_memory_equal(d->after[0], d->after[1], 2 * d->bytes);
    }
}

/* A CPU computes the block by its parts, whatever its instructions, so that one is enough; and a GPU. */
enum { DEVICES = 2 };

static tsr_device *open_for(int n, const decode_shape *s)
{
    tsr_work_shape shape = sample_heads_shape;

    if (s->heads * s->dim > shape.max_in)
        shape.max_in = s->heads * s->dim;
    shape.max_context = s->position[0] + 1;
    shape.q_heads = s->heads;
    shape.kv_heads = s->kv_heads;
    shape.head_dim = s->dim;
    return sample_device(n == 0 ? sample_best_cpu() : SAMPLE_DEVICES - 1, &shape);
}

static void decoded_rows_have_the_bits_of_the_parts(void **state)
{
    static const sample_kind kinds[] = {
        {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, true, false},
        {TSR_WEIGHT_FP8, TSR_ACTIVATION_NONE, false, true},
        {TSR_WEIGHT_FP8_BLOCK, TSR_ACTIVATION_NONE, false, false},
        {TSR_WEIGHT_FP8_CHANNEL, TSR_ACTIVATION_FP8_TOKEN, false, false},
        {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false},
        {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8, false, true},
    };
    static const decode_shape shape = {8, 2, 128, 128, ROWS, {299, 0, 127, 128, 63, 255, 17, 200}};
    static const int32_t rows[] = {1, 2, 3, ROWS, 1};
    enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };
    static decode_data d;
    sample_random r = {5};

    (void)state;
    for (int n = 0; n < KINDS * DEVICES; n++) {
        tsr_device *device = open_for(n / KINDS, &shape);
        new_decode(&r, &shape, kinds[n % KINDS], n % 2 == 0 ? TSR_KV_BF16 : TSR_KV_FP8, &d);
        if (device != NULL)
            compare(device, &d, sizeof(rows) / sizeof(rows[0]), rows);
        sample_close(device);
        free_decode(&d);
    }
}

/* More query heads of a kv head than eight, and than sixteen; heads of other widths, turned in part or
 * across lanes; rows of one split, and of so many that a CTA takes several. */
static void shapes_have_the_bits_of_the_parts(void **state)
{
    static const decode_shape shapes[] = {
        {40, 2, 64, 64, 3, {299, 128, 60}},   {24, 2, 96, 36, 3, {299, 128, 60}},
        {16, 1, 256, 128, 3, {299, 128, 60}}, {3, 1, 256, 256, 3, {200, 128, 60}},
        {2, 1, 48, 0, 3, {127, 126, 0}},      {64, 64, 16, 16, 3, {1100, 1023, 5}},
    };
    static const sample_kind kind = {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false};
    static const int32_t rows[] = {1, 3};
    enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };
    static decode_data d;
    sample_random r = {6};

    (void)state;
    for (int n = 0; n < 2 * SHAPES * DEVICES; n++) {
        const decode_shape *shape = &shapes[n / 2 % SHAPES];
        tsr_device *device = open_for(n / 2 / SHAPES, shape);
        new_decode(&r, shape, kind, n % 2 == 0 ? TSR_KV_BF16 : TSR_KV_FP8, &d);
        if (device != NULL)
            compare(device, &d, sizeof(rows) / sizeof(rows[0]), rows);
        sample_close(device);
        free_decode(&d);
    }
}

/* A block that is none, in the first row's table, where any of its CTAs comes upon it. */
static void a_block_that_is_none_is_a_fault(void **state)
{
    static const decode_shape shape = {8, 2, 128, 128, 3, {299, 128, 60}};
    static const sample_kind kind = {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false};
    static decode_data d;
    float x[ROWS * H];
    sample_random r = {7};

    (void)state;
    new_decode(&r, &shape, kind, TSR_KV_BF16, &d);
    for (int n = 0; n < 6 * DEVICES; n++) {
        const int32_t at[3] = {0, d.blocks / 2, d.blocks - 1};
        tsr_device *device = open_for(n / 6, &shape);
        int32_t *entry = &d.table[at[n % 3]];
        const int32_t block = *entry;

        *entry = n % 2 == 0 ? -1 : shape.rows * d.blocks;
        d.status = TSR_ERR_ARG;
        if (device != NULL)
            decode(device, &d, n % 6 < 3 ? 1 : shape.rows, false, x);
        *entry = block;
        sample_close(device);
    }
    free_decode(&d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoded_rows_have_the_bits_of_the_parts),
        cmocka_unit_test(shapes_have_the_bits_of_the_parts),
        cmocka_unit_test(a_block_that_is_none_is_a_fault),
    };
    test_choose(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
