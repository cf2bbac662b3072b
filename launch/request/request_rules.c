/*
 * Lists are put into rules in the order in which these lie: biases, allowed ids, bad words.
 *
 * A bad word is ruled out in the middle of a text too, where it is spelled with a blank in front, as
 * vLLM does: where that begins with another id, and takes as many.
 */
#include "launch/request/request_rules.h"

#include "runtime/base/text_buffer.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST_BIASES = 300,
    MOST_ALLOWED = 1024,
    MOST_WORDS = 256,
    MOST_WORD_BYTES = 256,
    MOST_COPIES = 128
};

tsr_status tsr_request_number(const json_t *body, const tsr_body_range *range, double *value,
                              tsr_refusal *ret_refusal)
{
    const json_t *given = json_object_get(body, range->name);
    if (given == NULL || json_is_null(given))
        return TSR_OK;

    const double number = json_number_value(given);
    if (!(range->whole ? json_is_integer(given) : json_is_number(given)) ||
        !(number >= range->low) || !(number <= range->high))
        return tsr_refuse(ret_refusal, "invalid_value", range->name,
                          "%s: expected %s from %.10g to %.10g", range->name,
                          range->whole ? "a whole number" : "a number", range->low, range->high);
    *value = number;
    return TSR_OK;
}

tsr_status tsr_request_flag(const json_t *body, const char *name, bool *value,
                            tsr_refusal *ret_refusal)
{
    const json_t *given = json_object_get(body, name);
    if (given == NULL || json_is_null(given))
        return TSR_OK;
    if (!json_is_boolean(given))
        return tsr_refuse(ret_refusal, "invalid_value", name, "%s: expected true or false", name);
    *value = json_is_true(given);
    return TSR_OK;
}

static tsr_status read_numbers(const json_t *body, const tsr_generation_defaults *defaults,
                               tsr_generation *g, tsr_token_rules *rules, tsr_refusal *ret_refusal)
{
    static const tsr_body_range ranges[] = {
        {"min_p", 0, 1, false},
        {"repetition_penalty", 0.01, 100, false},
        {"presence_penalty", -2, 2, false},
        {"frequency_penalty", -2, 2, false},
        {"min_tokens", 0, INT32_MAX, true},
    };
    double value[] = {(double)defaults->min_p,
                      defaults->repetition_penalty > 0 ? (double)defaults->repetition_penalty : 1.0,
                      0, 0, 0};
    tsr_status st = TSR_OK;

    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]) && st == TSR_OK; i++)
        st = tsr_request_number(body, &ranges[i], &value[i], ret_refusal);
    g->request.min_p = (float)value[0];
    rules->repetition = (float)value[1];
    rules->presence = (float)value[2];
    rules->frequency = (float)value[3];
    rules->min_tokens = (int32_t)value[4];
    return st;
}

static int by_id(const void *a, const void *b)
{
    const tsr_token_logprob *x = a;
    const tsr_token_logprob *y = b;
    return (x->token > y->token) - (x->token < y->token);
}

static tsr_status read_bias(const char *key, const json_t *value, tsr_token_logprob *ret_bias,
                            tsr_refusal *ret_refusal)
{
    char *end = NULL;
    const long id = strtol(key, &end, 10);
    const double bias = json_number_value(value);

    if (key[0] < '0' || key[0] > '9' || *end != '\0' || id > INT32_MAX)
        return tsr_refuse(ret_refusal, "invalid_value", "logit_bias",
                          "logit_bias: %.32s is not a token id", key);
    if (!json_is_number(value) || !(bias >= -100 && bias <= 100))
        return tsr_refuse(ret_refusal, "invalid_value", "logit_bias",
                          "logit_bias: of id %ld: expected a number from -100 to 100", id);
    *ret_bias = (tsr_token_logprob){(int32_t)id, (float)bias};
    return TSR_OK;
}

static tsr_status read_biases(const json_t *body, tsr_token_rules *rules, tsr_refusal *ret_refusal)
{
    const json_t *given = json_object_get(body, "logit_bias");
    tsr_token_logprob bias[MOST_BIASES];
    const char *key = NULL;
    json_t *value = NULL;
    int32_t count = 0;
    tsr_status st = TSR_OK;

    if (given == NULL || json_is_null(given) || json_is_false(given))
        return TSR_OK;
    if (!json_is_object(given) || json_object_size(given) > MOST_BIASES)
        return tsr_refuse(ret_refusal, "invalid_value", "logit_bias",
                          "logit_bias: expected an object of up to %d ids", MOST_BIASES);
    json_object_foreach((json_t *)(uintptr_t)given, key, value)
    {
        if (st == TSR_OK)
            st = read_bias(key, value, &bias[count++], ret_refusal);
    }
    if (st != TSR_OK)
        return st;
    qsort(bias, (size_t)count, sizeof(bias[0]), by_id);
    for (int32_t i = 0; i < count; i++) {
        rules->list[i] = bias[i].token;
        memcpy(&rules->list[count + i], &bias[i].logprob, sizeof(float));
    }
    rules->biases = count;
    return TSR_OK;
}

