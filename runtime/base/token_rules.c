/* A device follows rules without asking what they are, so whoever takes them asks here. */
#include "runtime/base/token_rules.h"

#include <math.h>
#include <string.h>

void tsr_rules_clear(tsr_token_rules *rules)
{
    memset(rules, 0, sizeof(*rules));
    rules->repetition = 1.0F;
}

float tsr_rules_bias(const tsr_token_rules *rules, int32_t i)
{
    float bias;

    memcpy(&bias, &rules->list[rules->biases + i], sizeof(bias));
    return bias;
}

bool tsr_rules_ask(const tsr_token_rules *rules)
{
    return rules->min_tokens > 0 || rules->repetition != 1.0F || rules->presence != 0.0F ||
           rules->frequency != 0.0F || rules->biases > 0 || rules->allowed > 0 || rules->bad > 0;
}

/* Ids of the model that go up. */
static bool ascend(const int32_t *id, int32_t count, int32_t vocab)
{
    for (int32_t i = 0; i < count; i++) {
        if (id[i] < 0 || id[i] >= vocab || (i > 0 && id[i] <= id[i - 1]))
            return false;
    }
    return true;
}

static bool words_hold(const int32_t *word, int32_t count, int32_t vocab)
{
    int32_t at = 0;

    while (at < count) {
        const int32_t length = word[at++];
        if (length < 1 || length > count - at)
            return false;
        for (const int32_t end = at + length; at < end; at++) {
            if (word[at] < 0 || word[at] >= vocab)
                return false;
        }
    }
    return true;
}

static bool counts_hold(const tsr_token_rules *r, size_t bytes)
{
    const int32_t counts[] = {r->biases, r->allowed, r->bad, r->endings};

    if (bytes < offsetof(tsr_token_rules, list) || bytes > sizeof(*r))
        return false;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        if (counts[i] < 0 || counts[i] > TSR_RULE_LIST)
            return false;
    }
    return tsr_rules_bytes(r) == bytes;
}

const char *tsr_rules_wrong(const tsr_token_rules *rules, size_t bytes, int32_t vocab)
{
    if (!counts_hold(rules, bytes))
        return "lists of ids are longer than they may be together";
    if (!isfinite(rules->repetition) || rules->repetition <= 0)
        return "repetition_penalty is not a number above 0";
    if (!isfinite(rules->presence) || !isfinite(rules->frequency))
        return "presence_penalty or frequency_penalty is not a number";
    if (rules->min_tokens < 0 || rules->prompt_tokens < 0)
        return "min_tokens is negative";
    if (!ascend(rules->list, rules->biases, vocab))
        return "logit_bias has an id twice, or one that the model does not have";
    for (int32_t i = 0; i < rules->biases; i++) {
        if (!isfinite(tsr_rules_bias(rules, i)))
            return "logit_bias is not a number";
    }
    if (!ascend(rules->list + tsr_rules_allowed_at(rules), rules->allowed, vocab))
        return "allowed_token_ids has an id twice, or one that the model does not have";
    if (!words_hold(rules->list + tsr_rules_bad_at(rules), rules->bad, vocab))
        return "bad_words has an id that the model does not have";
    for (int32_t i = 0; i < rules->endings; i++) {
        const int32_t id = rules->list[tsr_rules_endings_at(rules) + i];
        if (id < 0 || id >= vocab)
            return "an id that ends an answer is none of the model's";
    }
    return NULL;
}
