/*
 * A request's copy, and the reasons to refuse one.
 *
 *   one arena | tsr_live | prompt and max_tokens | stop ids | ids and keys of all blocks it may hold |
 *
 * All of it is measured and taken at submission, since a running step takes no memory. Refused is
 * only what could never run, on an empty rank and alone; what does not fit today waits. The last
 * token of an answer is never computed with, so it needs no position.
 */
#include "runtime/engine/live.h"

#include "runtime/base/sizes.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Tokens a request may still produce: what it asked for, clipped to the room its context leaves. */
static int32_t clipped_max_tokens(const tsr_request *request, const tsr_step_shape *shape)
{
    if (request->want_logits)
        return 0;
    const int32_t room = shape->max_model_len - request->prompt_tokens;
    return request->max_tokens < room ? request->max_tokens : room;
}

/* Positions of its sequence at the end: the last token is never computed. */
static int32_t positions_of(int32_t prompt_tokens, int32_t max_tokens)
{
    return max_tokens == 0 ? prompt_tokens : prompt_tokens + max_tokens - 1;
}

/* One line into `refusal`; true, so that a check reads "return refuse_request(...)". */
__attribute__((format(printf, 2, 3))) static bool refuse_request(char *refusal, const char *format,
                                                                 ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(refusal, TSR_REFUSAL_BYTES, format, args);
    va_end(args);
    return true;
}

/* Outputs it was given before: ids of the model, and another one is to come. */
static bool given_refused(const tsr_request *r, const tsr_live_bounds *b, char *refusal)
{
    if (r->given_tokens < 0 || (r->given_tokens > 0 && r->want_logits))
        return refuse_request(refusal, "given: a scored prompt has no outputs");
    if (r->given_tokens > 0 && r->given_tokens >= clipped_max_tokens(r, b->shape))
        return refuse_request(refusal, "given: %d tokens, and at most %d were asked for",
                              r->given_tokens, clipped_max_tokens(r, b->shape));
    for (int32_t i = 0; i < r->given_tokens; i++) {
        if (r->given[i] < 0 || r->given[i] >= b->model->vocab)
            return refuse_request(refusal, "given: token %d is id %d, the model has ids 0 to %d", i,
                                  r->given[i], b->model->vocab - 1);
    }
    return false;
}

static bool sampling_refused(const tsr_request *r, char *refusal)
{
    if (!isfinite(r->temperature) || r->temperature < 0)
        return refuse_request(refusal, "temperature: must be a number from 0 up");
    if (!(r->top_p > 0 && r->top_p <= 1))
        return refuse_request(refusal, "top_p: must be above 0 and at most 1");
    if (r->top_k < 0)
        return refuse_request(refusal, "top_k: must be 0 (all) or more");
    if (r->max_tokens < 0)
        return refuse_request(refusal, "max_tokens: must be 0 (the prompt alone) or more");
    if (r->top < 0 || r->top > TSR_MOST_TOP || r->score_top < 0 || r->score_top > TSR_MOST_TOP)
        return refuse_request(refusal, "logprobs: must be 0 to %d", TSR_MOST_TOP);
    if (r->stop_id_count < 0)
        return refuse_request(refusal, "stop_token_ids: a negative number of ids");
    return false;
}

static bool prompt_refused(const tsr_request *r, const tsr_live_bounds *b, char *refusal)
{
    const int32_t context = b->shape->max_model_len;

    if (r->prompt_tokens < 1)
        return refuse_request(refusal, "prompt: it has no tokens");
    if (r->prompt_tokens > context)
        return refuse_request(refusal,
                              "prompt: %d tokens do not fit into a context of %d (--max-model-len)",
                              r->prompt_tokens, context);
    if (!r->want_logits && r->max_tokens > 0 && r->prompt_tokens == context)
        return refuse_request(refusal,
                              "prompt: %d tokens leave no room to answer in a context of %d "
                              "(--max-model-len)",
                              r->prompt_tokens, context);
    for (int32_t i = 0; i < r->prompt_tokens; i++) {
        if (r->prompt[i] < 0 || r->prompt[i] >= b->model->vocab)
            return refuse_request(refusal, "prompt: token %d is id %d, the model has ids 0 to %d",
                                  i, r->prompt[i], b->model->vocab - 1);
    }
    return false;
}

/* Words that the engine adds to a request's rules. */
static int32_t endings_of(const tsr_request *r, const tsr_live_bounds *b)
{
    return r->rules->min_tokens > 0 ? b->model->eos_count + r->stop_id_count : 0;
}