static int by_value(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a;
    const int32_t y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* An id that stands twice counts once. */
static tsr_status read_allowed(const json_t *body, tsr_token_rules *rules, tsr_refusal *ret_refusal)
{
    const json_t *given = json_object_get(body, "allowed_token_ids");
    const size_t count = json_array_size(given);
    int32_t *ids = rules->list + tsr_rules_allowed_at(rules);

    if (given == NULL || json_is_null(given))
        return TSR_OK;
    if (!json_is_array(given) || count > MOST_ALLOWED)
        return tsr_refuse(ret_refusal, "invalid_value", "allowed_token_ids",
                          "allowed_token_ids: expected a list of up to %d ids", MOST_ALLOWED);
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(given, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return tsr_refuse(ret_refusal, "invalid_value", "allowed_token_ids",
                              "allowed_token_ids: element %zu is not a token id", i);
        ids[i] = (int32_t)json_integer_value(id);
    }
    qsort(ids, count, sizeof(*ids), by_value);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || ids[i] != ids[i - 1])
            ids[rules->allowed++] = ids[i];
    }
    return TSR_OK;
}

static bool add_word(tsr_token_rules *rules, const tsr_ids *ids)
{
    const int32_t at = tsr_rules_endings_at(rules);

    if (ids->count == 0)
        return true;
    if (ids->count >= (size_t)(TSR_RULE_LIST - at))
        return false;
    rules->list[at] = (int32_t)ids->count;
    memcpy(&rules->list[at + 1], ids->ids, ids->count * sizeof(*ids->ids));
    rules->bad += 1 + (int32_t)ids->count;
    return true;
}

static tsr_status too_many(tsr_refusal *ret_refusal)
{
    return tsr_refuse(ret_refusal, "invalid_value", "bad_words",
                      "bad_words: more than there is room for beside logit_bias and "
                      "allowed_token_ids");
}

/* The word as it stands, and with a blank in front. */
static tsr_status add_spellings(const tsr_tokenizer *tokenizer, const char *word,
                                tsr_token_rules *rules, tsr_refusal *ret_refusal)
{
    const char *bare = word + strspn(word, " ");
    tsr_ids plain = {0};
    tsr_ids spaced = {0};
    tsr_text text = {0};

    tsr_status st = tsr_text_add_string(&text, " ");
    if (st == TSR_OK)
        st = tsr_text_add_string(&text, bare);
    if (st == TSR_OK)
        st = tsr_tokenizer_encode(tokenizer, bare, strlen(bare), false, &plain);
    if (st == TSR_OK)
        st = tsr_tokenizer_encode(tokenizer, text.bytes, text.count, false, &spaced);
    if (st == TSR_OK && !add_word(rules, &plain))
        st = too_many(ret_refusal);
    if (st == TSR_OK && plain.count > 0 && spaced.count == plain.count &&
        spaced.ids[0] != plain.ids[0] && !add_word(rules, &spaced))
        st = too_many(ret_refusal);
    tsr_text_close(&text);
    tsr_ids_close(&plain);
    tsr_ids_close(&spaced);
    return st;
}

static tsr_status read_words(const json_t *body, const tsr_tokenizer *tokenizer,
                             tsr_token_rules *rules, tsr_refusal *ret_refusal)
{
    const json_t *given = json_object_get(body, "bad_words");
    const size_t count = json_array_size(given);
    tsr_status st = TSR_OK;

    if (given == NULL || json_is_null(given))
        return TSR_OK;
    if (!json_is_array(given) || count > MOST_WORDS)
        return tsr_refuse(ret_refusal, "invalid_value", "bad_words",
                          "bad_words: expected a list of up to %d strings", MOST_WORDS);
    for (size_t i = 0; i < count && st == TSR_OK; i++) {
        const json_t *one = json_array_get(given, i);
        const char *word = json_string_value(one);
        if (word == NULL || word[strspn(word, " ")] == '\0' ||
            json_string_length(one) > MOST_WORD_BYTES || strlen(word) != json_string_length(one))
            return tsr_refuse(ret_refusal, "invalid_value", "bad_words",
                              "bad_words: element %zu is not a string of 1 to %d bytes", i,
                              MOST_WORD_BYTES);
        st = add_spellings(tokenizer, word, rules, ret_refusal);
    }
    return st;
}

