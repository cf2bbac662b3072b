/*
 * Activations become the code of E4M3 that is nearest to x / s rounded to f32, on every device, bit by bit:
 * for values on the borders between codes and beside them. A device that does not divide (e4m3_cuda.cuh)
 * goes wrong there first: without a remainder by nearly all scales, by a reciprocal that is one unit off by
 * a few S 2^a, S of 24 bits, that are nearly a multiple of 2^20, by a good one only where S is 2^24 - 1.
 *
 *   linear    y = e4m3(x / s) s                    an output sees one column, by a weight of 1
 *   experts   h = gate (e4m3(x / s) s factor),     gate so large that silu leaves it as it is
 *             y = e4m3(h / t) t
 *
 * Sums have one product that is not 0, so that nothing here is rounded but what the definition rounds.
 */
#include "tests/kernels/mlps.h"
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tsr_stream stream = {NULL};

enum {
    CODES = 127, /* that are neither negative nor NaN */
    ONE = 0x38,  /* the code of 1.0 */
};

static double code_values[CODES];

static void fill_code_values(void)
{
    for (int c = 0; c < CODES; c++)
        code_values[c] = c < 8 ? ldexp(c, -9) : ldexp(8 + c % 8, c / 8 - 10);
}

/* Ties go to the even code. */
static float nearest_code(float x)
{
    const double size = fabs((double)x);
    int low = 0;
    int high = CODES - 1;

    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (code_values[middle] <= size)
            low = middle;
        else
            high = middle;
    }
    const double under = size - code_values[low];
    const double over = code_values[high] - size;
    const bool is_up = over < under || (over == under && high % 2 == 0);
    return copysignf((float)code_values[is_up ? high : low], x);
}

/* Between code b and the next. */
static double border(int b)
{
    return (code_values[b] + code_values[b + 1]) / 2.0;
}

/* Distances from a multiple of 2^20. */
static const int32_t distances[] = {0, 1,  -1, 2,   -2, 3,  -3,  4,  -4,  5,  -5,  6,  -6,  7,   -7,
                                    8, -8, 12, -16, 24, 31, -31, 32, -32, 33, -33, 40, -40, 1000};

enum {
    DISTANCES = sizeof(distances) / sizeof(distances[0]),
    NEAR = 8 * DISTANCES, /* a multiple: 8 to 15 times 2^20 */
    RANDOM = 40,
    ORDINARY = NEAR + RANDOM, /* 2^-12 to 2^5 */
    EXTREME = 16,
    SCALES = ORDINARY + EXTREME
};

/* Of 24 bits, times 2^exponent, which are 2^-12 to 2^4 and then those where a device may stop to do
 * without a division. */
static float scale_number(int n)
{
    static const int extremes[] = {-126, -120, -70, -61, -59, 59, 61, 70};
    sample_random r = {(uint64_t)n + 1};
    const bool is_extreme = n >= ORDINARY;
    const int near = n % NEAR;
    int32_t mantissa = (near / DISTANCES + 8) * (1 << 20) + distances[near % DISTANCES];
    int exponent = n * 5 % 17 - 12;

    if (n >= NEAR)
        mantissa = (1 << 23) + (int32_t)(sample_u32(&r) >> 9);
    if (n == NEAR)
        mantissa = (1 << 24) - 1;
    if (is_extreme && n % 2 == 0)
        mantissa = 9 * (1 << 20) + 1000;
    if (is_extreme)
        exponent = extremes[(n - ORDINARY) / 2];
    return ldexpf((float)mantissa, exponent - 23);
}

static int below(sample_random *r, int count)
{
    return (int)((uint64_t)sample_u32(r) * (uint64_t)count >> 32);
}

/* A border times s and up to four units in the last place beside it; or the value whose quotient is
 * nearest to the middle between the border and the float in front of it or behind it, which the least error
 * takes to the other side. */
