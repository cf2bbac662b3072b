/*
 * Norm of each head, then rotation by halves of its first dims:
 *
 *   | x[0 .. r/2) | x[r/2 .. r) | rest |      pairs are (i, i + r/2); the rest passes through
 */
#include "kernels/cpu/ops_cpu.h"

#include "kernels/cpu/device_cpu.h"

static void rotate(float *x, const float *cos, const float *sin, int32_t half)
{
    for (int32_t i = 0; i < half; i++) {
        const float low = x[i];
        const float high = x[i + half];
        x[i] = low * cos[i] - high * sin[i];
        x[i + half] = high * cos[i] + low * sin[i];
    }
}

static void heads(const tsr_rotary_args *a, float *x, int32_t count, const float *norm,
                  int32_t position)
{
    const int32_t half = a->rotary_dim / 2;
    const size_t at = (size_t)position * (size_t)half;

    for (int32_t h = 0; h < count; h++, x += a->head_dim) {
        if (norm != NULL)
            ISA(tsr_norm_row)(x, x, norm, a->head_dim, a->eps);
        rotate(x, a->cos + at, a->sin + at, half);
    }
}

static void rotary_share(const void *context, int32_t thread, int32_t threads)
{
    const tsr_rotary_args *a = context;
    const tsr_thread_range mine = tsr_thread_share(a->tokens, thread, threads);
    const size_t q_row = (size_t)a->q_heads * (size_t)a->head_dim;
    const size_t k_row = (size_t)a->kv_heads * (size_t)a->head_dim;

    for (int64_t t = mine.first; t < mine.last; t++) {
        heads(a, (float *)a->q + (size_t)t * q_row, a->q_heads, a->q_norm, a->position[t]);
        heads(a, (float *)a->k + (size_t)t * k_row, a->kv_heads, a->k_norm, a->position[t]);
    }
}

tsr_status ISA(tsr_rotary_cpu)(tsr_device *device, const tsr_rotary_args *a, tsr_stream s)
{
    (void)s;
    tsr_threads_run(tsr_cpu(device)->threads, a->tokens, rotary_share, a);
    return TSR_OK;
}