tsr_status tsr_request_rules_read(const json_t *body, const tsr_request_context *context,
                                  tsr_generation *generation, tsr_refusal *ret_refusal)
{
    tsr_token_rules *rules = malloc(sizeof(*rules));
    if (rules == NULL)
        return TSR_ERR_MEMORY;

    tsr_rules_clear(rules);
    tsr_status st = read_numbers(body, &context->generation, generation, rules, ret_refusal);
    if (st == TSR_OK)
        st = read_biases(body, rules, ret_refusal);
    if (st == TSR_OK)
        st = read_allowed(body, rules, ret_refusal);
    if (st == TSR_OK)
        st = read_words(body, context->tokenizer, rules, ret_refusal);
    if (st != TSR_OK || !tsr_rules_ask(rules)) {
        free(rules);
        return st;
    }
    generation->request.rules = rules;
    return TSR_OK;
}

/* A completion gives the number of ids that are told, a chat whether any are and how many. */
static tsr_status read_logprobs(const json_t *body, tsr_generation *g, tsr_refusal *ret_refusal)
{
    const tsr_body_range range = {g->chat ? "top_logprobs" : "logprobs", 0, TSR_MOST_TOP, true};
    const json_t *given = json_object_get(body, range.name);
    double top = -1;

    tsr_status st =
        g->chat ? tsr_request_flag(body, "logprobs", &g->logprobs, ret_refusal) : TSR_OK;
    if (st == TSR_OK && !(!g->chat && json_is_false(given)))
        st = tsr_request_number(body, &range, &top, ret_refusal);
    if (st != TSR_OK)
        return st;
    if (g->chat && top > 0 && !g->logprobs)
        return tsr_refuse(ret_refusal, "invalid_value", "top_logprobs",
                          "top_logprobs: needs logprobs to be true");
    if (!g->chat)
        g->logprobs = top >= 0;
    g->request.top = top > 0 ? (int32_t)top : 0;
    return TSR_OK;
}

/* Answers that are made, and those of them that are given. */
static tsr_status read_copies(const json_t *body, tsr_generation *g, tsr_refusal *ret_refusal)
{
    static const tsr_body_range kept_range = {"n", 1, MOST_COPIES, true};
    static const tsr_body_range best_range = {"best_of", 1, MOST_COPIES, true};
    double kept = 1;

    tsr_status st = tsr_request_number(body, &kept_range, &kept, ret_refusal);
    double best = kept;
    if (st == TSR_OK)
        st = tsr_request_number(body, &best_range, &best, ret_refusal);
    if (st != TSR_OK)
        return st;
    if (g->chat && best != kept)
        return tsr_refuse(ret_refusal, "unsupported_parameter", "best_of",
                          "best_of: is for completions; leave it out");
    if (best < kept)
        return tsr_refuse(ret_refusal, "invalid_value", "best_of",
                          "best_of: %.0f is less than n, which is %.0f", best, kept);
    g->copies = (int32_t)best;
    g->kept = (int32_t)kept;
    return TSR_OK;
}

tsr_status tsr_request_told_read(const json_t *body, tsr_generation *generation,
                                 tsr_refusal *ret_refusal)
{
    static const tsr_body_range prompt_range = {"prompt_logprobs", 0, TSR_MOST_TOP, true};
    tsr_generation *g = generation;
    double prompt_top = -1;

    tsr_status st = read_logprobs(body, g, ret_refusal);
    if (st == TSR_OK && !g->chat)
        st = tsr_request_flag(body, "echo", &g->echo, ret_refusal);
    if (st == TSR_OK)
        st = read_copies(body, g, ret_refusal);
    if (st == TSR_OK)
        st = tsr_request_number(body, &prompt_range, &prompt_top, ret_refusal);
    if (st != TSR_OK)
        return st;
    const bool echoes = g->echo && g->logprobs;
    g->prompt_top = (int32_t)prompt_top;
    g->request.score_prompt = echoes || g->prompt_top >= 0;
    g->request.score_top = echoes ? g->request.top : 0;
    if (g->prompt_top > g->request.score_top)
        g->request.score_top = g->prompt_top;
    return TSR_OK;
}
