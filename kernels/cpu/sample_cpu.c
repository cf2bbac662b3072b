/*
 * From a row of logits to a token, which goes to whoever asked and into the text:
 *
 *   logits [rows, V] --logit_row--> x [V] --> token --> sampled[i]
 *                                    |          '-----> text[slot, position]
 *                                    '--> the largest of x --> top[first_top ...]
 *
 *   not finite      a logit of the allowed ids is NaN or infinite: TSR_NO_TOKEN, id 0 in the text
 *   forced          the token that stands in the text
 *   ruled           x is bent by the rules of the slot first; where they leave no id:
 *                   TSR_NO_TOKEN_LEFT, id 0 in the text
 *   temperature 0   the largest allowed logit, the lower id of equals
 *   otherwise       p = exp((logit - max) / temperature), 0 where that is less than min_p;
 *                   the top_k largest (exactly k, the lower id of equals first);
 *                   of these the shortest prefix, in descending order, that holds top_p of their
 *                   sum; of these one, by a random number of (seed, output index)
 *
 * Sums over tokens are in double, in the order of the tokens considered: by id where all are, else
 * by descending logit.
 */
#include "kernels/cpu/ops_cpu.h"

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/lane_math.h"
#include "kernels/cpu/rules_cpu.h"
#include "kernels/cpu/stream_cpu.h"
#include "kernels/cpu/top_cpu.h"
#include "runtime/base/sizes.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Candidates sorted at first where only top_p limits them, and how that grows. */
enum { FIRST_CANDIDATES = 64, MORE_CANDIDATES = 8 };

/*
 * Philox4x32, ten rounds (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3),
 * keyed by the seed, counting output indices. 53 bits in [0, 1).
 */
static double random_number(uint64_t seed, uint64_t index)
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

/* True when none is NaN or infinite: what is finite is zero times it. */
static bool all_finite(const float *x, int32_t count)
{
    const lanes zero = lanes_set(0.0F);
    lanes sum = zero;

    for (int32_t i = 0; i < count; i += LANES) {
        const int n = count - i < LANES ? count - i : LANES;
        sum = lanes_add(sum, lanes_mul(lanes_load_part(x + i, n, 0.0F), zero));
    }
    return lanes_sum(sum) == 0.0F;
}

/* The first of the largest. */
static int32_t largest(const float *x, int32_t count)
{
    lanes most = lanes_set(-INFINITY);

    for (int32_t i = 0; i < count; i += LANES) {
        const int n = count - i < LANES ? count - i : LANES;
        most = lanes_max(most, lanes_load_part(x + i, n, -INFINITY));
    }
    const float peak = lanes_peak(most);
    for (int32_t i = 0; i < count; i++) {
        if (x[i] == peak)
            return i;
    }
    return 0;
}

/* What the log softmax of any id takes: x - peak - log_sum. */
typedef struct softmax {
    const float *x; /* [count] allowed, then those that are not */
    double log_sum;
    float peak;
    int32_t count;
} softmax;

static softmax softmax_of(const float *x, int32_t count, float peak)
{
    const lanes most = lanes_set(peak);
    lanes sum = lanes_set(0.0F);

    for (int32_t i = 0; i < count; i += LANES) {
        const int n = count - i < LANES ? count - i : LANES;
        sum = lanes_add(sum, lanes_exp(lanes_sub(lanes_load_part(x + i, n, -INFINITY), most)));
    }
    return (softmax){x, log((double)lanes_sum(sum)), peak, count};
}

static tsr_token_logprob log_probability(const softmax *s, int32_t id)
{
    if (id < 0)
        return (tsr_token_logprob){.token = id};
    if (id >= s->count)
        return (tsr_token_logprob){id, -INFINITY};
    return (tsr_token_logprob){id, (float)((double)(s->x[id] - s->peak) - s->log_sum)};
}

/* p = exp((x - peak) / temperature), up to 15 more elements written. */
static void weigh(const float *x, int32_t count, float peak, float temperature, float *p)
{
    const lanes most = lanes_set(peak);
    const lanes divisor = lanes_set(temperature);

    for (int32_t i = 0; i < count; i += LANES) {
        const int n = count - i < LANES ? count - i : LANES;
        const lanes x16 = lanes_load_part(x + i, n, -INFINITY);
        lanes_store(p + i, lanes_exp(lanes_div(lanes_sub(x16, most), divisor)));
    }
}

