/*
 * The table of backends, and their memory. A new backend is a row here: how it opens, and how far
 * its results may lie from those of the first, which is the definition.
 */
#include "tests/kernels/backends.h"

#include "runtime/base/numeric.h"
#include "tests/kernels/samples.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tsr_stream stream = {NULL};

typedef struct backend {
    tsr_status (*open)(const struct backend *backend, tsr_device **ret_device);
    tsr_cpu_isa isa;
    int32_t threads;
    float bound;  /* of a difference, in units of the largest result; 0: the same bits */
    float tipped; /* the same where what is quantized had been rounded before */
} backend;

/*
 * Operands of BF16 or F16, keys and values of BF16, sums in f32. Inputs are the same numbers
 * (sample_floats), so what differs are rounded intermediates, each off by up to 2^-9 of itself.
 * Through a linear that is a sum of independent errors: 2^-9 / sqrt(3) of a result's standard
 * deviation, six times that at most in practice, and the largest result is no smaller than one.
 * Seven of them one after the other (norm, q/k/v, rotation, attention, out, sum) grow by sqrt(7):
 * 6 / sqrt(3) * sqrt(7) = 9.2, and some for the weights of attention: 16 * 2^-9.
 */
#define BF16_BOUND 0x1p-5F

/*
 * An intermediate that is off by 2^-9 may get the next code: of e4m3 (steps of 1/8) one in 32, of
 * e2m1 (steps of 1/3) one in 80, each off by a whole step. Root mean square 0.022 and 0.037 of the
 * values, six times as much at most.
 */
#define TIPPED_BOUND 0x1p-2F

static tsr_status open_cpu(const backend *b, tsr_device **ret_device)
{
    return tsr_device_open_cpu(b->threads, b->isa, ret_device);
}

/* Without a GPU it is no device of this machine, which is said once. */
static tsr_status open_cuda(const backend *b, tsr_device **ret_device)
{
    static bool said;

    (void)b;
    if (tsr_cuda_cards() > 0)
        return tsr_device_open_cuda(0, true, ret_device);
    if (!said)
        print_message("no GPU here that this build can use: left out\n");
    said = true;
    return TSR_ERR_DEVICE;
}

static const backend backends[SAMPLE_DEVICES] = {
    {open_cpu, TSR_CPU_PLAIN, 1, 0, 0},
    {open_cpu, TSR_CPU_PLAIN, 3, 0, 0},
    {open_cpu, TSR_CPU_AVX2, 1, 0, 0},
    {open_cpu, TSR_CPU_AVX2, 2, 0, 0},
    {open_cpu, TSR_CPU_AVX512, 1, 0, 0},
    {open_cpu, TSR_CPU_AVX512, 5, 0, 0},
    {open_cuda, TSR_CPU_AUTO, 0, BF16_BOUND, TIPPED_BOUND},
};

int sample_best_cpu(void)
{
    static int best = SAMPLE_DEVICES - 1; /* which is a GPU: not found yet */
    tsr_device *device = NULL;

    if (best < SAMPLE_DEVICES - 1)
        return best;
    do
        best--;
    while (best > 0 && backends[best].open(&backends[best], &device) != TSR_OK);
    tsr_device_close(device);
    return best;
}

/* ThreadSanitizer looks at what threads share, which the lanes have no part in: besides the definition
 * its build takes the devices of several threads whose lanes are fast. */
static bool is_left_out(int i)
{
#ifdef __SANITIZE_THREAD__
    const bool is_slow = backends[i].isa == TSR_CPU_PLAIN || backends[i].threads == 1;
    return i > 0 && backends[i].open == open_cpu && is_slow && i != sample_best_cpu();
#else
    (void)i;
    return false;
#endif
}

#define ALL_BUT_HEADS                                                                              \
    .max_tokens = 300, .max_rows = 64, .max_answers = 200, .max_in = 512, .max_intermediate = 512, \
    .max_experts = 64, .max_context = 300, .max_logit_rows = 40, .vocab = 3000, .hidden = 512,     \
    .top_k = 16

const tsr_work_shape sample_shape = {ALL_BUT_HEADS};

const tsr_work_shape sample_heads_shape = {ALL_BUT_HEADS, .q_heads = 32, .kv_heads = 32,
                                           .head_dim = 128};

tsr_device *sample_device(int i, const tsr_work_shape *shape)
{
    tsr_device *device = NULL;
    const tsr_status st = is_left_out(i) ? TSR_ERR_DEVICE : backends[i].open(&backends[i], &device);

    if (st == TSR_ERR_DEVICE)
        return NULL;
    ASSERT_STATUS(TSR_OK, st);
    ASSERT_STATUS(TSR_OK, tsr_device_reserve(device, shape));
    return device;
}

tsr_device *sample_sized_device(int i, const tsr_work_shape *shape)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    if (backends[i].open == open_cpu && i != sample_best_cpu())
        return NULL;
#endif
    return sample_device(i, shape);
}