static float beside(sample_random *r, int b, float s)
{
    const float at = (float)border(b);
    const int way = below(r, 4);
    int32_t bits;

    if (way < 2) {
        const float next = nextafterf(at, way == 0 ? 0.0F : FLT_MAX);
        return (float)(((double)at + (double)next) / 2.0 * (double)s); /* rounded once */
    }
    float x = (float)((double)at * (double)s);
    memcpy(&bits, &x, sizeof(bits));
    bits += below(r, 9) - 4;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* Most of all beside borders; beyond the last of them too. */
static float value_for(sample_random *r, float s)
{
    static const float others[] = {0.0F, 1e-42F, FLT_MIN, 1e-30F, 1.0F, 1e30F, 3e38F, FLT_MAX};
    const int kind = below(r, 64);
    float x = beside(r, below(r, CODES - 1), s);

    if (kind < 8)
        x = others[kind];
    else if (kind < 16)
        x = (float)(500.0 * (double)s) * sample_float(r);
    else if (kind < 18)
        x = (kind % 2 == 0 ? 464.0F : 1024.0F) * s;
    return below(r, 2) == 0 ? x : -x;
}

static const sample_kind linear_kinds[] = {
    {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8, false, false},
    {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8_TOKEN, false, false}};

enum { LINEAR_KINDS = sizeof(linear_kinds) / sizeof(linear_kinds[0]) };

/* Rows of which a GPU makes codes by kernels of their own, and how many scales are left out for one
 * that is not. */
typedef struct codes_shape {
    int32_t out, in, rows;
    int every;
} codes_shape;

static const codes_shape shapes[] = {{64, 256, 1, 1},    {64, 256, 2, 1},    {64, 256, 5, 1},
                                     {64, 256, 40, 4},   {64, 256, 300, 16}, {64, 1088, 24, 32},
                                     {17024, 64, 1, 32}, {17024, 64, 2, 32}};

enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]), MOST_X = 300 * 256, MOST_Y = 2 * 17024 };

static const tsr_work_shape linear_room = {
    .max_tokens = 300, .max_in = 1088, .max_logit_rows = 1, .max_experts = 1};

/* What output o sees: of each few columns one, but every column at all where there are many outputs. */
static int32_t column_of(int32_t o, int32_t out, int32_t in)
{
    const int32_t few = in / out;

    return few > 1 ? o * few + o % few : o % in;
}

/* A linear with one weight in each row. */
static sample_linear *new_picking(sample_kind kind, int32_t out, int32_t in)
{
    sample_random r = {1};
    sample_linear *l = sample_linear_new(&r, kind, out, in);
    uint8_t *weight = l->weight;

    memset(weight, 0, (size_t)out * (size_t)in);
    for (int32_t o = 0; o < out; o++)
        weight[(size_t)o * (size_t)in + (size_t)column_of(o, out, in)] = ONE;
    l->source.weight_scale = 1.0F;
    return l;
}

/* A linear on its device, and rows for it. */
typedef struct codes_case {
    tsr_linear linear;
    codes_shape shape;
    float *x; /* [rows, in] */
    float *y; /* [rows, out] */
    float scale;
    int i; /* the device */
} codes_case;

/* The row's largest value decides the scale, or there is no such value. */
static void fill_case(codes_case *c, int n)
{
    const bool looks = c->linear.activation == TSR_ACTIVATION_FP8_TOKEN;
    const float s = scale_number(n);
    const float most = looks ? 448.0F * s : FLT_MAX;
    const size_t in = (size_t)c->shape.in;
    sample_random r = {(uint64_t)n * 1000 + (uint64_t)c->shape.rows};

    c->scale = looks ? most / 448.0F : s;
    if (!looks)
        c->linear.input_scale = s;
    for (size_t i = 0; i < (size_t)c->shape.rows * in; i++) {
        c->x[i] = fmaxf(fminf(value_for(&r, c->scale), most), -most);
        if (looks && i % in == 0)
            c->x[i] = most;
    }
}

