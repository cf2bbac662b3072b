/*
 * Every limit, in the order in which they take memory.
 *
 *   | weights of the fullest rank | workspace | buffers | one sequence | further sequences |
 *     the model's own               tokens of a step,     as long as     as many as were
 *                                   then the exchange     fits           asked for and fit
 *
 * Workspace grows with the length of a sequence too, so the longest that fits is searched for, not
 * computed. One sequence comes before many: a plan that holds no full one would refuse requests
 * that the model can answer.
 */
#include "runtime/plan/limits.h"

#include "runtime/base/sizes.h"
#include "runtime/plan/shapes.h"

enum {
    DEFAULT_BLOCK_TOKENS = 16,
    FEWEST_LOGIT_ROWS = 64,
    SHORTEST_MODEL_LEN = 256, /* where nothing was asked for: less would serve nobody */
    USUAL_MODEL_LEN = 4096,
    LARGEST_LIMIT = 1 << 24,
    HOST_POOL_BYTES = 256 << 20,
    FEWEST_EXCHANGE_TOKENS = 16,
    EXCHANGE_SHARE = 8, /* one part in so many of the memory that is left */
};

static int32_t given(int32_t value, int32_t otherwise)
{
    return value > 0 ? value : otherwise;
}

/* Everything sent may arrive at one rank, and each (row, slot) there has an index of 31 bits. */
static bool indices_fit(const tsr_model_facts *m, int32_t ranks, int32_t exchange)
{
    return (int64_t)exchange * ranks * (m->top_k > 0 ? m->top_k : 1) <= INT32_MAX;
}

static tsr_status check(const tsr_plan_request *r, const tsr_model_facts *m, tsr_problems *problems)
{
    const int32_t asked[] = {r->max_model_len, r->max_num_seqs, r->max_batched_tokens,
                             r->kv_block_tokens, r->exchange_tokens};

    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        if (asked[i] > LARGEST_LIMIT) {
            tsr_problems_add(problems, TSR_SEVERITY_ERROR, "a limit of %d is beyond %d", asked[i],
                             LARGEST_LIMIT);
            return TSR_ERR_ARG;
        }
    }
    if (r->max_model_len > m->max_positions) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "--max-model-len %d: the model has %d positions", r->max_model_len,
                         m->max_positions);
        return TSR_ERR_ARG;
    }
    if (r->exchange_tokens > 0 && !indices_fit(m, r->ranks, r->exchange_tokens)) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "an exchange of %d tokens on %d ranks is too large; use a smaller "
                         "--exchange-tokens",
                         r->exchange_tokens, r->ranks);
        return TSR_ERR_ARG;
    }
    return TSR_OK;
}

/* A device's memory is there to be filled. A host is shared with other programs and the page cache:
 * there one sequence may take a quarter. */
static uint64_t kv_room(const tsr_budget *b)
{
    return b->target->host ? b->memory_bytes / 4 : b->memory_bytes;
}

/* What the blocks of all sequences may take together. A host keeps a small pool, and its memory for
 * whatever else runs there. */
static uint64_t pool_room(const tsr_budget *b, const tsr_plan_request *r)
{
    const uint64_t room = kv_room(b);

    return b->target->host && r->kv_positions == 0 ? tsr_smaller_size(room, HOST_POOL_BYTES) : room;
}

static bool length_fits(const tsr_budget *b, tsr_setting s, int32_t length)
{
    s.limits.max_model_len = length;
    s.limits.kv_blocks = tsr_pieces(s.limits.max_model_len, s.limits.kv_block_tokens);
    return tsr_budget_fits(b, &s) && tsr_kv_bytes(b->model, &s.limits, s.kv_format) <= kv_room(b);
}

/* The longest that fits, at most the model's own; a multiple of a block where it is shorter. */
static int32_t longest(const tsr_budget *b, const tsr_setting *s)
{
    const int32_t block = s->limits.kv_block_tokens;
    const int32_t most = b->model->max_positions;
    int32_t low = 0, high = most / block; /* low blocks fit */

    if (length_fits(b, *s, most))
        return most;
    while (low < high) {
        const int32_t middle = low + (high - low + 1) / 2;
        if (length_fits(b, *s, middle * block))
            low = middle;
        else
            high = middle - 1;
    }
    return low * block;
}

/* Where not even a short sequence fits, a plan for one of usual length is what to talk about. */
static void choose_length(const tsr_budget *b, const tsr_plan_request *r, tsr_problems *problems,
                          tsr_setting *s)
{
    const int32_t model = b->model->max_positions;
    int32_t length = r->max_model_len;

    if (length <= 0) {
        length = longest(b, s);
        if (length < tsr_smaller(SHORTEST_MODEL_LEN, model))
            length = tsr_smaller(USUAL_MODEL_LEN, model);
        else if (length < model)
            tsr_problems_add(problems, TSR_SEVERITY_NOTE,
                             "sequences of up to %d positions are served, of the model's %d, so "
                             "that keys and values fit; --max-model-len asks for another length",
                             length, model);
    }
    s->limits.max_model_len = length;
}

