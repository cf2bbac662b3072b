/* Messages between gateway and engine: there and back, in pieces, and every way in which one can be
 * wrong. */
#include "tests/test.h"

#include "proto/serve_wire.h"
#include "tests/log_lines.h"

#include <math.h>
#include <string.h>

static log_lines lines;
static const int32_t some_ids[] = {5, 0, 151935, INT32_MAX, 7};
static const uint64_t some_counts[] = {3, UINT64_MAX, 0, 9};

static const tsr_token_logprob some_tops[] = {{7, -0.5F}, {9, -1.5F}, {-1, 0}, {3, -7}};
static const tsr_token_rules some_rules = {
    .prompt_tokens = 3, .repetition = 1.5F, .biases = 1, .allowed = 1, .list = {4, 0x3f800000, 5}};

static const tsr_serve_message some_messages[] = {
    {.kind = TSR_SERVE_SUBMIT,
     .submit = {.id = UINT64_MAX,
                .seed = 0xfedcba9876543210U,
                .prompt = some_ids,
                .prompt_count = 5,
                .stop_ids = some_ids + 2,
                .stop_id_count = 2,
                .given = 2,
                .max_tokens = 77,
                .temperature = 0.7F,
                .top_p = 0.95F,
                .top_k = 20,
                .ignore_eos = true,
                .priority = -3,
                .min_p = 0.25F,
                .cache_salt = 99,
                .score_prompt = true,
                .score_top = 20,
                .top = 1,
                .guide = "{\"json\": {}}",
                .rules = &some_rules}},
    {.kind = TSR_SERVE_CANCEL, .cancel = 12},
    {.kind = TSR_SERVE_END},
    {.kind = TSR_SERVE_DRAIN},
    {.kind = TSR_SERVE_HELLO, .hello = {.version = 3, .program = "tessera 0"}},
    {.kind = TSR_SERVE_LOADING, .loading = {.bytes = 1U << 31, .total = UINT64_MAX}},
    {.kind = TSR_SERVE_READY,
     .ready = {.ranks = 4,
               .max_model_len = 4096,
               .vocab = 151936,
               .max_num_seqs = 64,
               .kv_tokens = INT64_MAX,
               .info = "{\"a\": 1}"}},
    {.kind = TSR_SERVE_OUTPUT,
     .output = {.id = 9,
                .token = -1,
                .logprob = -1.5F,
                .finish = 3,
                .prompt_tokens = 8,
                .output_tokens = 2,
                .cause = 1,
                .cached_tokens = 16,
                .queued_ns = INT64_MAX,
                .first_ns = 5,
                .top = some_tops,
                .top_count = 4,
                .refusal = "no room"}},
    {.kind = TSR_SERVE_SCORES,
     .scores = {.id = 2,
                .token = some_tops,
                .top = some_tops,
                .first_position = 1,
                .count = 2,
                .top_count = 2}},
    {.kind = TSR_SERVE_LOAD,
     .load = {.running = 5,
              .waiting = 6,
              .kv_blocks_used = 7,
              .kv_blocks = 8,
              .steps = 9,
              .prompt_tokens = 10,
              .output_tokens = 11,
              .preemptions = 12,
              .prefix_queries = 13,
              .prefix_hits = 14,
              .layers = 2,
              .expert_token_count = 4,
              .expert_tokens = some_counts}},
};
enum { MESSAGES = sizeof(some_messages) / sizeof(some_messages[0]) };

static tsr_text packed(const tsr_serve_message *message)
{
    tsr_text text = {0};
    ASSERT_STATUS(TSR_OK, tsr_serve_message_add(message, &text));
    return text;
}

/* Equal when they pack to the same bytes: what was read is packed once more. */
static void messages_come_back_as_they_were(void **state)
{
    (void)state;
    for (size_t i = 0; i < MESSAGES; i++) {
        tsr_text sent = packed(&some_messages[i]);
        tsr_serve_arrived arrived = {0};
        size_t used = 0;
        for (size_t count = 0; count < sent.count; count++) {
            ASSERT_STATUS(TSR_OK, tsr_serve_message_read(sent.bytes, count, &arrived, &used));
            assert_int_equal(0, used);
        }
        ASSERT_STATUS(TSR_OK, tsr_serve_message_read(sent.bytes, sent.count, &arrived, &used));
        assert_int_equal(sent.count, used);
        assert_int_equal(some_messages[i].kind, arrived.message.kind);
        tsr_text again = packed(&arrived.message);
        assert_int_equal(sent.count, again.count);
        assert_memory_equal(sent.bytes, again.bytes, sent.count);
        tsr_serve_arrived_close(&arrived);
        tsr_text_close(&again);
        tsr_text_close(&sent);
    }
}

