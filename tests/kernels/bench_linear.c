/*
 * Linears against the memory's read speed, measured in the same run. Not a test: run by hand.
 *
 *   bench_linear [THREADS] [plain|avx2|avx512]
 */
#include "kernels/device_ops.h"
#include "runtime/base/clock.h"
#include "runtime/base/numeric.h"
#include "tests/kernels/whole_linear.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUT = 6144, IN = 4096, COPIES = 8, MOST_TOKENS = 256, MOST_THREADS = 64 };

typedef struct reader {
    const uint64_t *from;
    size_t words;
    uint64_t sum;
} reader;

/* Eight streams, since one alone leaves a core waiting. */
static void *read_share(void *context)
{
    reader *r = context;
    const size_t part = r->words / 8;
    uint64_t sum[8] = {0};

    for (size_t i = 0; i < part; i += 8) {
        for (size_t k = 0; k < 8; k++) {
            const uint64_t *from = r->from + k * part + i;
            sum[k] += from[0] ^ from[1] ^ from[2] ^ from[3] ^ from[4] ^ from[5] ^ from[6] ^ from[7];
        }
    }
    for (size_t k = 0; k < 8; k++)
        r->sum += sum[k];
    return NULL;
}

/* Bytes per second of reading a buffer far larger than the caches; the best of five. */
static double read_speed(int threads)
{
    const size_t words = (size_t)1 << 26;
    uint64_t *memory = malloc(words * sizeof(*memory));
    double best = 0.0;

    if (memory == NULL)
        return 0.0;
    memset(memory, 1, words * sizeof(*memory));
    for (int run = 0; run < 5; run++) {
        pthread_t thread[MOST_THREADS];
        reader share[MOST_THREADS];
        const int64_t start = tsr_clock_ns();
        for (int i = 0; i < threads; i++) {
            const size_t each = words / (size_t)threads;
            share[i] = (reader){.from = memory + each * (size_t)i, .words = each};
            if (pthread_create(&thread[i], NULL, read_share, &share[i]) != 0)
                abort();
        }
        for (int i = 0; i < threads; i++)
            pthread_join(thread[i], NULL);
        const double seconds = (double)(tsr_clock_ns() - start) * 1e-9;
        const double speed = (double)(words * sizeof(*memory)) / seconds;
        best = speed > best ? speed : best;
    }
    free(memory);
    return best;
}

static void *bytes_like(size_t bytes, uint8_t mask)
{
    uint8_t *memory = malloc(bytes);
    uint32_t state = 1;

    if (memory == NULL)
        abort();
    for (size_t i = 0; i < bytes; i++) {
        state = state * 1664525U + 1013904223U;
        memory[i] = (uint8_t)(state >> 24 & mask);
    }
    return memory;
}

typedef struct bench {
    tsr_device *device;
    tsr_linear linear[COPIES]; /* so that no copy is in a cache when its turn comes */
    void *memory[COPIES];
    void *x; /* of the device, as is y */
    void *y;
} bench;

static void must(tsr_status st)
{
    if (st != TSR_OK)
        abort();
}

/* Random codes that are no NaN; as BF16 they are small numbers. */
static void load(bench *b, tsr_weight_format format)
{
    const size_t bytes = (size_t)tsr_cpu_linear_bytes(format, OUT, IN, false, false);
    void *weight = bytes_like((size_t)OUT * IN * 4, 0x3f);
    void *scales = bytes_like((size_t)OUT * IN, 0x3f);
    const tsr_linear_source source = {
        .format = format,
        .out = OUT,
        .in = IN,
        .weight = weight,
        .scales = scales,
        .weight_scale = 1.0F,
        .input_scale = 1.0F,
    };

    for (int i = 0; i < COPIES; i++) {
        must(tsr_device_alloc(b->device, bytes, &b->memory[i]));
        must(tsr_device_load_linear(b->device, &source, b->memory[i], &b->linear[i]));
    }
    free(weight);
    free(scales);
}

/* Seconds of one linear over `tokens` rows; the best pass over the copies, of several. */
static double seconds_of(bench *b, int32_t tokens)
{
    double best = 1e9;
    const int passes = tokens > 16 ? 2 : 5;

    for (int pass = 0; pass < passes; pass++) {
        const int64_t start = tsr_clock_ns();
        for (int i = 0; i < COPIES; i++) {
            const tsr_linears_args a = {
                .out = {b->y}, .linear = {&b->linear[i]}, .x = b->x, .count = 1, .tokens = tokens};
            must(b->device->ops->linears(b->device, &a, (tsr_stream){NULL}));
        }
        const double seconds = (double)(tsr_clock_ns() - start) * 1e-9 / COPIES;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static void bench_format(bench *b, tsr_weight_format format, double limit)
{
    static const int32_t tokens[] = {1, 2, 4, 8, 32, MOST_TOKENS};
    const double bytes = (double)tsr_cpu_linear_bytes(format, OUT, IN, false, false);

    load(b, format);
    for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
        const double seconds = seconds_of(b, tokens[i]);
        printf("%-12s %4d tokens %8.3f ms  %6.2f GB/s  %5.2f of the memory's  %7.1f GFLOP/s\n",
               tsr_weight_format_name(format), (int)tokens[i], seconds * 1e3,
               bytes / seconds * 1e-9, bytes / seconds / limit,
               2.0 * OUT * IN * (double)tokens[i] / seconds * 1e-9);
    }
    for (int i = 0; i < COPIES; i++)
        tsr_device_free(b->device, b->memory[i]);
}

static tsr_cpu_isa isa_named(const char *name)
{
    if (strcmp(name, "plain") == 0)
        return TSR_CPU_PLAIN;
    return strcmp(name, "avx2") == 0 ? TSR_CPU_AVX2 : TSR_CPU_AVX512;
}

int main(int argc, char **argv)
{
    const int threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 2;
    const tsr_cpu_isa isa = argc > 2 ? isa_named(argv[2]) : TSR_CPU_AUTO;
    const tsr_work_shape shape = {
        .max_tokens = MOST_TOKENS, .max_in = IN, .max_intermediate = 16, .max_experts = 1};
    bench b = {0};

    if (threads < 1 || threads > MOST_THREADS)
        return 2;
    must(tsr_device_open_cpu(threads, isa, &b.device));
    must(tsr_device_reserve(b.device, &shape));
    must(tsr_device_alloc(b.device, sizeof(float) * IN * MOST_TOKENS, &b.x));
    must(tsr_device_alloc(b.device, sizeof(float) * OUT * MOST_TOKENS, &b.y));
    void *x = bytes_like(sizeof(float) * IN * MOST_TOKENS, 0x3f);
    must(tsr_device_put(b.device, b.x, x, sizeof(float) * IN * MOST_TOKENS, (tsr_stream){NULL}));
    free(x);
    const double limit = read_speed(threads);
    printf("%s; memory read %.2f GB/s\n", tsr_device_name(b.device), limit * 1e-9);
    for (int f = TSR_WEIGHT_F16; f < TSR_WEIGHT_FORMAT_COUNT; f++)
        bench_format(&b, (tsr_weight_format)f, limit);
    tsr_device_free(b.device, b.x);
    tsr_device_free(b.device, b.y);
    tsr_device_close(b.device);
    return 0;
}