static void assert_case(const codes_case *c)
{
    const size_t out = (size_t)c->shape.out;

    for (size_t i = 0; i < (size_t)c->shape.rows * out; i++) {
        const int32_t column = column_of((int32_t)(i % out), c->shape.out, c->shape.in);
        const float x = c->x[i / out * (size_t)c->shape.in + (size_t)column];
        const float expected = nearest_code(x / c->scale) * c->scale;
        if (!(c->y[i] == expected))
            fail_msg("device %d, %s, %d rows of %d: %a by %a is %.9g, not %.9g", c->i,
                     tsr_activation_name(c->linear.activation), (int)c->shape.rows,
                     (int)c->shape.in, (double)x, (double)c->scale, (double)(c->y[i] / c->scale),
                     (double)(expected / c->scale));
    }
}

/* Of one shape and kind. On a CPU, which divides, some of the scales will do. */
static void check_linear(tsr_device *device, codes_case *c, sample_kind kind)
{
    sample_linear *l = new_picking(kind, c->shape.out, c->shape.in);
    const size_t x_count = (size_t)c->shape.rows * (size_t)c->shape.in;
    const size_t y_count = (size_t)c->shape.rows * (size_t)c->shape.out;
    const int every = c->shape.every * (sample_is_exact(c->i) ? 5 : 1);
    void *x = sample_rows(device, c->x, x_count);

    c->linear = sample_load(device, l);
    const tsr_linears_args a = {
        .out = {sample_row_room(device, y_count)},
        .linear = {&c->linear},
        .x = x,
        .count = 1,
        .tokens = c->shape.rows,
    };
    assert_int_equal(tsr_device_activation_bytes(device), sizeof(float));
    for (int n = 0; n < SCALES; n += every) {
        fill_case(c, n);
        sample_write(device, x, c->x, x_count * sizeof(float));
        ASSERT_STATUS(TSR_OK, device->ops->linears(device, &a, stream));
        sample_get_rows(device, c->y, a.out[0], y_count);
        assert_case(c);
    }
    sample_linear_free(l);
}

static void a_linear_sees_the_nearest_codes(void **state)
{
    codes_case c = {.x = sample_memory(MOST_X * sizeof(float)),
                    .y = sample_memory(MOST_Y * sizeof(float))};

    (void)state;
    for (c.i = 0; c.i < SAMPLE_DEVICES; c.i++) {
        tsr_device *device = sample_sized_device(c.i, &linear_room);
        for (int n = 0; device != NULL && n < SHAPES * LINEAR_KINDS; n++) {
            c.shape = shapes[n / LINEAR_KINDS];
            check_linear(device, &c, linear_kinds[n % LINEAR_KINDS]);
        }
        sample_close(device);
    }
    free(c.x);
    free(c.y);
}

/* Whose sigmoid is 1 */
#define GATE 32.0F

enum { WIDTH = 144, EXPERTS = 8, CHOSEN = 4, MOST_ROWS = 40, LAYERS = 64 };

_Static_assert(LAYERS / 2 * EXPERTS <= ORDINARY, "experts take each scale once");

/*
 * Experts with a scale each in front of gate and up, and another in front of down. Every other layer gets
 * beside the borders of the former. In those between, whose scales are powers of two as are all codes, gate
 * times up comes to the very values beside the borders of the latter.
 */
typedef struct codes_layer {
    bool is_for_down;
    int code[WIDTH]; /* of a column; else beside the border in front of it */
    float in_scale[EXPERTS];
    float down_scale[EXPERTS];
    float gate_factor[EXPERTS];      /* of all rows of gate */
    float up_factor[EXPERTS][WIDTH]; /* of each row of up */
    tsr_linear router;
    tsr_experts experts;
} codes_layer;

static void number_expert(codes_layer *l, int n, int e)
{
    const int at = n / 2 * EXPERTS + e;
    const bool are_alike = n % 8 == 6; /* then a row has the same codes for all experts */
    const float s = l->is_for_down ? ldexpf(1.0F, at % 9 - 6) : scale_number(are_alike ? n : at);
    sample_random r = {(uint64_t)at + 1};

    l->in_scale[e] = s;
    l->down_scale[e] = scale_number(at);
    l->gate_factor[e] = GATE / (448.0F * s);
    for (int j = 0; j < WIDTH; j++) {
        const float h = beside(&r, below(&r, CODES - 1), l->down_scale[e]);
        l->up_factor[e][j] = h / (GATE * s * (float)code_values[l->code[j]]);
    }
}