static void fields_of_a_request_arrive(void **state)
{
    (void)state;
    tsr_text sent = packed(&some_messages[0]);
    tsr_serve_arrived arrived = {0};
    size_t used = 0;

    ASSERT_STATUS(TSR_OK, tsr_serve_message_read(sent.bytes, sent.count, &arrived, &used));
    const tsr_serve_submit *s = &arrived.message.submit;
    assert_true(s->id == UINT64_MAX && s->seed == 0xfedcba9876543210U);
    assert_int_equal(5, s->prompt_count);
    assert_memory_equal(some_ids, s->prompt, sizeof(some_ids));
    assert_int_equal(2, s->stop_id_count);
    assert_memory_equal(some_ids + 2, s->stop_ids, 2 * sizeof(int32_t));
    assert_int_equal(2, s->given);
    assert_int_equal(77, s->max_tokens);
    assert_int_equal(-3, s->priority);
    assert_true(s->temperature == 0.7F && s->top_p == 0.95F && s->ignore_eos);
    assert_int_equal(20, s->top_k);
    assert_memory_equal(&some_rules, s->rules, tsr_rules_bytes(&some_rules));
    tsr_serve_arrived_close(&arrived);
    tsr_text_close(&sent);
}

static void refuses(const void *bytes, size_t count, const char *why)
{
    tsr_serve_arrived arrived = {0};
    size_t used = 0;

    log_lines_clear(&lines);
    ASSERT_STATUS(TSR_ERR_MISMATCH, tsr_serve_message_read(bytes, count, &arrived, &used));
    assert_true(log_lines_say(&lines, why));
}

static void refuses_message(const tsr_serve_message *message, const char *why)
{
    tsr_text sent = packed(message);
    refuses(sent.bytes, sent.count, why);
    tsr_text_close(&sent);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    static const unsigned char nothing[] = {0, 0, 0, 0, 0};
    static const unsigned char too_long[] = {0xff, 0xff, 0xff, 0xff, 1};
    static const unsigned char no_kind[] = {1, 0, 0, 0, 0};
    static const unsigned char far_kind[] = {1, 0, 0, 0, 200};
    static const unsigned char end_with_more[] = {2, 0, 0, 0, TSR_SERVE_END, 7};
    static const unsigned char no_protobuf[] = {3, 0, 0, 0, TSR_SERVE_SUBMIT, 0xff, 0xff};
    static const int32_t negative[] = {4, -2};

    refuses(nothing, sizeof(nothing), "length");
    refuses(too_long, sizeof(too_long), "length");
    refuses(no_kind, sizeof(no_kind), "kind");
    refuses(far_kind, sizeof(far_kind), "kind");
    refuses(end_with_more, sizeof(end_with_more), "should be none");
    refuses(no_protobuf, sizeof(no_protobuf), "not a message");

    tsr_serve_message m = some_messages[0];
    m.submit.prompt_count = 0;
    refuses_message(&m, "empty");
    m = some_messages[0];
    m.submit.prompt = negative;
    m.submit.prompt_count = 2;
    m.submit.given = 0;
    refuses_message(&m, "negative");
    m = some_messages[0];
    m.submit.stop_ids = negative;
    refuses_message(&m, "stop id");
    m = some_messages[0];
    m.submit.given = 5;
    refuses_message(&m, "count");
    m = some_messages[0];
    m.submit.temperature = NAN;
    refuses_message(&m, "temperature");
    m = some_messages[0];
    m.submit.min_p = 2;
    refuses_message(&m, "min_p");
    m = some_messages[0];
    m.submit.top = 21;
    refuses_message(&m, "too many");
    m = some_messages[0];
    tsr_token_rules rules = some_rules;
    rules.list[0] = -4;
    m.submit.rules = &rules;
    refuses_message(&m, "rules");
    m = some_messages[0];
    m.submit.top_p = 0;
    refuses_message(&m, "top_p");
    m = some_messages[MESSAGES - 1];
    m.load.layers = 3;
    refuses_message(&m, "count");
    m = some_messages[MESSAGES - 3];
    m.output.token = -2;
    refuses_message(&m, "count");
}

static void messages_beyond_the_bound_are_not_made(void **state)
{
    (void)state;
    enum { MANY = TSR_SERVE_MOST_BYTES / 8 };
    static uint64_t counts[MANY];
    tsr_text text = {0};
    tsr_serve_message m = some_messages[MESSAGES - 1];

    memset(counts, 0xff, sizeof(counts));
    m.load.layers = 1;
    m.load.expert_tokens = counts;
    m.load.expert_token_count = MANY;
    ASSERT_STATUS(TSR_ERR_CAPACITY, tsr_serve_message_add(&m, &text));
    assert_int_equal(0, text.count);
    tsr_text_close(&text);
}

int main(void)
{
    tsr_log_set_sink(log_lines_catch, &lines);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_back_as_they_were),
        cmocka_unit_test(fields_of_a_request_arrive),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(messages_beyond_the_bound_are_not_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
