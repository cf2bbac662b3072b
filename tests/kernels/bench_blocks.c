/*
 * Blocks of a forward pass on a GPU, each alone, over so many layers that no weight is in a cache
 * when its turn comes, played from a recording as a step is. Not a test: run by hand.
 *
 *   bench_blocks [--ranks N] [--skew S] [TOKENS ...]       of the shape of Qwen3-30B-A3B, context 1024
 *
 * With N ranks, the first one's experts: of the slots of all rows, it answers those that ask for its own.
 * Experts are asked for alike, or as often as e^(S g), g normal: with S = 0.8 their shares deviate by nine
 * tenths of the mean, where chance alone makes a third of 8 pairs each.
 *
 * Weights are random bytes where they lie: what they stand for does not matter here.
 */
#include "kernels/blocks.h"
#include "runtime/base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LAYERS = 12,
    HIDDEN = 2048,
    INTERMEDIATE = 768,
    EXPERTS = 128,
    TOP_K = 8,
    Q_HEADS = 32,
    KV_HEADS = 4,
    HEAD_DIM = 128,
    VOCAB = 151936,
    CONTEXT = 1024,
    BLOCK_TOKENS = 64,
    MOST_TOKENS = 4096,
    MOST_SEQUENCES = 128,
    RANDOM_BYTES = 1 << 26,
    PASSES = 9,
    REPLAYS = 4,
};

typedef struct bench {
    tsr_device *device;
    tsr_stream stream;
    tsr_mark *mark;
    unsigned char *random; /* of the host */
    int32_t tokens;
    int32_t local; /* experts here */
    double skew;
    tsr_linear q[LAYERS], k[LAYERS], v[LAYERS], o[LAYERS], gate[LAYERS], head;
    tsr_kv_layer cache[LAYERS];
    tsr_experts experts[LAYERS];
    float *norm;
    float *table; /* of cosines, and of sines */
    void *x;
    void *rows;   /* whose experts are random ones */
    void *chosen; /* whose experts are those that choose has chosen */
    void *answers;
    float *weight;
    float *logits;
    int32_t asked[MOST_TOKENS * TOP_K]; /* the expert of each slot of `rows` */
    int32_t *numbers;                   /* positions, tags, rows of x, block tables */
    int32_t *answer_of;
    int32_t *row_count;
    tsr_attention_sequence *sequence;
} bench;

static void must(tsr_status st)
{
    if (st != TSR_OK)
        abort();
}