static void number_layer(codes_layer *l, int n)
{
    sample_random r = {(uint64_t)n + 1};

    l->is_for_down = n % 2 == 1;
    for (int j = 0; j < WIDTH; j++)
        l->code[j] = l->is_for_down ? 8 * (1 + below(&r, 15)) : 1 + below(&r, CODES - 1);
    for (int e = 0; e < EXPERTS; e++)
        number_expert(l, n, e);
}

static void load_expert(tsr_device *device, const codes_layer *l, int e, const sample_mlp *by,
                        tsr_mlp *ret_mlp)
{
    float *gate = by->gate->scales;
    float *up = by->up->scales;
    float *down = by->down->scales;

    for (int j = 0; j < WIDTH; j++) {
        gate[j] = l->gate_factor[e];
        up[j] = l->up_factor[e][j];
        down[j] = 1.0F;
    }
    by->gate->source.input_scale = l->in_scale[e];
    by->up->source.input_scale = l->in_scale[e];
    by->down->source.input_scale = l->down_scale[e];
    *ret_mlp = sample_mlp_load(device, by);
}

static void load_layer(tsr_device *device, codes_layer *l)
{
    static const sample_kind kind = {TSR_WEIGHT_FP8_CHANNEL, TSR_ACTIVATION_FP8, false, false};
    static const sample_kind router_kind = {TSR_WEIGHT_F32, TSR_ACTIVATION_NONE, false, false};
    static const int32_t local[EXPERTS] = {0, 1, 2, 3, 4, 5, 6, 7};
    sample_random r = {1};
    sample_linear *router = sample_linear_new(&r, router_kind, EXPERTS, WIDTH);
    sample_mlp by = {
        .gate = new_picking(kind, WIDTH, WIDTH),
        .up = new_picking(kind, WIDTH, WIDTH),
        .down = new_picking(kind, WIDTH, WIDTH),
    };
    tsr_mlp mlps[EXPERTS];

    memset(by.gate->weight, 0, (size_t)WIDTH * WIDTH);
    for (size_t j = 0; j < WIDTH; j++)
        ((uint8_t *)by.gate->weight)[j * WIDTH] = ONE; /* whose rows all see column 0 */
    for (int e = 0; e < EXPERTS; e++)
        load_expert(device, l, e, &by, &mlps[e]);
    l->router = sample_load(device, router);
    const tsr_experts_source source = {
        .router = {.gate = &l->router, .top_k = CHOSEN, .groups = 1, .top_groups = 1},
        .mlps = mlps,
        .local_of = local,
        .tag_of = local,
        .experts = EXPERTS,
        .local = EXPERTS,
        .hidden = WIDTH,
    };
    ASSERT_STATUS(TSR_OK, sample_experts_make(device, &source, &l->experts));
    sample_mlp_free(&by);
    sample_linear_free(router);
}

/* Rows and what they ask for; each answer lies where it would without a choice. */
typedef struct codes_rows {
    float x[MOST_ROWS * WIDTH];
    int32_t id[MOST_ROWS * CHOSEN];
    int32_t answer_of[MOST_ROWS * CHOSEN];
    int32_t count;
} codes_rows;

/* One column in CHOSEN is for the scale of the same expert. Column 0 is beyond all borders. */
static void fill_rows(codes_rows *rows, const codes_layer *l, int32_t count, int n)
{
    sample_random r = {(uint64_t)n * 1000 + (uint64_t)count};

    rows->count = count;
    for (int32_t i = 0; i < count * CHOSEN; i++) {
        rows->id[i] = (i / CHOSEN + i % CHOSEN + n) % EXPERTS;
        rows->answer_of[i] = i;
    }
    for (int32_t i = 0; i < count * WIDTH; i++) {
        const int32_t j = i % WIDTH;
        const int32_t e = rows->id[i / WIDTH * CHOSEN + j % CHOSEN];
        const float s = l->in_scale[e];
        const float x =
            l->is_for_down ? (float)code_values[l->code[j]] * s : beside(&r, l->code[j] - 1, s);
        rows->x[i] = below(&r, 2) == 0 ? x : -x;
        if (j == 0)
            rows->x[i] = 1e30F;
    }
}

