/*
 * How fast the GPU reads its memory: every thread 16 bytes at a time, a whole warp 512 in a row, as
 * many CTAs as the GPU holds.
 *
 *   pass     | CTA 0 | CTA 1 | ... | CTA n | CTA 0 | CTA 1 | ...
 */
#include "kernels/cuda/device/device_cuda.cuh"

#include <stdlib.h>

enum { PASSES = 9, MEDIAN = PASSES / 2, CTAS_PER_SM = 8, AT_ONCE = 4, FREE_PARTS = 4 };

static __global__ void write_kernel(uint4 *words, int64_t count)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;

    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        const uint32_t mixed = (uint32_t)(i + 1) * 2654435761U;
        words[i] = make_uint4(mixed, mixed ^ 0x5bd1e995U, mixed * 3U, ~mixed);
    }
}

/* The fold is used, if hardly ever, so that no load is left out. */
static __global__ void read_kernel(const uint4 *words, int64_t count, uint32_t *sink)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    const int64_t first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t fold = 0;

    for (int64_t i = first; i < count; i += AT_ONCE * step) {
        uint4 word[AT_ONCE];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            word[j] = i + j * step < count ? __ldcs(words + i + j * step) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            fold ^= word[j].x ^ word[j].y ^ word[j].z ^ word[j].w;
    }
    if (fold == 0xdeadbeefU)
        *sink = fold;
}

/* What a pass works with. */
typedef struct read_pass {
    uint4 *words; /* the last one is the sink */
    int64_t count;
    unsigned ctas;
    cudaStream_t stream;
    cudaEvent_t start;
    cudaEvent_t end;
} read_pass;

static tsr_status time_pass(const read_pass *p, float *ret_ms)
{
    tsr_status st = TSR_CUDA(cudaEventRecord(p->start, p->stream));

    if (st == TSR_OK) {
        read_kernel<<<p->ctas, TSR_CUDA_THREADS, 0, p->stream>>>(p->words, p->count,
                                                                 (uint32_t *)(p->words + p->count));
        st = TSR_CUDA_LAUNCHED();
    }
    if (st == TSR_OK)
        st = TSR_CUDA(cudaEventRecord(p->end, p->stream));
    if (st == TSR_OK)
        st = TSR_CUDA(cudaEventSynchronize(p->end));
    return st == TSR_OK ? TSR_CUDA(cudaEventElapsedTime(ret_ms, p->start, p->end)) : st;
}

static int by_duration(const void *a, const void *b)
{
    const float x = *(const float *)a;
    const float y = *(const float *)b;

    return (x > y) - (x < y);
}

static tsr_status time_passes(const read_pass *p, double *ret_bytes_per_s)
{
    float took[PASSES];
    float warm = 0;

    write_kernel<<<p->ctas, TSR_CUDA_THREADS, 0, p->stream>>>(p->words, p->count);
    tsr_status st = TSR_CUDA_LAUNCHED();
    if (st == TSR_OK)
        st = time_pass(p, &warm);
    for (int i = 0; st == TSR_OK && i < PASSES; i++)
        st = time_pass(p, &took[i]);
    if (st != TSR_OK)
        return st;
    qsort(took, PASSES, sizeof(took[0]), by_duration);
    *ret_bytes_per_s = (double)p->count * sizeof(uint4) / (1e-3 * (double)took[MEDIAN]);
    return TSR_OK;
}

/* CTAs of a pass, and the words it reads; memory for them. */
static tsr_status open_pass(tsr_cuda_device *cuda, uint64_t bytes, read_pass *p)
{
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    int sms = 0;

    tsr_status st = TSR_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
    if (st == TSR_OK)
        st = TSR_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, cuda->ordinal));
    if (st != TSR_OK)
        return st;
    const uint64_t most = free_bytes / FREE_PARTS;
    p->count = (int64_t)((bytes < most ? bytes : most) / sizeof(uint4));
    p->ctas = (unsigned)(sms * CTAS_PER_SM);
    st = TSR_CUDA(cudaMalloc((void **)&p->words, ((size_t)p->count + 1) * sizeof(uint4)));
    if (st == TSR_OK)
        st = TSR_CUDA(cudaEventCreate(&p->start));
    if (st == TSR_OK)
        st = TSR_CUDA(cudaEventCreate(&p->end));
    return st;
}

static void close_pass(const read_pass *p)
{
    if (p->start != NULL)
        (void)TSR_CUDA(cudaEventDestroy(p->start));
    if (p->end != NULL)
        (void)TSR_CUDA(cudaEventDestroy(p->end));
    (void)TSR_CUDA(cudaFree(p->words));
}

tsr_status tsr_read_bandwidth_cuda(tsr_device *device, uint64_t bytes, double *ret_bytes_per_s)
{
    tsr_cuda_device *cuda = tsr_cuda(device);
    read_pass p = {};

    p.stream = cuda->stream;
    tsr_status st = open_pass(cuda, bytes, &p);
    if (st == TSR_OK)
        st = time_passes(&p, ret_bytes_per_s);
    close_pass(&p);
    return st;
}
