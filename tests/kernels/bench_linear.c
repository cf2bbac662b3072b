/*
 * Linears against the memory's read speed, measured in the same run. Not a test: run by hand.
 *
 *   bench_linear [THREADS] [plain|avx2|avx512] [FORMAT]
 */
#include "kernels/device_ops.h"
#include "runtime/base/clock.h"
#include "runtime/base/numeric.h"
#include "tests/kernels/whole_linear.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUT = 6144, IN = 4096, COPIES = 6, MOST_TOKENS = 256 };

/* Of memory, for its speed. */
#define READ_BYTES ((uint64_t)512 << 20)

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

/* Makes 16-bit numbers of bytes ordinary ones: no product is so small that it takes longer. */
static void be_ordinary(uint8_t *bytes, size_t count)
{
    for (size_t i = 1; i < count; i += 2)
        bytes[i] = 0x3c;
}

/* Random codes that are no NaN. */
static void load(bench *b, tsr_weight_format format, tsr_activation activation)
{
    const size_t bytes = (size_t)tsr_cpu_linear_bytes(format, OUT, IN, false, false);
    void *weight = bytes_like((size_t)OUT * IN * 4, 0x3f);
    void *scales = bytes_like((size_t)OUT * IN, 0x3f);
    if (format == TSR_WEIGHT_F16 || format == TSR_WEIGHT_BF16)
        be_ordinary(weight, (size_t)OUT * IN * 4);
    const tsr_linear_source source = {
        .format = format,
        .activation = activation,
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

static void bench_format(bench *b, tsr_weight_format format, tsr_activation activation,
                         double limit)
{
    static const int32_t tokens[] = {1, 2, 4, 8, 32, MOST_TOKENS};
    const double bytes = (double)tsr_cpu_linear_bytes(format, OUT, IN, false, false);

    load(b, format, activation);
    for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
        const double seconds = seconds_of(b, tokens[i]);
        printf("%-8s %-7s %4d tokens %8.3f ms  %6.2f GB/s  %5.2f of the memory's  %7.1f GFLOP/s\n",
               tsr_weight_format_name(format), tsr_activation_name(activation), (int)tokens[i],
               seconds * 1e3, bytes / seconds * 1e-9, bytes / seconds / limit,
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
    double limit = 0.0;

    must(tsr_device_open_cpu(threads, isa, &b.device));
    must(tsr_device_reserve(b.device, &shape));
    must(tsr_device_alloc(b.device, sizeof(float) * IN * MOST_TOKENS, &b.x));
    must(tsr_device_alloc(b.device, sizeof(float) * OUT * MOST_TOKENS, &b.y));
    float *x = malloc(sizeof(float) * IN * MOST_TOKENS);
    for (int i = 0; x != NULL && i < IN * MOST_TOKENS; i++)
        x[i] = (float)(i % 251 - 125) / 128.0F; /* no product is so small that it takes longer */
    must(tsr_device_put(b.device, b.x, x, sizeof(float) * IN * MOST_TOKENS, (tsr_stream){NULL}));
    free(x);
    must(tsr_device_read_bandwidth(b.device, READ_BYTES, &limit));
    printf("%s; memory read %.2f GB/s\n", tsr_device_name(b.device), limit * 1e-9);
    for (int f = TSR_WEIGHT_F16; f < TSR_WEIGHT_FORMAT_COUNT; f++) {
        if (argc > 3 && strcmp(argv[3], tsr_weight_format_name((tsr_weight_format)f)) != 0)
            continue;
        bench_format(&b, (tsr_weight_format)f, TSR_ACTIVATION_NONE, limit);
        if (f == TSR_WEIGHT_NVFP4)
            bench_format(&b, TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, limit);
    }
    tsr_device_free(b.device, b.x);
    tsr_device_free(b.device, b.y);
    tsr_device_close(b.device);
    return 0;
}
