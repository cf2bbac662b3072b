/*
 * From a row of logits to a token, by the rules of sample_cpu.c, a cluster of CTAs a sample, each with
 * a slice of the row in its shared memory:
 *
 *   logits [rows, V] --logit_row--> | slice 0 | slice 1 | .. | --> token --> sampled[i]
 *                                               |                    '-----> text[slot, position]
 *                                               '--> the largest --> top[first_top ...]
 *
 * Nothing is sorted. A logit has a key whose unsigned order is its own; what is left of the
 * vocabulary is always all ids above an edge, and some at it, the lower ones first:
 *
 *   keys   ........ | edge: n lowest ids | ...... above: all ...... |
 *
 * top_k, top_p and the draw each look for an edge, bit by bit, with one sum over the row a bit. Sums
 * are in double, in an order that the vocabulary alone fixes: threads, warps, CTAs.
 */
#include "kernels/cuda/device/async_cuda.cuh"
#include "kernels/cuda/device/block_cuda.cuh"
#include "kernels/cuda/sample/rules_cuda.cuh"
#include "kernels/cuda/sample/sample_team_cuda.cuh"

enum {
    KEY_BITS = 32,
    SAMPLE_BEFORE = 3, /* words in front of a slice that are copied with it */
};

/* A row and how it is weighed: p = exp((x - peak) / temperature). */
typedef struct weighed_row {
    const float *x;     /* [count] the slice of this CTA */
    const float *whole; /* in device memory */
    int32_t first;      /* id of x[0] */
    int32_t count;
    int32_t ids; /* of the whole row */
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

/* The largest logit, the lower id of equals, which becomes the row's peak; TSR_NO_TOKEN where one is
 * NaN or infinite. */
static __device__ int32_t largest(sample_team *t, weighed_row &r)
{
    float value = -INFINITY;
    int32_t at = -1;
    bool wrong = false;

    for (int32_t i = (int32_t)threadIdx.x; i < r.count; i += SAMPLE_THREADS) {
        const float x = r.x[i];
        wrong = wrong || !isfinite(x);
        if (x > value) {
            value = x;
            at = i;
        }
    }
    uint64_t most = at < 0 ? 0 : (uint64_t)key_of(value) << KEY_BITS | ~(uint32_t)(r.first + at);
    most = most_of_all(t, wrong ? UINT64_MAX : most);
    r.peak = value_of((uint32_t)(most >> KEY_BITS));
    return most == UINT64_MAX ? TSR_NO_TOKEN : (int32_t) ~(uint32_t)most;
}

static __device__ double mass_above(sample_team *t, const weighed_row &r, uint32_t key)
{
    double sum = 0.0;

    for (int32_t i = (int32_t)threadIdx.x; i < r.count; i += SAMPLE_THREADS) {
        if (key_of(r.x[i]) > key)
            sum += (double)weight_of(r, r.x[i]);
    }
    return sum_of_all(t, sum);
}

static __device__ int32_t count_above(sample_team *t, const weighed_row &r, uint32_t key)
{
    int32_t count = 0;

    for (int32_t i = (int32_t)threadIdx.x; i < r.count; i += SAMPLE_THREADS)
        count += key_of(r.x[i]) > key;
    return count_of_all(t, count);
}

static __device__ int32_t count_at(sample_team *t, const weighed_row &r, uint32_t key)
{
    int32_t count = 0;

    for (int32_t i = (int32_t)threadIdx.x; i < r.count; i += SAMPLE_THREADS)
        count += key_of(r.x[i]) == key;
    return count_of_all(t, count);
}

/* Of what `kept` has, the mass of keys from `key` on. */
static __device__ double mass_from(sample_team *t, const weighed_row &r, edge kept, uint32_t key)
{
    if (key > kept.key)
        return mass_above(t, r, key - 1);
    const double above = mass_above(t, r, kept.key);
    return kept.equals == 0 ? above
                            : above + kept.equals * (double)weight_of(r, value_of(kept.key));
}

/* The largest key from which on there is more than `mass` of what is kept, or as much. */
static __device__ uint32_t edge_of_mass(sample_team *t, const weighed_row &r, edge kept,
                                        double mass, bool more)
{
    uint32_t key = 0;

    for (int bit = KEY_BITS - 1; bit >= 0; bit--) {
        const uint32_t next = key | 1U << bit;
        const double sum = mass_from(t, r, kept, next);
        if (more ? sum > mass : sum >= mass)
            key = next;
    }
    return key < kept.key ? kept.key : key;
}

/* The `wanted` largest; fewer than there are. */
static __device__ edge edge_of_count(sample_team *t, const weighed_row &r, int32_t wanted)
{
    edge e = {0, 0};

    for (int bit = KEY_BITS - 1; bit >= 0; bit--) {
        const uint32_t next = e.key | 1U << bit;
        if (count_above(t, r, next - 1) >= wanted)
            e.key = next;
    }
    e.equals = wanted - count_above(t, r, e.key);
    return e;
}

/* How many of those at `key` it takes, one after the other, to come to `mass` (or past it). */
static __device__ int32_t equals_until(sample_team *t, const weighed_row &r, edge kept,
                                       uint32_t key, double mass, bool more, double *ret_sum)
{
    const int32_t most = key == kept.key && kept.equals > 0 ? kept.equals : count_at(t, r, key);
    const double each = (double)weight_of(r, value_of(key));
    double sum = mass_above(t, r, key);
    int32_t n = 0;

    while (n < most && (n == 0 || !(more ? sum > mass : sum >= mass))) {
        sum += each;
        n++;
    }
    *ret_sum = sum;
    return n;
}

/* A thread's part of the slice, in one piece. */
static __device__ void piece_of(const weighed_row &r, int32_t *ret_first, int32_t *ret_last)
{
    *ret_first = (int32_t)((int64_t)r.count * threadIdx.x / SAMPLE_THREADS);
    *ret_last = (int32_t)((int64_t)r.count * (threadIdx.x + 1) / SAMPLE_THREADS);
}

/* The n-th id, from 1, whose key is `key`. */
static __device__ int32_t id_at(sample_team *t, const weighed_row &r, uint32_t key, int32_t n)
{
    int32_t first, last;
    int32_t count = 0;
    uint64_t found = 0; /* the id's successor */

    piece_of(r, &first, &last);
    for (int32_t i = first; i < last; i++)
        count += key_of(r.x[i]) == key;
    int32_t left = n - (int32_t)sum_before(t, (double)count);
    for (int32_t i = first; i < last && left > 0 && left <= count; i++) {
        if (key_of(r.x[i]) == key && --left == 0)
            found = (uint64_t)(r.first + i) + 1;
    }
    found = most_of_all(t, found);
    return found > 0 ? (int32_t)(found - 1) : 0;
}

/* One of all ids: the first, in order, at which the running sum passes its share u; the last one
 * where rounding leaves none. */
static __device__ int32_t draw_from_all(sample_team *t, const weighed_row &r, double u)
{
    int32_t first, last;
    double sum = 0.0;
    int32_t id = r.ids;

    piece_of(r, &first, &last);
    for (int32_t i = first; i < last; i++)
        sum += (double)weight_of(r, r.x[i]);
    double passed = sum_before(t, sum);
    const double target = u * sum_of_all(t, sum);
    if (passed + sum > target && first < last) {
        id = r.first + last - 1;
        for (int32_t i = first; i < last; i++) {
            passed += (double)weight_of(r, r.x[i]);
            if (passed > target) {
                id = r.first + i;
                break;
            }
        }
    }
    id = (int32_t)(UINT32_MAX - (uint32_t)most_of_all(t, UINT32_MAX - (uint32_t)id));
    return min(id, r.ids - 1);
}

/* Where top_k or top_p leave some ids out. */
static __device__ int32_t draw_from_top(sample_team *t, const weighed_row &r,
                                        const tsr_sample_row &row, double u)
{
    edge kept = {0, 0};
    double sum = 0.0;

    if (row.top_k > 0 && row.top_k < r.ids)
        kept = edge_of_count(t, r, row.top_k);
    if (row.top_p < 1.0F) {
        const double wanted = (double)row.top_p * mass_from(t, r, kept, 0);
        const uint32_t key = edge_of_mass(t, r, kept, wanted, false);
        const int32_t equals = equals_until(t, r, kept, key, wanted, false, &sum);
        kept.key = key;
        kept.equals = equals;
    }
    const double target = u * mass_from(t, r, kept, 0);
    const uint32_t key = edge_of_mass(t, r, kept, target, true);
    return id_at(t, r, key, equals_until(t, r, kept, key, target, true, &sum));
}

static __device__ int32_t choose(sample_team *t, const weighed_row &r, const tsr_sample_row &row,
                                 int32_t best)
{
    const bool all = (row.top_k == 0 || row.top_k >= r.ids) && row.top_p >= 1.0F;

    if (row.temperature == 0.0F)
        return best;
    const double u = random_number(row.seed, row.output_index);
    return all ? draw_from_all(t, r, u) : draw_from_top(t, r, row, u);
}

/* What the log softmax of any id takes: x - peak - log_sum. */
static __device__ double log_sum_of(sample_team *t, const weighed_row &r)
{
    double sum = 0.0;

    for (int32_t i = (int32_t)threadIdx.x; i < r.count; i += SAMPLE_THREADS)
        sum += (double)expf(r.x[i] - r.peak);
    return log(sum_of_all(t, sum));
}

static __device__ tsr_token_logprob log_probability(const weighed_row &r, double log_sum,
                                                    int32_t id)
{
    tsr_token_logprob p = {id, 0.0F};

    if (id >= r.ids)
        p.logprob = -INFINITY;
    else if (id >= 0)
        p.logprob = (float)((double)(r.whole[id] - r.peak) - log_sum);
    return p;
}

static __device__ bool is_first(void)
{
    return threadIdx.x == 0 && blockIdx.x % SAMPLE_CTAS == 0;
}

/* The largest, one after the other: each the largest below the last. None where the row is not
 * finite. */
static __device__ void tell_top(sample_team *t, const weighed_row &r, double log_sum,
                                bool is_finite, const tsr_sample_row &row, tsr_token_logprob *top)
{
    uint64_t last = UINT64_MAX;

    for (int32_t n = 0; n < row.top_count; n++) {
        uint64_t most = 0;
        for (int32_t i = (int32_t)threadIdx.x; i < r.count && is_finite; i += SAMPLE_THREADS) {
            const uint64_t x = (uint64_t)key_of(r.x[i]) << KEY_BITS | ~(uint32_t)(r.first + i);
            most = x < last ? max(most, x) : most;
        }
        last = most_of_all(t, most);
        if (is_first())
            top[n] =
                log_probability(r, log_sum, last == 0 ? TSR_NO_TOKEN : (int32_t) ~(uint32_t)last);
    }
}

static __device__ int32_t forced_token(const tsr_text_table &text, const tsr_sample_row &row)
{
    if (row.position < 0 || row.position >= text.positions)
        return TSR_NO_TOKEN;
    return text.ids[(int64_t)row.slot * text.positions + row.position];
}

/* The slice of this CTA: where it is, unless it is held. */
static __device__ weighed_row row_of(const tsr_sample_args &a, const tsr_sample_row &row,
                                     int32_t slice)
{
    const int32_t rank = (int32_t)cooperative_groups::this_cluster().block_rank();
    weighed_row r = {};

    r.whole = a.logits + (int64_t)row.logit_row * a.vocab;
    r.first = min(rank * slice, a.allowed);
    r.count = min(slice, a.allowed - r.first);
    r.ids = a.allowed;
    r.temperature = row.temperature;
    r.x = r.whole + r.first;
    return r;
}

/* The slice into `room`, in one piece but for what is behind the last 16 bytes, and from as many words in
 * front of it as it takes to begin with 16. Returns where its first word goes. */
static __device__ float *bring(const weighed_row &r, float *room, uint32_t barrier)
{
    const int32_t before = (int32_t)((uintptr_t)r.x / sizeof(float) % 4);
    const int32_t whole = (before + r.count) / 4 * 4;
    const int32_t last = whole + (int32_t)threadIdx.x;

    if (threadIdx.x == 0) {
        barrier_expect(barrier, (uint32_t)whole * sizeof(float));
        if (whole > 0)
            copy_bulk(async_address(room), r.x - before, (uint32_t)whole * sizeof(float), barrier);
    }
    if (last < before + r.count && last >= before)
        room[last] = __ldcg(r.x - before + last);
    return room + before;
}

static __device__ void write(const tsr_sample_args &a, const tsr_sample_row &row, int32_t sample,
                             tsr_sampled sampled)
{
    a.sampled[sample] = sampled;
    if ((row.flags & TSR_SAMPLE_FORCED) != 0)
        return;
    /* Where the text goes so far: a last token may come just behind it. What has no token gets an
     * id all the same, for a step that is under way already reads one. */
    if (row.position >= 0 && row.position < a.text.positions)
        a.text.ids[(int64_t)row.slot * a.text.positions + row.position] =
            sampled.token < 0 ? 0 : sampled.token;
}

/* Whether rows are held in shared memory, and how much of it is left. */
typedef struct sample_room {
    int32_t slice; /* ids of a CTA */
    int32_t seen;  /* words behind it, where rows are bent */
    bool is_held;
} sample_room;

/* Of what its mask and the rules of its slot make of the row, and of what is probable enough. */
static __device__ int32_t choose_bent(sample_team *t, weighed_row r, const tsr_sample_args &a,
                                      const tsr_sample_row &row, float *x, sample_room room)
{
    tsr_bent_slice s = {};
    int32_t best = 0;

    s.x = x;
    s.first = r.first;
    s.count = r.count;
    s.seen = (int32_t *)(x + room.slice);
    s.room = room.seen;
    s.text = a.text.ids + (int64_t)row.slot * a.text.positions;
    s.position = max(0, min(row.position, a.text.positions));
    if ((row.flags & TSR_SAMPLE_MASKED) != 0)
        tsr_keep_masked(a.masks + (int64_t)row.mask * ((a.vocab + 31) / 32), s);
    if ((row.flags & TSR_SAMPLE_RULED) != 0)
        tsr_bend(a.rules[row.slot], s);
    best = largest(t, r);
    if (r.peak == TSR_RULED_OUT)
        return TSR_NO_TOKEN_LEFT;
    for (int32_t i = (int32_t)threadIdx.x;
         i < r.count && row.min_p > 0.0F && row.temperature > 0.0F; i += SAMPLE_THREADS)
        x[i] = weight_of(r, x[i]) < row.min_p ? TSR_RULED_OUT : x[i];
    __syncthreads();
    return choose(t, r, row, best);
}

/* What is wrong with a sample, or a fault of no kind. */
static __device__ tsr_fault fault_of(const tsr_sample_args &a, int32_t i)
{
    const tsr_sample_row row = a.row[i];
    const bool placed = (row.flags & TSR_SAMPLE_RULED) != 0 ||
                        (row.position >= 0 && row.position < a.text.positions);
    tsr_fault fault = {TSR_FAULT_NONE, i, 0, 0, 0};

    if (row.logit_row < 0 || row.logit_row >= a.rows) {
        fault.kind = TSR_FAULT_LOGIT_ROW;
        fault.value = row.logit_row;
        fault.limit = a.rows;
    } else if (placed && (row.slot < 0 || row.slot >= a.text.slots)) {
        fault.kind = TSR_FAULT_SLOT;
        fault.value = row.slot;
        fault.limit = a.text.slots;
    } else if (row.top_count < 0 || row.top_count > TSR_MOST_TOP ||
               (row.top_count > 0 &&
                (row.first_top < 0 || row.first_top > a.tops - row.top_count))) {
        fault.kind = TSR_FAULT_TOP;
        fault.value = row.first_top + row.top_count;
        fault.limit = a.tops;
    } else if ((row.flags & TSR_SAMPLE_MASKED) != 0 && (row.mask < 0 || row.mask >= a.mask_rows)) {
        fault.kind = TSR_FAULT_MASK;
        fault.value = row.mask;
        fault.limit = a.mask_rows;
    }
    return fault;
}

/* The first sample that something is wrong with; INT32_MAX: none. */
static __device__ int32_t first_wrong(const tsr_sample_args &a)
{
    int32_t wrong = INT32_MAX;

    for (int32_t i = (int32_t)threadIdx.x; i < a.samples && wrong == INT32_MAX;
         i += SAMPLE_THREADS) {
        if (fault_of(a, i).kind != TSR_FAULT_NONE)
            wrong = i;
    }
    return __syncthreads_or((int)(wrong != INT32_MAX)) != 0 ? tsr_cta_least(wrong) : INT32_MAX;
}

static __device__ int32_t token_of(sample_team *t, const weighed_row &r, const tsr_sample_args &a,
                                   const tsr_sample_row &row, int32_t best)
{
    return (row.flags & TSR_SAMPLE_FORCED) != 0 ? forced_token(a.text, row)
                                                : choose(t, r, row, best);
}

/* What is asked of a row. Without rules and min_p it has no code for them, which would be fetched for
 * nothing. */
template <bool is_bent>
static __device__ __forceinline__ void
sample_row(sample_team *team, weighed_row r, const tsr_sample_args &a, const tsr_sample_row &row,
           float *held, sample_room room)
{
    const int32_t sample = (int32_t)(blockIdx.x / SAMPLE_CTAS);
    const int32_t best = largest(team, r);
    const bool is_finite = best != TSR_NO_TOKEN;
    const bool bends =
        (row.flags & (TSR_SAMPLE_RULED | TSR_SAMPLE_MASKED)) != 0 || row.min_p > 0.0F;
    tsr_sampled sampled = {TSR_NO_TOKEN, 0.0F};
    double log_sum = 0.0;

    if (is_finite)
        log_sum = log_sum_of(team, r);
    tell_top(team, r, log_sum, is_finite, row, a.top + row.first_top);
    if (is_finite) {
        const int32_t token = is_bent && bends && (row.flags & TSR_SAMPLE_FORCED) == 0
                                  ? choose_bent(team, r, a, row, held, room)
                                  : token_of(team, r, a, row, best);
        sampled = log_probability(r, log_sum, token);
    }
    if (is_first())
        write(a, row, sample, sampled);
}

/* Rows that say what is asked no kernel in front writes: they are looked at before the logits stand. */
template <bool is_bent>
static __global__ void __launch_bounds__(SAMPLE_THREADS)
    sample_kernel(tsr_sample_args a, sample_room room, tsr_cuda_faults faults)
{
    extern __shared__ __align__(16) float memory_of_slice[];
    __shared__ sample_memory memory;
    __shared__ uint64_t arrived;
    const uint32_t barrier = async_address(&arrived);
    sample_team team = {&memory, 0};
    float *held = memory_of_slice;

    tsr_admit_kernel();
    if (threadIdx.x == 0) {
        barrier_open(barrier, 1);
        barriers_opened();
    }
    const int32_t wrong = first_wrong(a);
    const tsr_sample_row row = a.row[blockIdx.x / SAMPLE_CTAS];
    weighed_row r = row_of(a, row, room.slice);
    cooperative_groups::this_cluster().sync(); /* all are there to be written to */
    tsr_await_kernel();
    if (wrong != INT32_MAX && threadIdx.x == 0)
        tsr_leave_fault(faults, fault_of(a, wrong));
    if (wrong != INT32_MAX || tsr_is_faulty(faults))
        return;
    if (room.is_held) {
        held = bring(r, held, barrier);
        r.x = held;
        barrier_wait(barrier, 0);
        __syncthreads();
    }
    sample_row<is_bent>(&team, r, a, row, held, room);
}

tsr_status tsr_cuda_prepare_sample(void)
{
    const cudaFuncAttribute attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    const tsr_status st =
        TSR_CUDA(cudaFuncSetAttribute(sample_kernel<false>, attribute, TSR_CUDA_SHARED));

    return st == TSR_OK
               ? TSR_CUDA(cudaFuncSetAttribute(sample_kernel<true>, attribute, TSR_CUDA_SHARED))
               : st;
}

tsr_status tsr_sample_cuda(tsr_device *device, const tsr_sample_args *a, tsr_stream s)
{
    const tsr_cuda_faults faults = tsr_cuda(device)->faults;
    const int32_t slice = (int32_t)tsr_cuda_ceil(a->allowed, SAMPLE_CTAS);
    const size_t bytes = ((size_t)slice + SAMPLE_BEFORE) * sizeof(float);
    const size_t left = bytes < TSR_CUDA_SHARED ? TSR_CUDA_SHARED - bytes : 0;
    sample_room room = {slice, 0, bytes <= TSR_CUDA_SHARED};
    tsr_cuda_launch_shape at = {dim3((unsigned)a->samples * SAMPLE_CTAS), SAMPLE_THREADS, 0,
                                tsr_cuda_stream(device, s), SAMPLE_CTAS};

    if (a->samples == 0)
        return TSR_OK;
    if (a->is_bent && left / sizeof(int32_t) == 0) {
        tsr_log(TSR_LOG_ERROR,
                "predict: penalties, biases and min_p are for vocabularies of up to %d ids here",
                (int)(SAMPLE_CTAS * TSR_CUDA_SHARED / sizeof(float)));
        return TSR_ERR_ARG;
    }
    if (a->is_bent)
        room.seen = min(slice, (int32_t)(left / sizeof(int32_t)));
    at.shared = room.is_held ? bytes + (size_t)room.seen * sizeof(int32_t) : 0;
    return a->is_bent ? tsr_cuda_launch(at, sample_kernel<true>, *a, room, faults)
                      : tsr_cuda_launch(at, sample_kernel<false>, *a, room, faults);
}
