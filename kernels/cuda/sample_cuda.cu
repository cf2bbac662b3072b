/*
 * From a row of logits to a token, by the rules of sample_cpu.c, a CTA a sample:
 *
 *   logits [rows, V] --logit_row--> x [V] --> token --> sampled[i]
 *                                               '-----> text[slot, position]
 *
 * Nothing is sorted. A logit has a key whose unsigned order is its own; what is left of the
 * vocabulary is always all ids above an edge, and some at it, the lower ones first:
 *
 *   keys   ........ | edge: n lowest ids | ...... above: all ...... |
 *
 * top_k, top_p and the draw each look for an edge, bit by bit, with one sum over the row a bit. Sums
 * are in double, in an order that the vocabulary alone fixes.
 */
#include "kernels/cuda/block_cuda.cuh"

enum { SAMPLE_THREADS = 1024, SAMPLE_WARPS = SAMPLE_THREADS / TSR_CUDA_LANES, KEY_BITS = 32 };

/* What the threads share while they look. */
typedef struct sample_memory {
    double sum[SAMPLE_THREADS];
    int32_t count[SAMPLE_THREADS];
    double found_sum;
    int32_t found;
    int32_t left;
} sample_memory;

/* A row and how it is weighed: p = exp((x - peak) / temperature). */
typedef struct weighed_row {
    const float *x;
    int32_t count;
    float peak;
    float temperature;
} weighed_row;

/* Ids whose key is above `key`, and the `equals` lowest of those at it. */
typedef struct edge {
    uint32_t key;
    int32_t equals;
} edge;

/* Philox4x32, ten rounds, as sample_cpu.c has it. 53 bits in [0, 1). */
static __device__ double random_number(uint64_t seed, uint64_t index)
{
    uint32_t c[4] = {(uint32_t)index, (uint32_t)(index >> 32), 0, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};

    for (int round = 0; round < 10; round++) {
        const uint64_t a = UINT64_C(0xD2511F53) * c[0];
        const uint64_t b = UINT64_C(0xCD9E8D57) * c[2];
        c[0] = (uint32_t)(b >> 32) ^ c[1] ^ key[0];
        c[2] = (uint32_t)(a >> 32) ^ c[3] ^ key[1];
        c[1] = (uint32_t)b;
        c[3] = (uint32_t)a;
        key[0] += 0x9E3779B9U;
        key[1] += 0xBB67AE85U;
    }
    return (double)(((uint64_t)c[0] << 32 | c[1]) >> 11) * 0x1p-53;
}

/* Unsigned order of keys is the order of values; -0 equals 0. */
static __device__ __forceinline__ uint32_t key_of(float x)
{
    const uint32_t u = __float_as_uint(x + 0.0F);

    return (u & 0x80000000U) != 0 ? ~u : u | 0x80000000U;
}

static __device__ __forceinline__ float value_of(uint32_t key)
{
    return __uint_as_float((key & 0x80000000U) != 0 ? key & 0x7fffffffU : ~key);
}

static __device__ __forceinline__ float weight_of(const weighed_row &r, float x)
{
    return expf((x - r.peak) / r.temperature);
}

/* The sum of the threads' numbers; all get it. */
static __device__ double sum_of_all(sample_memory *m, double x)
{
    double sum = 0.0;

    for (int apart = TSR_CUDA_LANES / 2; apart > 0; apart /= 2)
        x += __shfl_xor_sync(TSR_ALL_LANES, x, apart);
    __syncthreads();
    if (threadIdx.x % TSR_CUDA_LANES == 0)
        m->sum[threadIdx.x / TSR_CUDA_LANES] = x;
    __syncthreads();
    for (int w = 0; w < SAMPLE_WARPS; w++)
        sum += m->sum[w];
    return sum;
}

/* Exact in double. */
static __device__ int32_t count_of_all(sample_memory *m, int32_t x)
{
    return (int32_t)sum_of_all(m, (double)x);
}