static bool rules_refused(const tsr_request *r, const tsr_live_bounds *b, char *refusal)
{
    if (!(r->min_p >= 0 && r->min_p <= 1))
        return refuse_request(refusal, "min_p: must be 0 to 1");
    if (r->rules == NULL)
        return false;
    const char *wrong = tsr_rules_wrong(r->rules, tsr_rules_bytes(r->rules), b->model->vocab);
    if (wrong != NULL)
        return refuse_request(refusal, "%s", wrong);
    if (r->rules->endings > 0 || tsr_rules_endings_at(r->rules) + endings_of(r, b) > TSR_RULE_LIST)
        return refuse_request(refusal, "logit_bias, allowed_token_ids, bad_words and stop ids take "
                                       "more room than there is together");
    if (r->rules->min_tokens > r->max_tokens)
        return refuse_request(refusal, "min_tokens: %d, and at most %d were asked for",
                              r->rules->min_tokens, r->max_tokens);
    return false;
}

bool tsr_live_refused(const tsr_request *request, const tsr_live_bounds *bounds,
                      char refusal[TSR_REFUSAL_BYTES])
{
    if (sampling_refused(request, refusal) || prompt_refused(request, bounds, refusal) ||
        given_refused(request, bounds, refusal) || rules_refused(request, bounds, refusal))
        return true;

    const int32_t positions =
        positions_of(request->prompt_tokens, clipped_max_tokens(request, bounds->shape));
    const int32_t blocks = tsr_pieces(positions, bounds->shape->block_tokens);
    if (blocks > bounds->shape->kv_blocks)
        return refuse_request(
            refusal,
            "prompt and max_tokens: %d positions take %d KV blocks, a rank has %d; ask "
            "for fewer tokens or give the KV cache more memory",
            positions, blocks, bounds->shape->kv_blocks);
    return false;
}

/* 0 where a request has no rules, or such as ask for nothing. */
static size_t rules_room(const tsr_request *r, const tsr_live_bounds *b)
{
    if (r->rules == NULL || r->want_logits || !tsr_rules_ask(r->rules))
        return 0;
    return tsr_rules_bytes(r->rules) + (size_t)endings_of(r, b) * sizeof(int32_t);
}

static void copy_rules(const tsr_request *r, const tsr_live_bounds *b, tsr_token_rules *to)
{
    int32_t *ending = to->list + tsr_rules_endings_at(r->rules);

    memcpy(to, r->rules, tsr_rules_bytes(r->rules));
    to->prompt_tokens = r->prompt_tokens;
    to->endings = endings_of(r, b);
    for (int32_t i = 0; i < to->endings; i++)
        ending[i] =
            i < b->model->eos_count ? b->model->eos[i] : r->stop_ids[i - b->model->eos_count];
}

/* All but what it points to. */
static tsr_live numbers_of(const tsr_request *request, int32_t max_tokens)
{
    return (tsr_live){.id = request->id,
                      .seed = request->seed,
                      .salt = request->cache_salt,
                      .stop_id_count = request->stop_id_count,
                      .prompt_tokens = request->prompt_tokens,
                      .given_tokens = request->given_tokens,
                      .priority = request->priority,
                      .max_tokens = max_tokens,
                      .token_count = request->prompt_tokens + request->given_tokens,
                      .sampled = request->given_tokens,
                      .top_k = request->top_k,
                      .temperature = request->temperature,
                      .top_p = request->top_p,
                      .min_p = request->min_p,
                      .ignore_eos = request->ignore_eos,
                      .want_logits = request->want_logits,
                      .score_prompt = request->score_prompt && !request->want_logits,
                      .score_top = request->score_top,
                      .top = request->top,
                      .state = TSR_LIVE_WAITING};
}

static void copy_ids(const tsr_request *request, tsr_live *live)
{
    const size_t id = sizeof(*live->tokens);

    memcpy(live->tokens, request->prompt, (size_t)request->prompt_tokens * id);
    if (request->given_tokens > 0)
        memcpy(live->tokens + request->prompt_tokens, request->given,
               (size_t)request->given_tokens * id);
    if (request->stop_id_count > 0)
        memcpy(live->stop_ids, request->stop_ids, (size_t)request->stop_id_count * id);
}

