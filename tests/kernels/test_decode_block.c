/*
 * The attention block of one row each of several sequences, whose keys and values are in the cache: the
 * bits of the operations that it is made of, whatever kernels a device has for so few rows.
 */
#include "tests/kernels/block_parts.h"
#include "tests/kernels/samples.h"
#include "tests/test.h"

static const tsr_stream stream = {NULL};

static const float eps = 1e-6F;

enum {
    H = 256,
    HEADS = 8,
    KV_HEADS = 2,
    D = 128,
    KV = KV_HEADS * D,
    ROWS = 8,
    TABLE = 19, /* blocks of a sequence */
    BLOCK_TOKENS = 16,
    CACHED = ROWS * TABLE * BLOCK_TOKENS * KV,
};

static const int32_t decoded_at[ROWS] = {299, 0, 127, 128, 63, 255, 17, 200};

/* A row of each sequence, behind what is in the cache. */
typedef struct decode_data {
    sample_linear *linear[4];
    float x[ROWS * H];
    float norm[H];
    float head_norm[D];
    float turn[300 * D / 2];
    unsigned char cache[CACHED * 2];
    tsr_attention_sequence sequence[ROWS];
    int32_t table[ROWS * TABLE];
    tsr_kv_format format;
} decode_data;

static void new_decode(sample_random *r, sample_kind kind, tsr_kv_format format, decode_data *d)
{
    const int32_t out[4] = {HEADS * D, KV, KV, H};

    d->format = format;
    for (int i = 0; i < 4; i++)
        d->linear[i] = sample_linear_new(r, kind, out[i], i < 3 ? H : HEADS * D);
    sample_floats(r, d->x, sizeof(d->x) / sizeof(float), 2.0F);
    sample_floats(r, d->norm, H, 0.5F);
    sample_floats(r, d->head_norm, D, 1.0F);
    sample_floats(r, d->turn, sizeof(d->turn) / sizeof(float), 1.0F);
    for (size_t i = 0; i < sizeof(d->cache); i++)
        d->cache[i] = (unsigned char)(sample_u32(r) & 0xbf); /* small numbers in every format */
    for (int i = 0; i < ROWS * TABLE; i++)
        d->table[i] = ROWS * TABLE - 1 - i;
    for (int i = 0; i < ROWS; i++)
        d->sequence[i] = (tsr_attention_sequence){
            .first_row = i, .rows = 1, .first_position = decoded_at[i], .first_block = i * TABLE};
}

/* By the block, or by its parts: so many rows, and the whole cache. */
static void decode(tsr_device *device, const decode_data *d, int32_t rows, bool by_parts, float *x,
                   unsigned char *cache)
{
    tsr_linear linear[4];
    tsr_kv_layer layer = {
        .keys = sample_put(device, d->cache, sizeof(d->cache)),
        .values = sample_put(device, d->cache, sizeof(d->cache)),
        .format = d->format,
        .key_scale = 0.01F,
        .value_scale = 0.02F,
        .blocks = ROWS * TABLE,
        .block_tokens = BLOCK_TOKENS,
        .kv_heads = KV_HEADS,
        .head_dim = D,
    };

    for (int i = 0; i < 4; i++)
        linear[i] = sample_load(device, d->linear[i]);
    const tsr_attention_block b = {
        .x = sample_rows(device, d->x, (size_t)rows * H),
        .norm = sample_put(device, d->norm, sizeof(d->norm)),
        .q = &linear[0],
        .k = &linear[1],
        .v = &linear[2],
        .o = &linear[3],
        .q_norm = sample_put(device, d->head_norm, sizeof(d->head_norm)),
        .k_norm = sample_put(device, d->head_norm, sizeof(d->head_norm)),
        .cos = sample_put(device, d->turn, sizeof(d->turn)),
        .sin = sample_put(device, d->turn, sizeof(d->turn)),
        .cache = &layer,
        .position = sample_put(device, decoded_at, sizeof(decoded_at)),
        .sequence = sample_put(device, d->sequence, sizeof(d->sequence)),
        .blocks = sample_put(device, d->table, sizeof(d->table)),
        .tokens = rows,
        .sequences = rows,
        .q_heads = HEADS,
        .rotary_dim = D,
        .eps = eps,
    };
    if (by_parts)
        attend_by_parts(device, &b);
    ASSERT_STATUS(TSR_OK, by_parts ? TSR_OK : tsr_block_attention(device, &b, stream));
    sample_get_rows(device, x, b.x, (size_t)rows * H);
    sample_get(device, cache, layer.keys, sizeof(d->cache));
    sample_get(device, cache + sizeof(d->cache), layer.values, sizeof(d->cache));
    ASSERT_STATUS(TSR_OK, tsr_device_fault(device));
}

/* One behind the other, so that what a kernel leaves for the next is looked at too. */
static void decoded_rows_have_the_bits_of_the_parts(void **state)
{
    static const sample_kind kinds[] = {
        {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, true, false},
        {TSR_WEIGHT_FP8, TSR_ACTIVATION_NONE, false, true},
        {TSR_WEIGHT_FP8_BLOCK, TSR_ACTIVATION_NONE, false, false},
        {TSR_WEIGHT_FP8_CHANNEL, TSR_ACTIVATION_FP8_TOKEN, false, false},
        {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false},
    };
    static const int32_t counts[] = {1, 2, 3, ROWS, 1};
    enum { KINDS = sizeof(kinds) / sizeof(kinds[0]), COUNTS = sizeof(counts) / sizeof(counts[0]) };
    static decode_data d;
    static unsigned char cache[2][2 * sizeof(d.cache)];
    tsr_work_shape shape = sample_shape;
    sample_random r = {5};
    float x[2][ROWS * H];

    (void)state;
    shape.max_in = HEADS * D;
    for (int n = 0; n < KINDS * SAMPLE_DEVICES; n++) {
        tsr_device *device = sample_device(n / KINDS, &shape);
        new_decode(&r, kinds[n % KINDS], n % 2 == 0 ? TSR_KV_BF16 : TSR_KV_FP8, &d);
        for (int i = 0; device != NULL && i < COUNTS; i++) {
            const size_t bytes = sizeof(float) * (size_t)counts[i] * H;
            decode(device, &d, counts[i], false, x[0], cache[0]);
            decode(device, &d, counts[i], true, x[1], cache[1]);
            assert_memory_equal(x[0], x[1], bytes);
            assert_memory_not_equal(d.x, x[0], bytes);
            assert_memory_equal(cache[0], cache[1], sizeof(cache[0]));
        }
        sample_close(device);
        for (int i = 0; i < 4; i++)
            sample_linear_free(d.linear[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoded_rows_have_the_bits_of_the_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