/* True when none is NaN or infinite. */
static __device__ bool all_finite(const float *x, int32_t count)
{
    int wrong = 0;

    for (int32_t i = (int32_t)threadIdx.x; i < count; i += SAMPLE_THREADS)
        wrong |= !isfinite(x[i]);
    return __syncthreads_or(wrong) == 0;
}

/* The largest logit, the lower id of equals. */
static __device__ int32_t largest(sample_memory *m, const float *x, int32_t count)
{
    int32_t best = 0;
    float most = -INFINITY;

    for (int32_t i = (int32_t)threadIdx.x; i < count; i += SAMPLE_THREADS) {
        if (x[i] > most) {
            best = i;
            most = x[i];
        }
    }
    m->count[threadIdx.x] = best;
    m->sum[threadIdx.x] = (double)most;
    __syncthreads();
    for (int32_t apart = SAMPLE_THREADS / 2; apart > 0; apart /= 2) {
        const int32_t me = (int32_t)threadIdx.x;
        if (me < apart) {
            const double theirs = m->sum[me + apart];
            const int32_t other = m->count[me + apart];
            if (theirs > m->sum[me] || (theirs == m->sum[me] && other < m->count[me])) {
                m->sum[me] = theirs;
                m->count[me] = other;
            }
        }
        __syncthreads();
    }
    best = m->count[0];
    __syncthreads();
    return best;
}

static __device__ double mass_above(sample_memory *m, const weighed_row &r, uint32_t key)
{
    double sum = 0.0;

    for (int32_t i = (int32_t)threadIdx.x; i < r.count; i += SAMPLE_THREADS) {
        if (key_of(r.x[i]) > key)
            sum += (double)weight_of(r, r.x[i]);
    }
    return sum_of_all(m, sum);
}

static __device__ int32_t count_above(sample_memory *m, const weighed_row &r, uint32_t key)
{
    int32_t count = 0;

    for (int32_t i = (int32_t)threadIdx.x; i < r.count; i += SAMPLE_THREADS)
        count += key_of(r.x[i]) > key;
    return count_of_all(m, count);
}

static __device__ int32_t count_at(sample_memory *m, const weighed_row &r, uint32_t key)
{
    int32_t count = 0;

    for (int32_t i = (int32_t)threadIdx.x; i < r.count; i += SAMPLE_THREADS)
        count += key_of(r.x[i]) == key;
    return count_of_all(m, count);
}

/* Of what `kept` has, the mass of keys from `key` on. */
static __device__ double mass_from(sample_memory *m, const weighed_row &r, edge kept, uint32_t key)
{
    if (key > kept.key)
        return mass_above(m, r, key - 1);
    const double above = mass_above(m, r, kept.key);
    return kept.equals == 0 ? above
                            : above + kept.equals * (double)weight_of(r, value_of(kept.key));
}

/* The largest key from which on there is more than `mass` of what is kept, or as much. */
static __device__ uint32_t edge_of_mass(sample_memory *m, const weighed_row &r, edge kept,
                                        double mass, bool more)
{
    uint32_t key = 0;

    for (int bit = KEY_BITS - 1; bit >= 0; bit--) {
        const uint32_t next = key | 1U << bit;
        const double sum = mass_from(m, r, kept, next);
        if (more ? sum > mass : sum >= mass)
            key = next;
    }
    return key < kept.key ? kept.key : key;
}

/* The `wanted` largest; fewer than there are. */
static __device__ edge edge_of_count(sample_memory *m, const weighed_row &r, int32_t wanted)
{
    edge e = {0, 0};

    for (int bit = KEY_BITS - 1; bit >= 0; bit--) {
        const uint32_t next = e.key | 1U << bit;
        if (count_above(m, r, next - 1) >= wanted)
            e.key = next;
    }
    e.equals = wanted - count_above(m, r, e.key);
    return e;
}