tsr_device *sample_shared_device(const tsr_work_shape *shape)
{
    tsr_device *device = NULL;

    if (tsr_cuda_cards() == 0)
        return NULL;
    ASSERT_STATUS(TSR_OK, tsr_device_open_cuda(0, false, &device));
    ASSERT_STATUS(TSR_OK, tsr_device_reserve(device, shape));
    return device;
}

/* What has been taken and not been freed yet. */
typedef struct taken {
    struct taken *next;
    const tsr_device *device;
    void *memory;
} taken;

static taken *all_taken;

void sample_close(tsr_device *device)
{
    taken **at = &all_taken;

    while (*at != NULL) {
        taken *here = *at;
        if (here->device != device) {
            at = &here->next;
            continue;
        }
        *at = here->next;
        tsr_device_free(device, here->memory);
        free(here);
    }
    tsr_device_close(device);
}

void *sample_room(tsr_device *device, size_t bytes)
{
    taken *t = sample_memory(sizeof(*t));

    *t = (taken){.next = all_taken, .device = device};
    ASSERT_STATUS(TSR_OK, tsr_device_alloc(device, bytes, &t->memory));
    all_taken = t;
    return t->memory;
}

void sample_wait(tsr_device *device)
{
    tsr_mark *mark = NULL;
    bool passed = false;

    ASSERT_STATUS(TSR_OK, tsr_device_mark_open(device, &mark));
    ASSERT_STATUS(TSR_OK, tsr_device_mark(device, mark, stream));
    while (!passed)
        ASSERT_STATUS(TSR_OK, tsr_device_passed(device, mark, &passed));
    tsr_device_mark_close(device, mark);
}

void sample_write(tsr_device *device, void *to, const void *from, size_t bytes)
{
    void *image = NULL;

    if (bytes == 0)
        return;
    ASSERT_STATUS(TSR_OK, tsr_device_host_alloc(device, bytes, &image));
    memcpy(image, from, bytes);
    ASSERT_STATUS(TSR_OK, tsr_device_put(device, to, image, bytes, stream));
    sample_wait(device);
    tsr_device_host_free(device, image);
}

void *sample_put(tsr_device *device, const void *from, size_t bytes)
{
    void *memory = sample_room(device, bytes);

    sample_write(device, memory, from, bytes);
    return memory;
}

void sample_get(tsr_device *device, void *to, const void *from, size_t bytes)
{
    void *image = NULL;

    if (bytes == 0)
        return;
    ASSERT_STATUS(TSR_OK, tsr_device_host_alloc(device, bytes, &image));
    ASSERT_STATUS(TSR_OK, tsr_device_get(device, image, from, bytes, stream));
    sample_wait(device);
    memcpy(to, image, bytes);
    tsr_device_host_free(device, image);
}

void *sample_row_room(tsr_device *device, size_t count)
{
    return sample_room(device, count * tsr_device_activation_bytes(device));
}

/* Activations of two bytes are BF16. */
void *sample_rows(tsr_device *device, const float *x, size_t count)
{
    if (tsr_device_activation_bytes(device) == sizeof(float))
        return sample_put(device, x, count * sizeof(float));

    uint16_t *codes = sample_memory(count * sizeof(*codes));
    for (size_t i = 0; i < count; i++)
        codes[i] = tsr_f32_to_bf16(x[i]);
    void *rows = sample_put(device, codes, count * sizeof(*codes));
    free(codes);
    return rows;
}

void sample_get_rows(tsr_device *device, float *to, const void *rows, size_t count)
{
    if (tsr_device_activation_bytes(device) == sizeof(float)) {
        sample_get(device, to, rows, count * sizeof(float));
        return;
    }
    uint16_t *codes = sample_memory(count * sizeof(*codes));
    sample_get(device, codes, rows, count * sizeof(*codes));
    for (size_t i = 0; i < count; i++)
        to[i] = tsr_bf16_to_f32(codes[i]);
    free(codes);
}

bool sample_is_exact(int i)
{
    return backends[i].bound == 0.0F;
}

static void assert_within(float bound, const float *expected, const float *got, size_t count)
{
    float most = 0.0F;

    if (bound == 0.0F) {
        assert_memory_equal(expected, got, count * sizeof(float));
        return;
    }
    for (size_t n = 0; n < count; n++)
        most = fmaxf(most, fabsf(expected[n]));
    for (size_t n = 0; n < count; n++) {
        if (!(fabsf(got[n] - expected[n]) <= bound * most))
            fail_msg("result %zu: %.9g, not %.9g, of at most %.9g", n, (double)got[n],
                     (double)expected[n], (double)most);
    }
}

void sample_assert_like(int i, const float *expected, const float *got, size_t count)
{
    assert_within(backends[i].bound, expected, got, count);
}

void sample_assert_tipped(int i, const float *expected, const float *got, size_t count)
{
    assert_within(backends[i].tipped, expected, got, count);
}