/* The candidate at which the running sum first passes `target`. */
static int32_t draw(const float *p, const int32_t *id, int32_t count, double target)
{
    double sum = 0.0;

    for (int32_t i = 0; i < count; i++) {
        sum += (double)p[id != NULL ? id[i] : i];
        if (sum > target)
            return id != NULL ? id[i] : i;
    }
    return id != NULL ? id[count - 1] : count - 1;
}

static double sum_of(const float *p, const int32_t *id, int32_t count)
{
    double sum = 0.0;

    for (int32_t i = 0; i < count; i++)
        sum += (double)p[id != NULL ? id[i] : i];
    return sum;
}

/* Length and sum of the shortest prefix that holds `wanted`; of the whole where none does. */
typedef struct prefix {
    double sum;
    int32_t count;
    bool reached;
} prefix;

static prefix shortest_prefix(const float *p, const int32_t *id, int32_t count, double wanted)
{
    prefix f = {0};

    while (f.count < count && !f.reached) {
        f.sum += (double)p[id[f.count]];
        f.count++;
        f.reached = f.sum >= wanted;
    }
    return f;
}

/* Where top_k or top_p leave some tokens out. */
static int32_t draw_from_top(const float *x, int32_t count, const tsr_sample_row *row,
                             const float *p, int32_t *id)
{
    const double u = random_number(row->seed, row->output_index);
    const double top_p = (double)row->top_p;
    const bool limited = row->top_k > 0 && row->top_k < count;
    int32_t candidates = limited ? row->top_k : FIRST_CANDIDATES;
    prefix f;

    if (candidates > count)
        candidates = count;
    tsr_top(x, count, candidates, id);
    const double total = limited ? sum_of(p, id, candidates) : sum_of(p, NULL, count);
    f = shortest_prefix(p, id, candidates, top_p * total);
    while (!f.reached && !limited && candidates < count) {
        candidates = candidates > count / MORE_CANDIDATES ? count : candidates * MORE_CANDIDATES;
        tsr_top(x, count, candidates, id);
        f = shortest_prefix(p, id, candidates, top_p * total);
    }
    return draw(p, id, f.count, u * f.sum);
}

static int32_t choose_token(const float *x, int32_t count, const tsr_sample_row *row, int32_t best,
                            float *p)
{
    const bool all = (row->top_k == 0 || row->top_k >= count) && row->top_p >= 1.0F;
    int32_t *id = (int32_t *)(void *)(p + tsr_aligned((uint64_t)count, LANES));

    if (row->temperature == 0.0F)
        return best;
    weigh(x, count, x[best], row->temperature, p);
    for (int32_t i = 0; i < count && row->min_p > 0.0F; i++)
        p[i] = p[i] < row->min_p ? 0.0F : p[i];
    if (!all)
        return draw_from_top(x, count, row, p, id);
    const double u = random_number(row->seed, row->output_index);
    return draw(p, NULL, count, u * sum_of(p, NULL, count));
}

/* Of what its mask and the rules of its slot make of x. */
static int32_t choose_ruled(const tsr_sample_args *a, const tsr_sample_row *row, const float *x,
                            float *work)
{
    const size_t stride = tsr_aligned((uint64_t)a->allowed, LANES);
    const int32_t *text = a->text.ids + (size_t)row->slot * (size_t)a->text.positions;
    const int32_t position = tsr_larger(0, tsr_smaller(row->position, a->text.positions));
    float *bent = work + 2 * stride;

    memcpy(bent, x, (size_t)a->allowed * sizeof(*bent));
    if ((row->flags & TSR_SAMPLE_MASKED) != 0)
        tsr_keep_masked(a->masks + (size_t)row->mask * (size_t)tsr_mask_words(a->vocab), bent,
                        a->allowed);
    if ((row->flags & TSR_SAMPLE_RULED) != 0)
        tsr_bend(&a->rules[row->slot], text, position, bent, a->allowed, (int32_t *)(void *)work);
    const int32_t best = largest(bent, a->allowed);
    if (bent[best] == -FLT_MAX)
        return TSR_NO_TOKEN_LEFT;
    return choose_token(bent, a->allowed, row, best, work);
}

typedef struct sample_run {
    const tsr_sample_args *a;
    const tsr_cpu_work *work;
} sample_run;

/* Where the text goes so far: a last token may come just behind it. What has no token gets an id
 * all the same, for a step that is under way already reads one. */
static void write_text(const tsr_text_table *text, const tsr_sample_row *row, int32_t token)
{
    if (row->position >= 0 && row->position < text->positions)
        text->ids[(size_t)row->slot * (size_t)text->positions + (size_t)row->position] =
            token < 0 ? 0 : token;
}