tsr_status tsr_live_open(const tsr_request *request, const tsr_live_bounds *bounds,
                         tsr_live **ret_live)
{
    const int32_t max_tokens = clipped_max_tokens(request, bounds->shape);
    const size_t tokens = (size_t)request->prompt_tokens + (size_t)max_tokens;
    const size_t stops = (size_t)request->stop_id_count;
    const size_t rules = rules_room(request, bounds);
    const size_t blocks = (size_t)tsr_pieces(positions_of(request->prompt_tokens, max_tokens),
                                             bounds->shape->block_tokens);
    tsr_arena *memory;

    const tsr_status st =
        tsr_arena_open(sizeof(tsr_live) + (tokens + stops + blocks) * sizeof(int32_t) +
                           blocks * sizeof(tsr_block_key) + rules + 384,
                       &memory);
    if (st != TSR_OK)
        return st;
    tsr_live copy = numbers_of(request, max_tokens);
    tsr_live *live = tsr_arena_alloc(memory, sizeof(*live));
    tsr_token_rules *own_rules = tsr_arena_alloc(memory, rules);
    copy.memory = memory;
    copy.tokens = tsr_arena_array(memory, tokens, sizeof(*copy.tokens));
    copy.stop_ids = tsr_arena_array(memory, stops, sizeof(*copy.stop_ids));
    copy.blocks = tsr_arena_array(memory, blocks, sizeof(*copy.blocks));
    copy.keys = tsr_arena_array(memory, blocks, sizeof(*copy.keys));
    copy.key_room = (int32_t)blocks;
    if (live == NULL || own_rules == NULL || copy.tokens == NULL || copy.stop_ids == NULL ||
        copy.blocks == NULL || copy.keys == NULL) {
        tsr_arena_close(memory);
        return TSR_ERR_MEMORY;
    }

    copy_ids(request, &copy);
    if (rules > 0) {
        copy.rules = own_rules;
        copy_rules(request, bounds, own_rules);
    }
    *live = copy;
    *ret_live = live;
    return TSR_OK;
}

bool tsr_live_before(const tsr_live *a, const tsr_live *b)
{
    return a->priority != b->priority ? a->priority < b->priority : a->order < b->order;
}

bool tsr_live_stops_at(const tsr_live *live, const tsr_model_facts *model, int32_t token)
{
    for (int32_t i = 0; i < model->eos_count && !live->ignore_eos; i++) {
        if (model->eos[i] == token)
            return true;
    }
    for (int32_t i = 0; i < live->stop_id_count; i++) {
        if (live->stop_ids[i] == token)
            return true;
    }
    return false;
}

/* How many bits there are. */
static int32_t count_bits(const uint32_t *bits, int32_t words)
{
    int32_t count = 0;

    for (int32_t i = 0; i < words; i++)
        count += __builtin_popcount(bits[i]);
    return count;
}

static void allow(tsr_live *live, int32_t id)
{
    live->allowed[id / 32] |= 1U << (id % 32);
}

const char *tsr_live_ask_guide(tsr_live *live, const tsr_model_facts *model)
{
    const tsr_guidance g =
        live->guides->ask(live->guide, live->tokens + live->prompt_tokens,
                          live->token_count - live->prompt_tokens, live->allowed);

    if (g.why != NULL)
        return g.why;
    live->is_free = g.is_free;
    if (g.is_free)
        return NULL;
    for (int32_t i = 0; i < model->eos_count && g.may_end; i++)
        allow(live, model->eos[i]);
    for (int32_t i = 0; i < live->stop_id_count && g.may_end; i++) {
        if (live->stop_ids[i] >= 0 && live->stop_ids[i] < model->vocab)
            allow(live, live->stop_ids[i]);
    }
    live->allowed_count = count_bits(live->allowed, tsr_guide_words(model->vocab));
    return NULL;
}

tsr_status tsr_live_guide(tsr_live *live, const tsr_request *request, const tsr_guides *guides,
                          const tsr_model_facts *model, char *ret_refusal)
{
    ret_refusal[0] = '\0';
    if (request->guide == NULL || live->max_tokens == 0)
        return TSR_OK;
    if (guides == NULL) {
        (void)refuse_request(ret_refusal, "an answer of a given form needs the tokenizer, which "
                                          "this engine has not read");
        return TSR_OK;
    }
    live->allowed = tsr_arena_array(live->memory, (size_t)tsr_guide_words(model->vocab),
                                    sizeof(*live->allowed));
    if (live->allowed == NULL)
        return TSR_ERR_MEMORY;
    const tsr_status st =
        guides->open(guides->context, request->guide, ret_refusal, TSR_REFUSAL_BYTES, &live->guide);
    if (st != TSR_OK)
        return st == TSR_ERR_ARG ? TSR_OK : st;
    live->guides = guides;
    const char *why = tsr_live_ask_guide(live, model);
    if (why != NULL)
        (void)refuse_request(ret_refusal, "%s", why);
    return TSR_OK;
}

bool tsr_live_awaits_token(const tsr_live *live)
{
    return live->guide != NULL && live->sampled > live->token_count - live->prompt_tokens;
}

void tsr_live_close(tsr_live *live)
{
    if (live == NULL)
        return;
    if (live->guide != NULL)
        live->guides->close(live->guide);
    tsr_arena_close(live->memory);
}
