/*
 * Rules of a request, followed on a row of logits by the CTAs that share it, as rules_cpu.c has it:
 * each bends its own slice, in shared memory, and asks no other.
 *
 *   text [slot]  | prompt ....... | outputs ... | position
 *   slice        | first ... first + count |      seen: how often, for as many ids as there is room
 *                                                 for at a time; then the text is read again
 */
#ifndef TSR_KERNELS_CUDA_SAMPLE_RULES_CUDA_CUH
#define TSR_KERNELS_CUDA_SAMPLE_RULES_CUDA_CUH

#include "kernels/cuda/device/block_cuda.cuh"

#include <cfloat>

/* An id that the prompt has, beside the count of those among the outputs. */
enum { TSR_IN_PROMPT = 1 << 30 };

#define TSR_RULED_OUT (-FLT_MAX)

/* A slice of a row, and what precedes its token. */
typedef struct tsr_bent_slice {
    float *x; /* [count] */
    int32_t first;
    int32_t count;
    int32_t *seen; /* [room] scratch */
    int32_t room;
    const int32_t *text; /* [position] */
    int32_t position;
} tsr_bent_slice;

/* The least that is not ruled out, up to the largest number there is. */
static __device__ __forceinline__ float tsr_within(float x)
{
    const float least = -0x1.fffffcp+127F;

    return x < least ? least : (x > FLT_MAX ? FLT_MAX : x);
}

static __device__ __forceinline__ void tsr_rule_out(const tsr_bent_slice &s, int32_t id)
{
    if (id >= s.first && id < s.first + s.count)
        s.x[id - s.first] = TSR_RULED_OUT;
}

static __device__ void tsr_clear_seen(const tsr_bent_slice &s)
{
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < s.room; i += (int32_t)blockDim.x)
        s.seen[i] = 0;
    __syncthreads();
}

/* Rules out every id whose bit is not in the mask. By all threads of a CTA. */
static __device__ void tsr_keep_masked(const uint32_t *mask, const tsr_bent_slice &s)
{
    for (int32_t i = (int32_t)threadIdx.x; i < s.count; i += (int32_t)blockDim.x) {
        const int32_t id = s.first + i;
        if ((mask[id / 32] >> (id % 32) & 1U) == 0)
            s.x[i] = TSR_RULED_OUT;
    }
    __syncthreads();
}

/* Rules all others out. */
static __device__ void tsr_keep_allowed(const tsr_token_rules &r, const tsr_bent_slice &s)
{
    const int32_t *id = r.list + 2 * r.biases;

    for (int32_t at = 0; at < s.count && r.allowed > 0; at += s.room) {
        const int32_t part = min(s.room, s.count - at);
        tsr_clear_seen(s);
        for (int32_t i = (int32_t)threadIdx.x; i < r.allowed; i += (int32_t)blockDim.x) {
            const int32_t place = id[i] - s.first - at;
            if (place >= 0 && place < part)
                s.seen[place] = 1;
        }
        __syncthreads();
        for (int32_t i = (int32_t)threadIdx.x; i < part; i += (int32_t)blockDim.x)
            s.x[at + i] = s.seen[i] != 0 ? s.x[at + i] : TSR_RULED_OUT;
    }
    __syncthreads();
}

/* A thread a word, which passes over those of the others. */
static __device__ void tsr_rule_words_out(const tsr_token_rules &r, const tsr_bent_slice &s)
{
    const int32_t *word = r.list + 2 * r.biases + r.allowed;
    const int32_t *last = word + r.bad;
    const int32_t outputs = s.position - r.prompt_tokens;

    for (int32_t n = 0; word < last; n++, word += 1 + word[0]) {
        const int32_t before = word[0] - 1;
        int32_t i = 0;
        if (n % (int32_t)blockDim.x != (int32_t)threadIdx.x || before > outputs)
            continue;
        while (i < before && word[1 + i] == s.text[s.position - before + i])
            i++;
        if (i == before)
            tsr_rule_out(s, word[1 + before]);
    }
    __syncthreads();
}

static __device__ void tsr_rule_endings_out(const tsr_token_rules &r, const tsr_bent_slice &s)
{
    const int32_t *ending = r.list + 2 * r.biases + r.allowed + r.bad;
    const bool early = s.position - r.prompt_tokens < r.min_tokens;

    for (int32_t i = (int32_t)threadIdx.x; i < r.endings && early; i += (int32_t)blockDim.x)
        tsr_rule_out(s, ending[i]);
    __syncthreads();
}

/* No id comes twice. */
static __device__ void tsr_add_biases(const tsr_token_rules &r, const tsr_bent_slice &s)
{
    for (int32_t i = (int32_t)threadIdx.x; i < r.biases; i += (int32_t)blockDim.x) {
        const int32_t place = r.list[i] - s.first;
        if (place >= 0 && place < s.count && s.x[place] != TSR_RULED_OUT)
            s.x[place] = tsr_within(__fadd_rn(s.x[place], __int_as_float(r.list[r.biases + i])));
    }
    __syncthreads();
}

static __device__ __forceinline__ float tsr_penalized(const tsr_token_rules &r, float x,
                                                      int32_t seen)
{
    const int32_t outputs = seen & ~TSR_IN_PROMPT;
    float y = x > 0.0F ? __fdiv_rn(x, r.repetition) : __fmul_rn(x, r.repetition);

    if (outputs > 0) {
        y = __fsub_rn(y, __fmul_rn(r.frequency, (float)outputs));
        y = __fsub_rn(y, r.presence);
    }
    return tsr_within(y);
}

static __device__ void tsr_penalize(const tsr_token_rules &r, const tsr_bent_slice &s)
{
    const bool none = r.repetition == 1.0F && r.presence == 0.0F && r.frequency == 0.0F;

    for (int32_t at = 0; at < s.count && !none; at += s.room) {
        const int32_t part = min(s.room, s.count - at);
        tsr_clear_seen(s);
        for (int32_t p = (int32_t)threadIdx.x; p < s.position; p += (int32_t)blockDim.x) {
            const int32_t place = s.text[p] - s.first - at;
            if (place < 0 || place >= part)
                continue;
            if (p < r.prompt_tokens)
                atomicOr(&s.seen[place], TSR_IN_PROMPT);
            else
                atomicAdd(&s.seen[place], 1);
        }
        __syncthreads();
        for (int32_t i = (int32_t)threadIdx.x; i < part; i += (int32_t)blockDim.x) {
            if (s.seen[i] != 0 && s.x[at + i] != TSR_RULED_OUT)
                s.x[at + i] = tsr_penalized(r, s.x[at + i], s.seen[i]);
        }
    }
    __syncthreads();
}

/* By all threads of a CTA. */
static __device__ void tsr_bend(const tsr_token_rules &r, const tsr_bent_slice &s)
{
    tsr_keep_allowed(r, s);
    tsr_rule_words_out(r, s);
    tsr_rule_endings_out(r, s);
    tsr_add_biases(r, s);
    tsr_penalize(r, s);
}

#endif
