/*
 * What a request asks of the logits before a token is drawn from them, as the device that samples
 * for it reads it: numbers, and lists of ids one after the other.
 *
 *   list   | bias ids | biases, f32 | allowed ids | bad words | ids that end |
 *                                                 | length, ids, length, ids ... |
 *
 * In this order, which is vLLM's; an id that was ruled out stays so:
 *
 *   allowed      where there are any, all other ids are ruled out
 *   bad words    the last id of a word is ruled out where the outputs end with those before it
 *   min_tokens   as long as there are fewer outputs, the ids that end are ruled out
 *   bias         x += bias
 *   repetition   of ids in prompt or outputs: x / repetition where x > 0, else x * repetition
 *   frequency    x -= frequency * how often the id is among the outputs
 *   presence     x -= presence where it is among them
 *
 * Then come temperature, min_p, top_k and top_p (kernels/blocks.h). What is told of a token, how
 * probable it was and which others were, is of the logits as they were before all that.
 */
#ifndef TSR_RUNTIME_BASE_TOKEN_RULES_H
#define TSR_RUNTIME_BASE_TOKEN_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Words of all lists together, so that the whole is 8 KiB. */
enum { TSR_RULE_LIST = 2037 };

typedef struct tsr_token_rules {
    int32_t slot;          /* of the text, the rank's own */
    int32_t prompt_tokens; /* text before it is the prompt, text from there on are outputs */
    int32_t min_tokens;
    float repetition; /* 1: none */
    float presence;   /* 0: none, as is the next */
    float frequency;
    int32_t biases;   /* ids that have one, ascending */
    int32_t allowed;  /* ids, ascending; 0: all */
    int32_t bad;      /* words of the list that bad words take */
    int32_t endings;  /* ids */
    int32_t reserved; /* 0 */
    int32_t list[TSR_RULE_LIST];
} tsr_token_rules;

/* Where each list begins. */
static inline int32_t tsr_rules_allowed_at(const tsr_token_rules *r)
{
    return 2 * r->biases;
}

static inline int32_t tsr_rules_bad_at(const tsr_token_rules *r)
{
    return tsr_rules_allowed_at(r) + r->allowed;
}

static inline int32_t tsr_rules_endings_at(const tsr_token_rules *r)
{
    return tsr_rules_bad_at(r) + r->bad;
}

/* Bytes that are used, lists included. */
static inline size_t tsr_rules_bytes(const tsr_token_rules *r)
{
    return offsetof(tsr_token_rules, list) +
           (size_t)(tsr_rules_endings_at(r) + r->endings) * sizeof(int32_t);
}

/* Makes them ask for nothing. */
void tsr_rules_clear(tsr_token_rules *rules);

/* The i-th bias. */
float tsr_rules_bias(const tsr_token_rules *rules, int32_t i);

/* True when the rules change anything. */
bool tsr_rules_ask(const tsr_token_rules *rules);

/* NULL when rules of so many bytes may be followed by a device with this vocabulary, else what is wrong
 * with them, as the end of a line. */
const char *tsr_rules_wrong(const tsr_token_rules *rules, size_t bytes, int32_t vocab);

#endif