/* As many blocks as max_num_seqs full sequences want, or as were asked for, and the memory holds. */
static int32_t choose_blocks(const tsr_budget *b, const tsr_plan_request *r, const tsr_setting *s)
{
    const int32_t one = tsr_pieces(s->limits.max_model_len, s->limits.kv_block_tokens);
    int64_t wanted = r->kv_positions > 0 ? tsr_pieces_64(r->kv_positions, s->limits.kv_block_tokens)
                                         : (int64_t)one * s->limits.max_num_seqs;
    tsr_setting probe = *s;
    uint64_t fixed, room, block;
    int64_t most;

    probe.limits.kv_blocks = 0;
    fixed = tsr_budget_need_running(b, &probe);
    room = fixed < b->memory_bytes ? b->memory_bytes - fixed : 0;
    if (pool_room(b, r) < room)
        room = pool_room(b, r);
    /* A little more than a block can take, rounding included, so that the quotient never exceeds
     * the room. */
    probe.limits.kv_blocks = 1;
    block = tsr_kv_bytes(b->model, &probe.limits, s->kv_format);
    most = (int64_t)(room / (block > 0 ? block : 1));
    if (most > INT32_MAX / s->limits.kv_block_tokens)
        most = INT32_MAX / s->limits.kv_block_tokens;
    if (wanted > most)
        wanted = most;
    return wanted > one ? (int32_t)wanted : one;
}

/*
 * Tokens a rank sends in one exchange. Every round of a step reads the experts again, so there are
 * as few as memory allows: all tokens of a step at once, or half of them, or a quarter. What an
 * exchange takes grows with the ranks too, since everything sent may arrive at one of them.
 *
 *   memory | weights, a step, one sequence | room                          |
 *                                          | an eighth | keys and values   |
 *
 * An eighth: the rest is for keys and values, and each doubling of the share saves half the rounds
 * only, but would double what the sequences lose.
 */
static int32_t choose_exchange(const tsr_budget *b, const tsr_plan_request *r,
                               const tsr_setting *setting)
{
    const int32_t most = setting->limits.max_batched_tokens;
    const int32_t usual = tsr_smaller(USUAL_MODEL_LEN, b->model->max_positions);
    tsr_setting s = *setting;

    s.limits.max_model_len = given(r->max_model_len, usual);
    s.limits.kv_blocks = tsr_pieces(s.limits.max_model_len, s.limits.kv_block_tokens);
    s.limits.exchange_tokens = FEWEST_EXCHANGE_TOKENS;
    const uint64_t fixed = tsr_budget_need_running(b, &s);
    const uint64_t room = fixed < b->memory_bytes ? b->memory_bytes - fixed : 0;

    for (int32_t rounds = 1; most / rounds > FEWEST_EXCHANGE_TOKENS; rounds *= 2) {
        s.limits.exchange_tokens = tsr_pieces(most, rounds);
        if (indices_fit(b->model, s.ranks, s.limits.exchange_tokens) &&
            tsr_budget_need_running(b, &s) <= fixed + room / EXCHANGE_SHARE)
            return s.limits.exchange_tokens;
    }
    return FEWEST_EXCHANGE_TOKENS;
}

tsr_status tsr_limits_choose(const tsr_budget *b, const tsr_plan_request *r, tsr_problems *problems,
                             tsr_setting *setting, bool *ret_fits)
{
    tsr_engine_limits *l = &setting->limits;
    const tsr_status st = check(r, b->model, problems);

    if (st != TSR_OK)
        return st;
    *l = (tsr_engine_limits){
        .max_num_seqs = given(r->max_num_seqs, b->target->max_num_seqs),
        .max_batched_tokens = given(r->max_batched_tokens, b->target->max_batched_tokens),
        .kv_block_tokens = given(r->kv_block_tokens, DEFAULT_BLOCK_TOKENS),
        .threads = given(r->threads, tsr_target_threads(r->ranks)),
    };
    l->logit_rows = tsr_larger(l->max_num_seqs, FEWEST_LOGIT_ROWS);
    l->exchange_tokens = tsr_smaller(given(r->exchange_tokens, choose_exchange(b, r, setting)),
                                     l->max_batched_tokens);
    choose_length(b, r, problems, setting);
    l->kv_blocks = choose_blocks(b, r, setting);
    *ret_fits = tsr_budget_fits(b, setting);
    return TSR_OK;
}
