/* What to say when a plan does not fit: every setting that would help is tried before it is
 * named. */
#include "runtime/base/sizes.h"
#include "runtime/base/text_buffer.h"
#include "runtime/plan/byte_count.h"
#include "runtime/plan/limits.h"
#include "runtime/plan/shapes.h"

enum { MOST_RANKS = 1024, SHORT_MODEL_LEN = 512, FEW_TOKENS = 256, FEWEST_TOKENS = 16 };

static int32_t most_ranks(const tsr_budget *b)
{
    return b->model->experts < MOST_RANKS ? b->model->experts : MOST_RANKS;
}

/*
 * The fewest ranks beyond the present ones on which it fits, or 0. Each doubling is tried, since
 * more ranks hold fewer experts each but larger buffers: beyond some number it fits no more.
 */
static int32_t fewest_ranks(const tsr_budget *b, tsr_setting s)
{
    int32_t low = s.ranks, high, most = most_ranks(b); /* low does not fit */

    if (low >= most)
        return 0;
    for (high = low + 1;; high = high > most / 2 ? most : 2 * high) {
        s.ranks = high;
        if (tsr_budget_fits(b, &s))
            break;
        if (high == most)
            return 0;
        low = high;
    }
    while (high - low > 1) {
        s.ranks = low + (high - low) / 2;
        if (tsr_budget_fits(b, &s))
            high = s.ranks;
        else
            low = s.ranks;
    }
    return high;
}

/* The longest sequence that fits, in whole blocks, or 0. */
static int32_t longest_len(const tsr_budget *b, tsr_setting s)
{
    const int32_t block = s.limits.kv_block_tokens;
    int32_t low = 0, high = s.limits.max_model_len / block; /* low blocks fit, or none */

    while (low < high) {
        const int32_t middle = low + (high - low + 1) / 2;
        s.limits.max_model_len = middle * block;
        if (tsr_budget_fits(b, &s))
            low = middle;
        else
            high = middle - 1;
    }
    return low * block;
}

/* The largest half, quarter ... of the tokens of a step that fits, or 0. */
static int32_t fewer_tokens(const tsr_budget *b, tsr_setting s)
{
    int32_t *tokens = &s.limits.max_batched_tokens;

    for (*tokens /= 2; *tokens >= 16; *tokens /= 2) {
        if (s.limits.exchange_tokens > *tokens)
            s.limits.exchange_tokens = *tokens;
        if (tsr_budget_fits(b, &s))
            return *tokens;
    }
    return 0;
}

/* Adds one setting; a hint that there is no memory for is left out. */
static void offer(tsr_text *text, const char *option, int32_t value)
{
    if (value <= 0 || (text->count > 0 && tsr_text_add_string(text, ", or ") != TSR_OK))
        return;
    if (tsr_text_add_format(text, "%s %d", option, value) != TSR_OK)
        tsr_text_clear(text);
}

/* All settings together, smaller and smaller until it fits, or nothing. */
static void offer_together(const tsr_budget *b, const char *ranks_option, tsr_setting s,
                           tsr_text *text)
{
    int32_t tokens, ranks = 0;

    s.kv_format = TSR_KV_FP8;
    for (tokens = FEW_TOKENS; ranks == 0 && tokens >= FEWEST_TOKENS; tokens /= 2) {
        tsr_engine_limits *l = &s.limits;
        l->max_model_len = tsr_smaller(l->max_model_len, tokens * (SHORT_MODEL_LEN / FEW_TOKENS));
        l->max_batched_tokens = tsr_smaller(l->max_batched_tokens, tokens);
        l->exchange_tokens = tsr_smaller(l->exchange_tokens, tokens);
        ranks = tsr_budget_fits(b, &s) ? s.ranks : fewest_ranks(b, s);
    }
    if (ranks > 0 && tsr_text_add_format(text,
                                         "%s %d --max-model-len %d --max-num-batched-tokens %d "
                                         "--kv-cache-dtype fp8 together",
                                         ranks_option, ranks, s.limits.max_model_len,
                                         s.limits.max_batched_tokens) != TSR_OK)
        tsr_text_clear(text);
}

/* Settings that help alone, and where none does, all of them together. */
static void offer_settings(const tsr_budget *b, const char *ranks_option,
                           const tsr_setting *setting, tsr_text *text)
{
    tsr_setting s = *setting;

    offer(text, "--max-model-len", longest_len(b, s));
    offer(text, ranks_option, fewest_ranks(b, s));
    offer(text, "--max-num-batched-tokens", fewer_tokens(b, s));
    s.kv_format = TSR_KV_FP8;
    if (setting->kv_format != TSR_KV_FP8 && tsr_budget_fits(b, &s) &&
        tsr_text_add_string(text, text->count > 0 ? ", or --kv-cache-dtype fp8"
                                                  : "--kv-cache-dtype fp8") != TSR_OK)
        tsr_text_clear(text);
    if (text->count > 0)
        return;
    offer_together(b, ranks_option, *setting, text);
    if (text->count > 0)
        return;
    if (tsr_text_add_string(text, "more memory for each rank: no setting is enough") != TSR_OK)
        tsr_text_clear(text);
}

void tsr_limits_advise(const tsr_budget *b, const tsr_plan_request *request,
                       const tsr_setting *setting, tsr_problems *problems)
{
    const char *ranks_option = request->ranks_option != NULL ? request->ranks_option : "--ranks";
    char words[8][TSR_BYTE_COUNT_BYTES];
    tsr_setting one = *setting;
    tsr_text text = {0};
    const int32_t rank = tsr_budget_largest_rank(b, setting->ranks);
    tsr_rank_budget need;
    uint64_t total;

    one.limits.kv_blocks = tsr_pieces(one.limits.max_model_len, one.limits.kv_block_tokens);
    need = tsr_budget_of_rank(b, &one, rank);
    total = tsr_rank_budget_total(&need);
    offer_settings(b, ranks_option, setting, &text);
    tsr_problems_add(
        problems, TSR_SEVERITY_ERROR,
        "does not fit: rank %d needs %s (weights %s, KV of one sequence of %d positions %s, "
        "workspace %s, buffers %s; while loading %s beside the weights) but has %s, %s too little; "
        "it would fit with %s",
        rank, tsr_byte_count_text(total, words[0]),
        tsr_byte_count_text(need.weights_bytes, words[1]), one.limits.max_model_len,
        tsr_byte_count_text(need.kv_bytes, words[2]),
        tsr_byte_count_text(need.workspace_bytes, words[3]),
        tsr_byte_count_text(need.buffers_bytes, words[4]),
        tsr_byte_count_text(need.loading_bytes, words[5]),
        tsr_byte_count_text(b->memory_bytes, words[6]),
        tsr_byte_count_text(total - b->memory_bytes, words[7]),
        text.count > 0 ? text.bytes : "less");
    tsr_text_close(&text);
}