/* Of no softmax there are none. */
static void tell_top(const softmax *s, const tsr_sample_row *row, int32_t *id,
                     tsr_token_logprob *top)
{
    const int32_t there = s == NULL ? 0 : row->top_count < s->count ? row->top_count : s->count;

    if (there > 0)
        tsr_top(s->x, s->count, there, id);
    for (int32_t i = 0; i < row->top_count; i++)
        top[i] = i < there ? log_probability(s, id[i]) : (tsr_token_logprob){.token = TSR_NO_TOKEN};
}

static int32_t forced_token(const tsr_text_table *text, const tsr_sample_row *row)
{
    if (row->position < 0 || row->position >= text->positions)
        return TSR_NO_TOKEN;
    return text->ids[(size_t)row->slot * (size_t)text->positions + (size_t)row->position];
}

static tsr_sampled sample_row(const tsr_sample_args *a, const tsr_sample_row *row, float *work)
{
    const float *x = a->logits + (size_t)row->logit_row * (size_t)a->vocab;
    tsr_token_logprob *top = row->top_count > 0 ? a->top + row->first_top : NULL;

    if (!all_finite(x, a->allowed)) {
        tell_top(NULL, row, NULL, top);
        return (tsr_sampled){.token = TSR_NO_TOKEN};
    }
    const int32_t best = largest(x, a->allowed);
    const softmax s = softmax_of(x, a->allowed, x[best]);
    tell_top(&s, row, (int32_t *)(void *)work, top);
    if ((row->flags & TSR_SAMPLE_FORCED) != 0)
        return log_probability(&s, forced_token(&a->text, row));
    if ((row->flags & (TSR_SAMPLE_RULED | TSR_SAMPLE_MASKED)) != 0)
        return log_probability(&s, choose_ruled(a, row, x, work));
    return log_probability(&s, choose_token(x, a->allowed, row, best, work));
}

static void sample_share(const void *context, int32_t thread, int32_t threads)
{
    const sample_run *run = context;
    const tsr_sample_args *a = run->a;
    const tsr_thread_range mine = tsr_thread_share(a->samples, thread, threads);
    float *work = tsr_cpu_thread_work(run->work, thread);

    for (int64_t i = mine.first; i < mine.last; i++) {
        const tsr_sample_row *row = &a->row[i];
        a->sampled[i] = sample_row(a, row, work);
        if ((row->flags & TSR_SAMPLE_FORCED) == 0)
            write_text(&a->text, row, a->sampled[i].token);
    }
}

/* What is wrong with a sample, or a fault of no kind. */
static tsr_fault sample_fault(const tsr_sample_args *a, int32_t i)
{
    const tsr_sample_row *row = &a->row[i];
    const bool placed = (row->flags & TSR_SAMPLE_RULED) != 0 ||
                        (row->position >= 0 && row->position < a->text.positions);

    if (row->logit_row < 0 || row->logit_row >= a->rows) {
        return (tsr_fault){
            .kind = TSR_FAULT_LOGIT_ROW, .row = i, .value = row->logit_row, .limit = a->rows};
    }
    if (placed && (row->slot < 0 || row->slot >= a->text.slots)) {
        return (tsr_fault){
            .kind = TSR_FAULT_SLOT, .row = i, .value = row->slot, .limit = a->text.slots};
    }
    if (row->top_count < 0 || row->top_count > TSR_MOST_TOP ||
        (row->top_count > 0 && (row->first_top < 0 || row->first_top > a->tops - row->top_count))) {
        return (tsr_fault){.kind = TSR_FAULT_TOP,
                           .row = i,
                           .value = row->first_top + row->top_count,
                           .limit = a->tops};
    }
    if ((row->flags & TSR_SAMPLE_MASKED) != 0 && (row->mask < 0 || row->mask >= a->mask_rows)) {
        return (tsr_fault){
            .kind = TSR_FAULT_MASK, .row = i, .value = row->mask, .limit = a->mask_rows};
    }
    return (tsr_fault){.kind = TSR_FAULT_NONE};
}

tsr_status ISA(tsr_sample_cpu)(tsr_device *device, const tsr_sample_args *a, tsr_stream s)
{
    tsr_cpu_device *cpu = tsr_cpu(device);
    const sample_run run = {.a = a, .work = &cpu->work};

    (void)s;
    for (int32_t i = 0; i < a->samples; i++) {
        const tsr_fault fault = sample_fault(a, i);
        if (fault.kind == TSR_FAULT_NONE)
            continue;
        tsr_set_fault_cpu(cpu, fault);
        return TSR_OK;
    }
    tsr_threads_run(cpu->threads, a->samples, sample_share, &run);
    return TSR_OK;
}