/* How many of those at `key` it takes, one after the other, to come to `mass` (or past it). */
static __device__ int32_t equals_until(sample_memory *m, const weighed_row &r, edge kept,
                                       uint32_t key, double mass, bool more, double *ret_sum)
{
    const int32_t most = key == kept.key && kept.equals > 0 ? kept.equals : count_at(m, r, key);
    const double each = (double)weight_of(r, value_of(key));
    double sum = mass_above(m, r, key);
    int32_t n = 0;

    while (n < most && (n == 0 || !(more ? sum > mass : sum >= mass))) {
        sum += each;
        n++;
    }
    *ret_sum = sum;
    return n;
}

/* A thread's ids, in order: its share of the row in one piece. */
static __device__ void piece_of(int32_t count, int32_t thread, int32_t *first, int32_t *last)
{
    *first = (int32_t)((int64_t)count * thread / SAMPLE_THREADS);
    *last = (int32_t)((int64_t)count * (thread + 1) / SAMPLE_THREADS);
}

/* The n-th id, from 1, whose key is `key`. */
static __device__ int32_t id_at(sample_memory *m, const weighed_row &r, uint32_t key, int32_t n)
{
    int32_t first, last;
    int32_t count = 0;

    piece_of(r.count, (int32_t)threadIdx.x, &first, &last);
    for (int32_t i = first; i < last; i++)
        count += key_of(r.x[i]) == key;
    __syncthreads();
    m->count[threadIdx.x] = count;
    __syncthreads();
    if (threadIdx.x == 0) {
        int32_t thread = 0;
        while (thread < SAMPLE_THREADS - 1 && m->count[thread] < n)
            n -= m->count[thread++];
        piece_of(r.count, thread, &first, &last);
        m->found = first;
        for (int32_t i = first; i < last && n > 0; i++) {
            if (key_of(r.x[i]) == key) {
                m->found = i;
                n--;
            }
        }
    }
    __syncthreads();
    return m->found;
}

/* One of all ids: the first, in order, at which the running sum passes its share u. */
static __device__ int32_t draw_from_all(sample_memory *m, const weighed_row &r, double u)
{
    int32_t first, last;
    double sum = 0.0;

    piece_of(r.count, (int32_t)threadIdx.x, &first, &last);
    for (int32_t i = first; i < last; i++)
        sum += (double)weight_of(r, r.x[i]);
    __syncthreads();
    m->sum[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        int32_t thread = 0;
        double total = 0.0;
        for (int32_t i = 0; i < SAMPLE_THREADS; i++)
            total += m->sum[i];
        const double target = u * total;
        double passed = 0.0;
        while (thread < SAMPLE_THREADS - 1 && !(passed + m->sum[thread] > target))
            passed += m->sum[thread++];
        piece_of(r.count, thread, &first, &last);
        m->found = last > 0 ? last - 1 : 0;
        for (int32_t i = first; i < last; i++) {
            passed += (double)weight_of(r, r.x[i]);
            if (passed > target) {
                m->found = i;
                break;
            }
        }
    }
    __syncthreads();
    return m->found;
}

/* Where top_k or top_p leave some ids out. */
static __device__ int32_t draw_from_top(sample_memory *m, const weighed_row &r,
                                        const tsr_sample_row &row, double u)
{
    edge kept = {0, 0};
    double sum = 0.0;

    if (row.top_k > 0 && row.top_k < r.count)
        kept = edge_of_count(m, r, row.top_k);
    if (row.top_p < 1.0F) {
        const double wanted = (double)row.top_p * mass_from(m, r, kept, 0);
        const uint32_t key = edge_of_mass(m, r, kept, wanted, false);
        const int32_t equals = equals_until(m, r, kept, key, wanted, false, &sum);
        kept.key = key;
        kept.equals = equals;
    }
    const double target = u * mass_from(m, r, kept, 0);
    const uint32_t key = edge_of_mass(m, r, kept, target, true);
    return id_at(m, r, key, equals_until(m, r, kept, key, target, true, &sum));
}