static uint64_t next_random(void)
{
    static uint64_t state = 88172645463325252U;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void wait_for(bench *b)
{
    bool passed = false;

    must(tsr_device_mark(b->device, b->mark, b->stream));
    while (!passed)
        must(tsr_device_passed(b->device, b->mark, &passed));
    must(tsr_device_fault(b->device));
}

static void *room(bench *b, size_t bytes)
{
    void *memory = NULL;

    must(tsr_device_alloc(b->device, bytes, &memory));
    return memory;
}

/* Device memory full of random bytes that are small numbers in every format. */
static void *noise(bench *b, size_t bytes)
{
    unsigned char *memory = room(b, bytes);

    for (size_t at = 0; at < bytes; at += RANDOM_BYTES) {
        const size_t count = bytes - at < RANDOM_BYTES ? bytes - at : RANDOM_BYTES;
        must(tsr_device_put(b->device, memory + at, b->random, count, b->stream));
    }
    return memory;
}

/* Copies what the host has. */
static void *given(bench *b, const void *from, size_t bytes)
{
    void *memory = room(b, bytes);

    memcpy(b->random, from, bytes);
    must(tsr_device_put(b->device, memory, b->random, bytes, b->stream));
    wait_for(b);
    return memory;
}

static tsr_linear linear_of(bench *b, tsr_weight_format format, int32_t out, int32_t in,
                            void *memory)
{
    const tsr_linear_spec spec = {
        .format = format, .out = out, .in = in, .weight_scale = 1e-3F, .input_scale = 1.0F};
    tsr_linear linear;

    must(tsr_device_place_linear(b->device, &spec, memory, &linear));
    return linear;
}

static tsr_linear new_linear(bench *b, tsr_weight_format format, int32_t out, int32_t in)
{
    const uint64_t bytes = tsr_device_linear_bytes(b->device, format, out, in, false, false);

    return linear_of(b, format, out, in, noise(b, (size_t)bytes));
}

static void make_experts(bench *b, int32_t layer, tsr_weight_format format)
{
    const size_t wide =
        (size_t)tsr_device_linear_bytes(b->device, format, INTERMEDIATE, HIDDEN, false, false);
    const size_t narrow =
        (size_t)tsr_device_linear_bytes(b->device, format, HIDDEN, INTERMEDIATE, false, false);
    const size_t each = 2 * wide + narrow;
    const size_t bytes = (size_t)tsr_experts_bytes(EXPERTS, b->local);
    unsigned char *memory = noise(b, each * (size_t)b->local);
    tsr_mlp mlps[EXPERTS];
    int32_t local_of[EXPERTS];
    int32_t tag_of[EXPERTS] = {0};
    void *image = NULL;

    for (int32_t e = 0; e < EXPERTS; e++)
        local_of[e] = e < b->local ? e : -1;
    for (int32_t e = 0; e < b->local; e++) {
        unsigned char *at = memory + (size_t)e * each;
        mlps[e].gate = linear_of(b, format, INTERMEDIATE, HIDDEN, at);
        mlps[e].up = linear_of(b, format, INTERMEDIATE, HIDDEN, at + wide);
        mlps[e].down = linear_of(b, format, HIDDEN, INTERMEDIATE, at + 2 * wide);
    }
    const tsr_experts_source source = {
        .router = {.gate = &b->gate[layer],
                   .kind = TSR_ROUTER_SOFTMAX,
                   .top_k = TOP_K,
                   .groups = 1,
                   .top_groups = 1,
                   .normalise = true},
        .mlps = mlps,
        .local_of = local_of,
        .tag_of = tag_of,
        .experts = EXPERTS,
        .local = b->local,
        .hidden = HIDDEN,
    };
    must(tsr_device_host_alloc(b->device, bytes, &image));
    must(
        tsr_experts_make(b->device, &source, image, room(b, bytes), b->stream, &b->experts[layer]));
    wait_for(b);
    tsr_device_host_free(b->device, image);
}

static double next_uniform(void)
{
    return (double)(next_random() >> 11) * 0x1p-53;
}

/* How often experts are asked for, added up. */
static void add_up_shares(double skew, double ret_end[EXPERTS])
{
    double end = 0.0;

    for (int e = 0; e < EXPERTS; e++) {
        double normal = -6.0;
        for (int i = 0; i < 12; i++)
            normal += next_uniform();
        ret_end[e] = end += exp(skew * normal);
    }
}

static int32_t draw_expert(const double end[EXPERTS])
{
    const double at = next_uniform() * end[EXPERTS - 1];
    int32_t e = 0;

    while (e < EXPERTS - 1 && end[e] <= at)
        e++;
    return e;
}

/* Rows that name distinct experts at random. */
static void make_rows(bench *b)
{
    double end[EXPERTS];
    const size_t row_bytes = tsr_packed_row_bytes(sizeof(float), HIDDEN, TOP_K);
    unsigned char *rows = calloc(MOST_TOKENS, row_bytes);

    if (rows == NULL)
        abort();
    add_up_shares(b->skew, end);
    for (size_t t = 0; t < MOST_TOKENS; t++) {
        float *x = (float *)(void *)(rows + t * row_bytes);
        int32_t *id = (int32_t *)(void *)(x + HIDDEN);
        bool taken[EXPERTS] = {false};
        for (int i = 0; i < HIDDEN; i++)
            x[i] = (float)(next_random() >> 40) * 0x1p-23F - 1.0F;
        for (int k = 0; k < TOP_K;) {
            const int32_t e = draw_expert(end);
            if (!taken[e]) {
                b->asked[t * TOP_K + (size_t)k] = e;
                id[k++] = e;
            }
            taken[e] = true;
        }
    }
    b->rows = given(b, rows, MOST_TOKENS * row_bytes);
    b->chosen = given(b, rows, MOST_TOKENS * row_bytes);
    free(rows);
}

static void make_numbers(bench *b)
{
    const int32_t blocks = MOST_SEQUENCES * CONTEXT / BLOCK_TOKENS;
    int32_t numbers[MOST_TOKENS];
    int32_t *answers = malloc((size_t)MOST_TOKENS * TOP_K * sizeof(*answers));
    tsr_attention_sequence sequence[MOST_SEQUENCES];

    if (answers == NULL)
        abort();
    for (int32_t i = 0; i < MOST_TOKENS; i++)
        numbers[i] = i < blocks ? i : 0;
    b->numbers = given(b, numbers, sizeof(numbers));
    for (int32_t i = 0; i < MOST_TOKENS * TOP_K; i++)
        answers[i] = b->asked[i] < b->local ? i : -1;
    b->answer_of = given(b, answers, (size_t)MOST_TOKENS * TOP_K * sizeof(*answers));
    free(answers);
    for (int32_t i = 0; i < MOST_SEQUENCES; i++)
        sequence[i] = (tsr_attention_sequence){.first_row = i,
                                               .rows = 1,
                                               .first_position = CONTEXT - 1,
                                               .first_block = i * (CONTEXT / BLOCK_TOKENS)};
    b->sequence = given(b, sequence, sizeof(sequence));
    b->row_count = room(b, sizeof(int32_t));
}

static void make_attention(bench *b)
{
    const int32_t blocks = MOST_SEQUENCES * CONTEXT / BLOCK_TOKENS;
    const size_t bytes = (size_t)blocks * KV_HEADS * BLOCK_TOKENS * HEAD_DIM * 2;

    for (int l = 0; l < LAYERS; l++) {
        b->q[l] = new_linear(b, TSR_WEIGHT_BF16, Q_HEADS * HEAD_DIM, HIDDEN);
        b->k[l] = new_linear(b, TSR_WEIGHT_BF16, KV_HEADS * HEAD_DIM, HIDDEN);
        b->v[l] = new_linear(b, TSR_WEIGHT_BF16, KV_HEADS * HEAD_DIM, HIDDEN);
        b->o[l] = new_linear(b, TSR_WEIGHT_BF16, HIDDEN, Q_HEADS * HEAD_DIM);
        b->gate[l] = new_linear(b, TSR_WEIGHT_BF16, EXPERTS, HIDDEN);
        b->cache[l] = (tsr_kv_layer){.keys = noise(b, bytes),
                                     .values = noise(b, bytes),
                                     .format = TSR_KV_BF16,
                                     .blocks = blocks,
                                     .block_tokens = BLOCK_TOKENS,
                                     .kv_heads = KV_HEADS,
                                     .head_dim = HEAD_DIM};
    }
    b->head = new_linear(b, TSR_WEIGHT_BF16, VOCAB, HIDDEN);
}

static void open_bench(bench *b)
{
    const tsr_work_shape shape = {
        .max_tokens = MOST_TOKENS,
        .max_rows = MOST_TOKENS,
        .max_answers = MOST_TOKENS * TOP_K,
        .max_in = Q_HEADS * HEAD_DIM,
        .max_intermediate = INTERMEDIATE,
        .max_experts = EXPERTS,
        .max_context = CONTEXT,
        .max_logit_rows = MOST_SEQUENCES,
        .vocab = VOCAB,
        .hidden = HIDDEN,
        .q_heads = Q_HEADS,
        .kv_heads = KV_HEADS,
        .head_dim = HEAD_DIM,
        .top_k = TOP_K,
    };

    must(tsr_device_open_cuda(0, true, &b->device));
    must(tsr_device_reserve(b->device, &shape));
    must(tsr_device_stream_open(b->device, &b->stream));
    must(tsr_device_mark_open(b->device, &b->mark));
    must(tsr_device_host_alloc(b->device, RANDOM_BYTES, (void **)&b->random));
    make_rows(b);
    make_numbers(b);
    for (size_t i = 0; i < RANDOM_BYTES; i++)
        b->random[i] = (unsigned char)(next_random() >> 32 & 0x3f);
    b->norm = noise(b, HIDDEN * sizeof(float));
    b->table = noise(b, (size_t)CONTEXT * HEAD_DIM * sizeof(float));
    b->x = noise(b, (size_t)MOST_TOKENS * HIDDEN * sizeof(float));
    b->answers = noise(b, (size_t)MOST_TOKENS * TOP_K * HIDDEN * sizeof(float));
    b->weight = noise(b, (size_t)MOST_TOKENS * TOP_K * sizeof(float));
    b->logits = room(b, (size_t)MOST_SEQUENCES * VOCAB * sizeof(float));
    make_attention(b);
    wait_for(b);
}

static void attend(bench *b, int32_t l)
{
    const tsr_attention_block block = {.x = b->x,
                                       .norm = b->norm,
                                       .q = &b->q[l],
                                       .k = &b->k[l],
                                       .v = &b->v[l],
                                       .o = &b->o[l],
                                       .q_norm = b->norm,
                                       .k_norm = b->norm,
                                       .cos = b->table,
                                       .sin = b->table,
                                       .cache = &b->cache[l],
                                       .position = b->numbers,
                                       .sequence = b->sequence,
                                       .blocks = b->numbers,
                                       .tokens = b->tokens,
                                       .sequences = b->tokens,
                                       .q_heads = Q_HEADS,
                                       .rotary_dim = HEAD_DIM,
                                       .eps = 1e-6F};
    must(tsr_block_attention(b->device, &block, b->stream));
}

static void choose(bench *b, int32_t l)
{
    const tsr_choose_block block = {.rows = b->chosen,
                                    .tag = (int32_t *)(void *)b->logits,
                                    .weight = b->weight,
                                    .x = b->x,
                                    .norm = b->norm,
                                    .experts = &b->experts[l],
                                    .tokens = b->tokens,
                                    .eps = 1e-6F,
                                    .stays = b->tokens == 1};
    must(tsr_block_choose(b->device, &block, b->stream));
}

/* The first row that a layer sees. Of decode, layers see different ones: no single one decides how evenly
 * experts are asked for. */
static size_t first_row(const bench *b, int32_t l, const void *rows)
{
    return rows == b->rows && b->tokens <= MOST_SEQUENCES ? (size_t)(l * MOST_SEQUENCES) : 0;
}

static void compute_rows(bench *b, int32_t l, const void *rows)
{
    const size_t row_bytes = tsr_packed_row_bytes(sizeof(float), HIDDEN, TOP_K);
    const size_t first = first_row(b, l, rows);
    const tsr_experts_block block = {.answers = b->answers,
                                     .rows = (const unsigned char *)rows + first * row_bytes,
                                     .row_count = b->row_count,
                                     .answer_of = b->answer_of + first * TOP_K,
                                     .experts = &b->experts[l],
                                     .most_rows = b->tokens,
                                     .chosen = rows == b->chosen};
    must(tsr_block_experts(b->device, &block, b->stream));
}

static void compute(bench *b, int32_t l)
{
    compute_rows(b, l, b->rows);
}

static void combine_answers(bench *b, size_t first, bool computed)
{
    const tsr_combine_block block = {.x = b->x,
                                     .answers = (const float *)b->answers + first * TOP_K * HIDDEN,
                                     .weight = b->weight,
                                     .tokens = b->tokens,
                                     .hidden = HIDDEN,
                                     .top_k = TOP_K,
                                     .computed = computed};
    must(tsr_block_combine(b->device, &block, b->stream));
}

static void combine(bench *b, int32_t l)
{
    (void)l;
    combine_answers(b, 0, false);
}

static void predict(bench *b, int32_t l)
{
    const tsr_predict_block block = {.logits = b->logits,
                                     .x = b->x,
                                     .x_row = b->numbers,
                                     .norm = b->norm,
                                     .head = &b->head,
                                     .rows = b->tokens,
                                     .allowed = VOCAB,
                                     .eps = 1e-6F};
    (void)l;
    must(tsr_block_predict(b->device, &block, b->stream));
}

static void sparse(bench *b, int32_t l)
{
    choose(b, l);
    /* Several may have chosen alike, or experts that are not here. */
    const void *rows = b->tokens == 1 && b->local == EXPERTS ? b->chosen : b->rows;
    compute_rows(b, l, rows);
    combine_answers(b, first_row(b, l, rows), true);
}

static void layer(bench *b, int32_t l)
{
    attend(b, l);
    sparse(b, l);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Microseconds of a block, the median of several passes over all layers. */
static double time_of(bench *b, void (*block)(bench *b, int32_t layer))
{
    tsr_recording *recording = NULL;
    double us[PASSES];

    must(tsr_device_record(b->device, b->stream));
    for (int32_t l = 0; l < LAYERS; l++)
        block(b, l);
    must(tsr_device_recorded(b->device, b->stream, &recording));
    for (int i = 0; i < PASSES; i++) {
        must(tsr_device_replay(b->device, recording, b->stream));
        wait_for(b);
        const int64_t start = tsr_clock_ns();
        for (int k = 0; k < REPLAYS; k++)
            must(tsr_device_replay(b->device, recording, b->stream));
        wait_for(b);
        us[i] = (double)(tsr_clock_ns() - start) * 1e-3 / (LAYERS * REPLAYS);
    }
    tsr_device_recording_close(b->device, recording);
    qsort(us, PASSES, sizeof(us[0]), by_size);
    return us[PASSES / 2];
}

static void set_tokens(bench *b, int32_t tokens)
{
    unsigned char keep[sizeof(tokens)];

    b->tokens = tokens;
    memcpy(keep, b->random, sizeof(keep));
    memcpy(b->random, &tokens, sizeof(tokens));
    must(tsr_device_put(b->device, b->row_count, b->random, sizeof(tokens), b->stream));
    wait_for(b);
    memcpy(b->random, keep, sizeof(keep));
}

static void bench_format(bench *b, tsr_weight_format format, int count, const char *const *tokens)
{
    for (int l = 0; l < LAYERS; l++)
        make_experts(b, l, format);
    printf("%s experts, microseconds a layer\n%7s %9s %9s %9s %9s %9s %9s %9s\n",
           tsr_weight_format_name(format), "tokens", "attention", "choose", "experts", "combine",
           "sparse", "layer", "predict");
    for (int i = 0; i < count; i++) {
        set_tokens(b, (int32_t)strtol(tokens[i], NULL, 10));
        const bool decodes = b->tokens <= MOST_SEQUENCES;
        printf("%7d %9.2f %9.2f %9.2f %9.2f %9.2f %9.2f %9.2f\n", (int)b->tokens,
               decodes ? time_of(b, attend) : 0.0, time_of(b, choose), time_of(b, compute),
               time_of(b, combine), time_of(b, sparse), decodes ? time_of(b, layer) : 0.0,
               decodes ? time_of(b, predict) : 0.0);
        (void)fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    static const char *const usual[] = {"1", "2", "4", "8", "16", "32", "64", "128"};
    static bench b;
    int first = 1;
    long ranks = 1;

    for (; argc > first + 1 && argv[first][0] == '-'; first += 2) {
        if (strcmp(argv[first], "--ranks") == 0)
            ranks = strtol(argv[first + 1], NULL, 10);
        else if (strcmp(argv[first], "--skew") == 0)
            b.skew = strtod(argv[first + 1], NULL);
        else
            break;
    }
    if (ranks < 1 || ranks > EXPERTS || (argc > first && argv[first][0] == '-')) {
        (void)fprintf(stderr, "bench_blocks [--ranks 1..%d] [--skew S] [TOKENS ...]\n", EXPERTS);
        return 2;
    }
    b.local = EXPERTS / (int32_t)ranks;
    const char *const *tokens = argc > first ? (const char *const *)(argv + first) : usual;
    const int count = argc > first ? argc - first : (int)(sizeof(usual) / sizeof(usual[0]));
    open_bench(&b);
    printf("%s\n", tsr_device_name(b.device));
    bench_format(&b, TSR_WEIGHT_NVFP4, count, tokens);
    bench_format(&b, TSR_WEIGHT_FP8, count, tokens);
    return 0;
}