static void *pack_rows(tsr_device *device, const codes_rows *rows, const tsr_experts *experts)
{
    const tsr_pack_args a = {
        .rows = sample_room(device, (size_t)rows->count * experts->row_bytes),
        .tag = sample_room(device, sizeof(rows->id)),
        .x = sample_rows(device, rows->x, (size_t)rows->count * WIDTH),
        .expert = sample_put(device, rows->id, sizeof(rows->id)),
        .tag_of = experts->tag_of,
        .row_bytes = experts->row_bytes,
        .tokens = rows->count,
        .hidden = WIDTH,
        .top_k = CHOSEN,
    };

    ASSERT_STATUS(TSR_OK, device->ops->pack(device, &a, stream));
    return a.rows;
}

static float expected_answer(const codes_layer *l, int32_t e, const float *x, size_t j)
{
    const float s = l->in_scale[e];
    const float t = l->down_scale[e];
    const float gate = nearest_code(x[0] / s) * (s * l->gate_factor[e]);
    const float up = nearest_code(x[j] / s) * (s * l->up_factor[e][j]);

    return nearest_code(gate * up / t) * t;
}

static void check_rows(tsr_device *device, int i, const codes_layer *l, const codes_rows *rows)
{
    static float answers[MOST_ROWS * CHOSEN * WIDTH];
    const size_t count = (size_t)rows->count * CHOSEN * WIDTH;
    const tsr_experts_block b = {
        .answers = sample_row_room(device, count),
        .rows = pack_rows(device, rows, &l->experts),
        .row_count = sample_put(device, &rows->count, sizeof(rows->count)),
        .answer_of = sample_put(device, rows->answer_of, sizeof(rows->answer_of)),
        .experts = &l->experts,
        .most_rows = rows->count,
    };

    ASSERT_STATUS(TSR_OK, tsr_block_experts(device, &b, stream));
    sample_get_rows(device, answers, b.answers, count);
    ASSERT_STATUS(TSR_OK, tsr_device_fault(device));
    for (size_t at = 0; at < count; at++) {
        const int32_t e = rows->id[at / WIDTH];
        const size_t j = at % WIDTH;
        const float *x = rows->x + at / WIDTH / CHOSEN * WIDTH;
        const float expected = expected_answer(l, e, x, j);
        if (!(answers[at] == expected))
            fail_msg("device %d, %d rows, column %zu, %a by %a and by %a: %.9g, not %.9g", i,
                     (int)rows->count, j, (double)x[j], (double)l->in_scale[e],
                     (double)l->down_scale[e], (double)answers[at], (double)expected);
    }
}

/* From one row, which has a kernel of its own, to so many of an expert that they fill a tile. */
static void check_layer(tsr_device *device, int i, int n)
{
    static const int32_t counts[] = {1, 2, 5, MOST_ROWS};
    static codes_layer layer;
    static codes_rows rows;

    number_layer(&layer, n);
    load_layer(device, &layer);
    for (size_t k = 0; k < sizeof(counts) / sizeof(counts[0]); k++) {
        fill_rows(&rows, &layer, counts[k], n);
        check_rows(device, i, &layer, &rows);
    }
}

/* The last device: a GPU that is shared, which does otherwise with one row. */
static void experts_see_the_nearest_codes(void **state)
{
    (void)state;
    for (int i = 0; i <= SAMPLE_DEVICES; i++) {
        const bool is_shared = i == SAMPLE_DEVICES;
        tsr_device *device =
            is_shared ? sample_shared_device(&sample_shape) : sample_sized_device(i, &sample_shape);
        for (int n = 0; device != NULL && n < LAYERS; n += !is_shared && sample_is_exact(i) ? 7 : 1)
            check_layer(device, i, n);
        sample_close(device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_linear_sees_the_nearest_codes),
        cmocka_unit_test(experts_see_the_nearest_codes),
    };

    fill_code_values();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