static __device__ int32_t choose(sample_memory *m, const weighed_row &r, const tsr_sample_row &row,
                                 int32_t best)
{
    const bool all = (row.top_k == 0 || row.top_k >= r.count) && row.top_p >= 1.0F;

    if (row.temperature == 0.0F)
        return best;
    const double u = random_number(row.seed, row.output_index);
    return all ? draw_from_all(m, r, u) : draw_from_top(m, r, row, u);
}

/* log softmax of one id. */
static __device__ float log_probability(sample_memory *m, const weighed_row &r, int32_t id)
{
    double sum = 0.0;

    for (int32_t i = (int32_t)threadIdx.x; i < r.count; i += SAMPLE_THREADS)
        sum += (double)expf(r.x[i] - r.peak);
    sum = sum_of_all(m, sum);
    return (float)((double)(r.x[id] - r.peak) - log(sum));
}

static __global__ void __launch_bounds__(SAMPLE_THREADS)
    sample_kernel(tsr_sample_args a, tsr_cuda_faults faults)
{
    __shared__ sample_memory memory;
    weighed_row r;

    if (tsr_is_faulty(faults))
        return;
    const tsr_sample_row row = a.row[blockIdx.x];
    r.x = a.logits + (int64_t)row.logit_row * a.vocab;
    r.count = a.allowed;
    r.temperature = row.temperature;
    int32_t token = TSR_NO_TOKEN;
    float logprob = 0.0F;
    if (all_finite(r.x, r.count)) {
        const int32_t best = largest(&memory, r.x, r.count);
        r.peak = r.x[best];
        token = choose(&memory, r, row, best);
        logprob = log_probability(&memory, r, token);
    }
    if (threadIdx.x != 0)
        return;
    a.sampled[blockIdx.x].token = token;
    a.sampled[blockIdx.x].logprob = logprob;
    /* Where the text goes so far: a last token may come just behind it. What has no token gets an
     * id all the same, for a step that is under way already reads one. */
    if (row.position >= 0 && row.position < a.text.positions)
        a.text.ids[(int64_t)row.slot * a.text.positions + row.position] =
            token == TSR_NO_TOKEN ? 0 : token;
}

/* What is wrong with a sample, or a fault of no kind. */
static __device__ tsr_fault fault_of(const tsr_sample_args &a, int32_t i)
{
    const tsr_sample_row row = a.row[i];
    const bool written = row.position >= 0 && row.position < a.text.positions;
    tsr_fault fault = {TSR_FAULT_NONE, i, 0, 0, 0};

    if (row.logit_row < 0 || row.logit_row >= a.rows) {
        fault.kind = TSR_FAULT_LOGIT_ROW;
        fault.value = row.logit_row;
        fault.limit = a.rows;
    } else if (written && (row.slot < 0 || row.slot >= a.text.slots)) {
        fault.kind = TSR_FAULT_SLOT;
        fault.value = row.slot;
        fault.limit = a.text.slots;
    }
    return fault;
}

static __global__ void check_kernel(tsr_sample_args a, tsr_cuda_faults faults)
{
    int32_t wrong = INT32_MAX;

    for (int32_t i = (int32_t)threadIdx.x; i < a.samples && wrong == INT32_MAX;
         i += TSR_CUDA_THREADS) {
        if (fault_of(a, i).kind != TSR_FAULT_NONE)
            wrong = i;
    }
    wrong = tsr_cta_least(wrong);
    if (wrong != INT32_MAX && threadIdx.x == 0)
        tsr_leave_fault(faults, fault_of(a, wrong));
}

tsr_status tsr_sample_cuda(tsr_device *device, const tsr_sample_args *a, tsr_stream s)
{
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    const tsr_cuda_faults faults = tsr_cuda(device)->faults;

    if (a->samples == 0)
        return TSR_OK;
    check_kernel<<<1, TSR_CUDA_THREADS, 0, stream>>>(*a, faults);
    sample_kernel<<<(unsigned)a->samples, SAMPLE_THREADS, 0, stream>>>(*a, faults);
    return TSR_CUDA_LAUNCHED();
}
