/* One rule after the other over the whole row: requests with rules are few, and a row is short beside
 * what made it. */
#include "kernels/cpu/rules_cpu.h"

#include <float.h>
#include <stdbool.h>
#include <string.h>

/* An id that the prompt has, beside the count of those among the outputs. */
enum { IN_PROMPT = 1 << 30 };

static const float ruled_out = -FLT_MAX;

/* The least that is not ruled out, up to the largest number there is. */
static float within(float x)
{
    static const float least = -0x1.fffffcp+127F;

    return x < least ? least : (x > FLT_MAX ? FLT_MAX : x);
}

void tsr_keep_masked(const uint32_t *mask, float *x, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        if ((mask[i / 32] >> (i % 32) & 1U) == 0)
            x[i] = ruled_out;
    }
}

static void keep_allowed(const tsr_token_rules *r, float *x, int32_t count, int32_t *seen)
{
    const int32_t *id = r->list + tsr_rules_allowed_at(r);

    if (r->allowed == 0)
        return;
    memset(seen, 0, (size_t)count * sizeof(*seen));
    for (int32_t i = 0; i < r->allowed; i++) {
        if (id[i] < count)
            seen[id[i]] = 1;
    }
    for (int32_t i = 0; i < count; i++)
        x[i] = seen[i] != 0 ? x[i] : ruled_out;
}

/* True when the outputs end with all ids of a word but its last. */
static bool begun(const int32_t *word, int32_t length, const int32_t *end, int32_t outputs)
{
    const size_t before = (size_t)length - 1;

    return length - 1 <= outputs && memcmp(word, end - before, before * sizeof(*word)) == 0;
}

static void rule_out(int32_t id, float *x, int32_t count)
{
    if (id < count)
        x[id] = ruled_out;
}

static void rule_words_out(const tsr_token_rules *r, const int32_t *end, int32_t outputs, float *x,
                           int32_t count)
{
    const int32_t *word = r->list + tsr_rules_bad_at(r);

    for (const int32_t *last = word + r->bad; word < last; word += 1 + word[0]) {
        if (begun(word + 1, word[0], end, outputs))
            rule_out(word[word[0]], x, count);
    }
}

static void add_biases(const tsr_token_rules *r, float *x, int32_t count)
{
    for (int32_t i = 0; i < r->biases && r->list[i] < count; i++) {
        float *biased = &x[r->list[i]];
        if (*biased != ruled_out)
            *biased = within(*biased + tsr_rules_bias(r, i));
    }
}

static float penalized(const tsr_token_rules *r, float x, int32_t seen)
{
    const int32_t outputs = seen & ~IN_PROMPT;
    float y = x > 0.0F ? x / r->repetition : x * r->repetition;

    if (outputs > 0) {
        y -= r->frequency * (float)outputs;
        y -= r->presence;
    }
    return within(y);
}

static void penalize(const tsr_token_rules *r, const int32_t *text, int32_t position, float *x,
                     int32_t count, int32_t *seen)
{
    if (r->repetition == 1.0F && r->presence == 0.0F && r->frequency == 0.0F)
        return;
    memset(seen, 0, (size_t)count * sizeof(*seen));
    for (int32_t p = 0; p < position; p++) {
        if (text[p] >= count)
            continue;
        if (p < r->prompt_tokens)
            seen[text[p]] |= IN_PROMPT;
        else
            seen[text[p]]++;
    }
    for (int32_t i = 0; i < count; i++) {
        if (seen[i] != 0 && x[i] != ruled_out)
            x[i] = penalized(r, x[i], seen[i]);
    }
}

void tsr_bend(const tsr_token_rules *rules, const int32_t *text, int32_t position, float *x,
              int32_t count, int32_t *seen)
{
    const int32_t *ending = rules->list + tsr_rules_endings_at(rules);
    const int32_t outputs = position - rules->prompt_tokens;

    keep_allowed(rules, x, count, seen);
    rule_words_out(rules, text + position, outputs, x, count);
    for (int32_t i = 0; i < rules->endings && outputs < rules->min_tokens; i++)
        rule_out(ending[i], x, count);
    add_biases(rules, x, count);
    penalize(rules, text, position, x, count, seen);
}
