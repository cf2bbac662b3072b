/* The lines of a batch without an engine: whose each error is, what one line may ask for, what
 * becomes of the other prompts of a line that fails, and of lines nobody came to. */
#include "launch/batch/batch_file.h"
#include "launch/request/request_prompt.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODEL TSR_TEST_DATA "/demo-mixed"

enum { MAX_LEN = 64, MAX_ANSWERS = 64, PATH_BYTES = 64, WAIT_MS = 5000 };

static char folder[] = "/tmp/tessera-batch-XXXXXX";
static char input[PATH_BYTES];
static char output[PATH_BYTES];
static tsr_request_context context = {.max_model_len = MAX_LEN};
static json_t *answers[MAX_ANSWERS];
static size_t answer_count;

static void put(const char *text)
{
    FILE *file = fopen(input, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static tsr_batch_file *open_batch(bool resume)
{
    const tsr_batch_args args = {.input = input,
                                 .output = output,
                                 .deadline_ms = 1000,
                                 .resume = resume,
                                 .context = &context,
                                 .model = "demo"};
    tsr_batch_file *batch = NULL;
    ASSERT_STATUS(TSR_OK, tsr_batch_file_open(&args, &batch));
    return batch;
}

static void drop_answers(void)
{
    for (size_t i = 0; i < answer_count; i++)
        json_decref(answers[i]);
    answer_count = 0;
}

static void read_answers(void)
{
    FILE *in = fopen(output, "r");
    assert_non_null(in);
    drop_answers();
    for (json_t *answer; (answer = json_loadf(in, JSON_DISABLE_EOF_CHECK, NULL)) != NULL;) {
        assert_in_range(answer_count, 0, MAX_ANSWERS - 1);
        answers[answer_count++] = answer;
    }
    (void)fclose(in);
}

static tsr_wish ask(tsr_batch_file *batch, bool room, int32_t wait_ms)
{
    const tsr_source source = tsr_batch_file_source(batch);
    const tsr_question question = {.room = room, .wait_ms = wait_ms};
    tsr_wish wish = {0};

    ASSERT_STATUS(TSR_OK, source.ask(source.context, &question, &wish));
    return wish;
}

/* Takes every request there is; their number. */
static size_t take_all(tsr_batch_file *batch, uint64_t ids[MAX_ANSWERS])
{
    size_t count = 0;
    tsr_wish wish;

    for (;;) {
        wish = ask(batch, true, WAIT_MS);
        if (wish.kind != TSR_WISH_REQUEST)
            return count;
        ids[count++] = wish.request.id;
    }
}

static void give(tsr_batch_file *batch, uint64_t id, tsr_finish finish, tsr_status cause)
{
    const tsr_sink sink = tsr_batch_file_sink(batch);
    const tsr_output last = {.id = id,
                             .token = -1,
                             .finish = finish,
                             .refusal = finish == TSR_FINISH_REFUSED ? "too much" : NULL,
                             .cause = cause};
    bool cancel = false;
    ASSERT_STATUS(TSR_OK, sink.token(sink.context, &last, &cancel));
}

/* What a file of these lines comes to when the engine never gets to a request of it. */
static tsr_batch_counts run_lines(const char *text, tsr_status status)
{
    tsr_batch_counts counts;
    uint64_t ids[MAX_ANSWERS];

    put(text);
    (void)remove(output);
    tsr_batch_file *batch = open_batch(false);
    (void)take_all(batch, ids);
    ASSERT_STATUS(TSR_OK, tsr_batch_file_finish(batch, status, &counts));
    tsr_batch_file_close(batch);
    read_answers();
    return counts;
}

static const json_t *error_of(size_t line)
{
    assert_in_range(line, 0, answer_count - 1);
    return json_object_get(answers[line], "error");
}

static void assert_error(size_t line, const char *id, const char *code, int status)
{
    const json_t *error = error_of(line);
    const char *found = json_string_value(json_object_get(answers[line], "custom_id"));

    if (id == NULL ? found != NULL : found == NULL || strcmp(found, id) != 0)
        fail_msg("line %zu is %s's, not %s's", line, found, id);
    assert_string_equal(json_string_value(json_object_get(error, "code")), code);
    assert_int_equal(json_integer_value(json_object_get(error, "status_code")), status);
}

static void an_error_says_whose_line_it_is(void **state)
{
    (void)state;
    const tsr_batch_counts counts =
        run_lines("{\"custom_id\":\"lone\",\"body\":{\"prompt\":\"\\ud83d\"}}\n"
                  "{\"custom_id\":\"nan\",\"body\":{\"prompt\":\"a\",\"temperature\":NaN}}\n"
                  "{\"body\":{\"seed\":18446744073709551615},\"custom_id\":\"behind\"}\n"
                  "{\"custom_id\":\"cut\",\"body\":{\"prompt\":\"a\n"
                  "{\"custom_id\":\"caf\\u00e9 \\\"x\\\"\",\"body\":{\"prompt\":\"a\",}}\n"
                  "{\"body\":{\"custom_id\":\"not this one\"}}\n"
                  "{\"custom_id\":\"\\x\",\"body\":{}}\n"
                  "no JSON\n",
                  TSR_OK);
    assert_int_equal(counts.lines, 8);
    assert_int_equal(counts.failed, 8);
    assert_int_equal(answer_count, 8);
    assert_error(0, "lone", "invalid_json", 400);
    assert_error(1, "nan", "invalid_json", 400);
    assert_error(2, "behind", "invalid_value", 400);
    assert_error(3, "cut", "invalid_json", 400);
    assert_error(4, "caf\xc3\xa9 \"x\"", "invalid_json", 400);
    assert_error(5, NULL, "invalid_value", 400);
    assert_error(6, NULL, "invalid_json", 400);
    assert_error(7, NULL, "invalid_json", 400);
}

static void a_url_is_served_or_refused_by_name(void **state)
{
    (void)state;
    static const char *const urls[] = {"/v1/embeddings", "/v1/responses", "/v1/chat/completions/x",
                                       "http://host",    "completion",    ""};
    char lines[2048] = "";
    for (size_t i = 0; i < 6; i++)
        (void)snprintf(lines + strlen(lines), sizeof(lines) - strlen(lines),
                       "{\"custom_id\":\"%zu\",\"url\":\"%s\",\"body\":{\"prompt\":\"a\"}}\n", i,
                       urls[i]);
    assert_int_equal(run_lines(lines, TSR_OK).failed, 6);
    for (size_t i = 0; i < 6; i++) {
        char id[8];
        (void)snprintf(id, sizeof(id), "%zu", i);
        assert_error(i, id, "unsupported_url", 404);
        assert_non_null(
            strstr(json_string_value(json_object_get(error_of(i), "message")), urls[i]));
    }

    static const char *const served[] = {"/v1/completions", "completions",
                                         "https://host:1/v1/completions"};
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(lines, sizeof(lines),
                       "{\"custom_id\":\"1\",\"url\":\"%s\",\"body\":{\"prompt\":\"a\"}}\n",
                       served[i]);
        (void)run_lines(lines, TSR_OK);
        assert_error(0, "1", "drained", 503); /* it was taken */
    }
}

static void what_is_not_a_lines_fault_is_none_of_its_errors(void **state)
{
    (void)state;
    static const struct {
        tsr_status status;
        int http;
        const char *code;
    } cases[] = {{TSR_OK, 503, "drained"},
                 {TSR_ERR_TIMEOUT, 503, "rank_lost"},
                 {TSR_ERR_PEER, 503, "rank_lost"},
                 {TSR_ERR_MEMORY, 503, "out_of_memory"},
                 {TSR_ERR_MISMATCH, 500, "ranks_disagree"},
                 {TSR_ERR_TERMINATED, 503, "ended"},
                 {TSR_ERR_INTERNAL, 500, "job_failed"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void)run_lines("{\"custom_id\":\"1\",\"body\":{\"prompt\":\"a\"}}\n", cases[i].status);
        assert_int_equal(answer_count, 1);
        assert_error(0, "1", cases[i].code, cases[i].http);
    }
}

/* What a line asks for is bounded; the next is read all the same. */
static void one_line_asks_for_so_much_at_most(void **state)
{
    (void)state;
    static const struct {
        const char *before, *repeated, *after, *code;
        int times;
    } cases[] = {
        {"{\"custom_id\":\"1\",\"body\":{\"prompt\":\"a\",\"stop\":[\"x\"", ",\"y\"", "]}}\n",
         "invalid_value", 64},
        {"{\"custom_id\":\"1\",\"body\":{\"prompt\":\"a\",\"stop\":\"", "0123456789", "\"}}\n",
         "invalid_value", 103},
        {"{\"custom_id\":\"1\",\"body\":{\"prompt\":\"", "one two ", "\"}}\n",
         "context_length_exceeded", 300},
        {"{\"custom_id\":\"1\",\"body\":{\"prompt\":\"", "one two ", "\"}}\n",
         "context_length_exceeded", 300000},
        {"{\"custom_id\":\"1\",\"body\":{\"prompt\":[1", ",1", "]}}\n", "context_length_exceeded",
         300},
        {"{\"custom_id\":\"1\",\"body\":{\"messages\":[{\"role\":\"user\",\"content\":\"",
         "one two ", "\"}]}}\n", "context_length_exceeded", 30000},
        {"{\"custom_id\":\"1\",\"body\":{\"prompt\":[[1]", ",[1]", "]}}\n", "invalid_value", 5000},
        {"{\"custom_id\":\"1\",\"body\":{\"prompt\":\"a\",\"user\":[{}", ",{}", "]}}\n",
         "invalid_value", 70000},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_text text = {0};
        ASSERT_STATUS(TSR_OK, tsr_text_add_string(&text, cases[i].before));
        for (int n = 0; n < cases[i].times; n++)
            ASSERT_STATUS(TSR_OK, tsr_text_add_string(&text, cases[i].repeated));
        ASSERT_STATUS(TSR_OK, tsr_text_add_string(&text, cases[i].after));
        ASSERT_STATUS(TSR_OK, tsr_text_add_string(
                                  &text, "{\"custom_id\":\"2\",\"body\":{\"prompt\":\"a\"}}\n"));
        assert_int_equal(run_lines(text.bytes, TSR_OK).failed, 2);
        if (error_of(0) == NULL ||
            strcmp(json_string_value(json_object_get(error_of(0), "code")), cases[i].code) != 0)
            fail_msg("case %zu", i);
        assert_error(0, "1", cases[i].code, 400);
        assert_error(1, "2", "drained", 503);
        tsr_text_close(&text);
    }
}

/* Lines that come to nothing are read for a while only, and go on being read. */
static void many_bad_lines_do_not_hold_up_a_step(void **state)
{
    (void)state;
    enum { BAD = 40000 };
    FILE *file = fopen(input, "w");
    assert_non_null(file);
    for (int i = 0; i < BAD; i++)
        (void)fprintf(file, "{\"custom_id\":\"%d\",\"body\":{\"prompt\":[]}}\n", i);
    assert_int_equal(fclose(file), 0);
    (void)remove(output);

    tsr_batch_file *batch = open_batch(false);
    int turns = 0;
    for (tsr_wish_kind kind = TSR_WISH_NOTHING; kind != TSR_WISH_END; turns++) {
        kind = ask(batch, true, 0).kind;
        assert_true(kind == TSR_WISH_NOTHING || kind == TSR_WISH_END);
    }
    assert_in_range(turns, 2, BAD / 2);
    tsr_batch_counts counts;
    ASSERT_STATUS(TSR_OK, tsr_batch_file_finish(batch, TSR_OK, &counts));
    assert_int_equal(counts.failed, BAD);
    tsr_batch_file_close(batch);
}

static void prompts_beside_one_that_is_refused_stop(void **state)
{
    (void)state;
    const char *line = "{\"custom_id\":\"1\",\"body\":{\"prompt\":[\"a\",\"b\",\"c\",\"d\"]}}\n"
                       "{\"custom_id\":\"2\",\"body\":{\"prompt\":\"a\"}}\n";
    tsr_batch_counts counts;
    uint64_t ids[3] = {0};
    tsr_wish wish;

    put(line);
    (void)remove(output);
    tsr_batch_file *batch = open_batch(false);
    for (size_t i = 0; i < 3; i++) {
        wish = ask(batch, true, 0);
        assert_int_equal(TSR_WISH_REQUEST, wish.kind);
        ids[i] = wish.request.id;
    }
    assert_int_equal(TSR_WISH_NOTHING, ask(batch, false, 0).kind);
    give(batch, ids[0], TSR_FINISH_LENGTH, TSR_OK);
    give(batch, ids[2], TSR_FINISH_REFUSED, TSR_ERR_MEMORY);
    wish = ask(batch, false, 0);
    assert_int_equal(TSR_WISH_CANCEL, wish.kind);
    assert_true(wish.cancel == ids[1]);
    assert_int_equal(TSR_WISH_NOTHING, ask(batch, false, 0).kind);

    /* the fourth never begins, and the line goes with its last */
    wish = ask(batch, true, 0);
    assert_int_equal(TSR_WISH_REQUEST, wish.kind);
    assert_true(wish.request.id >> 16 != ids[0] >> 16);
    give(batch, ids[1], TSR_FINISH_CANCELLED, TSR_OK);
    give(batch, wish.request.id, TSR_FINISH_LENGTH, TSR_OK);
    assert_int_equal(TSR_WISH_END, ask(batch, true, 0).kind);
    ASSERT_STATUS(TSR_OK, tsr_batch_file_finish(batch, TSR_OK, &counts));
    tsr_batch_file_close(batch);
    read_answers();
    assert_int_equal(answer_count, 2);
    assert_error(0, "1", "out_of_memory", 503);
    assert_int_equal(counts.failed, 1);
}

/* In a process of its own, whose memory may not grow by as much as the line has. */
static void a_line_without_memory_fails_alone(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip();
#endif
    enum { LONG = 48 << 20, MORE = 24 << 20 };
    FILE *file = fopen(input, "w");
    assert_non_null(file);
    (void)fputs("{\"custom_id\":\"long\",\"body\":{\"prompt\":\"", file);
    for (int i = 0; i < LONG / 8; i++)
        (void)fputs("one two ", file);
    (void)fputs("\"}}\n{\"custom_id\":\"short\",\"body\":{\"prompt\":\"a\"}}\n", file);
    assert_int_equal(fclose(file), 0);
    (void)remove(output);

    const pid_t child = fork();
    if (child == 0) {
        long pages = 0;
        FILE *size = fopen("/proc/self/statm", "r");
        if (size == NULL || fscanf(size, "%ld", &pages) != 1) /* NOLINT(cert-err34-c) */
            _exit(2);
        (void)fclose(size);
        const rlim_t bytes = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + MORE;
        const struct rlimit limit = {.rlim_cur = bytes, .rlim_max = bytes};
        tsr_batch_counts counts;
        uint64_t ids[MAX_ANSWERS];
        if (setrlimit(RLIMIT_AS, &limit) != 0)
            _exit(3);
        tsr_batch_file *batch = open_batch(false);
        if (take_all(batch, ids) != 1 ||
            tsr_batch_file_finish(batch, TSR_ERR_PEER, &counts) != TSR_OK || counts.lines != 2)
            _exit(4);
        tsr_batch_file_close(batch);
        _exit(0);
    }
    int code = 0;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 0);
    read_answers();
    assert_error(0, "long", "out_of_memory", 503);
    assert_error(1, "short", "rank_lost", 503);
}

static const json_t *logprobs_of(size_t choice)
{
    const json_t *body = json_object_get(json_object_get(answers[0], "response"), "body");
    const json_t *choices = json_object_get(body, "choices");

    assert_int_equal(4, json_array_size(choices));
    const json_t *one = json_array_get(choices, choice);
    assert_int_equal(choice, json_integer_value(json_object_get(one, "index")));
    return json_object_get(one, "logprobs");
}

/* Two prompts, two answers to each, with the prompt in front: nothing is known of its first token; of
 * two ids that are the same text (halves of characters) the more probable stands there. */
static void probabilities_stand_beside_their_tokens(void **state)
{
    (void)state;
    enum { HALF = 100, OTHER_HALF = 101 };
    static const tsr_token_logprob prompt = {11, -3.5F};
    static const tsr_token_logprob top[] = {{HALF, -2.0F}, {OTHER_HALF, -1.5F}};
    tsr_batch_counts counts;
    uint64_t ids[MAX_ANSWERS];

    put("{\"custom_id\":\"1\",\"body\":{\"prompt\":[[10,11],[10,11]],\"n\":2,\"echo\":true,"
        "\"logprobs\":2,\"max_tokens\":1}}\n");
    (void)remove(output);
    tsr_batch_file *batch = open_batch(false);
    const tsr_sink sink = tsr_batch_file_sink(batch);
    assert_int_equal(4, take_all(batch, ids));
    for (int i = 0; i < 4; i++) {
        const tsr_prompt_scores scores = {ids[i], 1, 1, 2, &prompt, top};
        const tsr_output said = {.id = ids[i],
                                 .token = HALF,
                                 .logprob = -2.0F,
                                 .top = top,
                                 .top_count = 2,
                                 .finish = TSR_FINISH_LENGTH};
        bool cancel = false;
        ASSERT_STATUS(TSR_OK, sink.scores(sink.context, &scores));
        ASSERT_STATUS(TSR_OK, sink.token(sink.context, &said, &cancel));
    }
    ASSERT_STATUS(TSR_OK, tsr_batch_file_finish(batch, TSR_OK, &counts));
    tsr_batch_file_close(batch);
    read_answers();
    for (size_t i = 0; i < 4; i++) {
        const json_t *told = json_object_get(logprobs_of(i), "top_logprobs");
        const json_t *values = json_object_get(logprobs_of(i), "token_logprobs");
        const json_t *offset = json_object_get(logprobs_of(i), "text_offset");
        assert_int_equal(3, json_array_size(told));
        assert_true(json_is_null(json_array_get(told, 0)) &&
                    json_is_null(json_array_get(values, 0)));
        assert_int_equal(2, json_object_size(json_array_get(told, 1)));
        assert_true(json_real_value(json_array_get(values, 1)) == -3.5);
        const json_t *last = json_array_get(told, 2);
        assert_int_equal(1, json_object_size(last));
        assert_true(json_real_value(json_object_get(last, "\xef\xbf\xbd")) == -1.5);
        assert_true(json_real_value(json_array_get(values, 2)) == -2.0);
        assert_int_equal(2, json_integer_value(json_array_get(offset, 2)));
    }
}

static void lines_with_one_id_need_an_answer_each(void **state)
{
    (void)state;
    static const char line[] = "{\"custom_id\":\"caf\\u00e9\",\"body\":{\"prompt\":\"a\"}}\n";
    char lines[3 * sizeof(line)];
    uint64_t ids[MAX_ANSWERS] = {0};
    tsr_batch_counts counts;

    (void)snprintf(lines, sizeof(lines), "%s%s", line, line);
    put(lines);
    FILE *file = fopen(output, "w");
    assert_non_null(file);
    (void)fputs("{\"id\":\"x\",\"custom_id\":\"caf\xc3\xa9\",\"response\":{},\"error\":null}\n",
                file);
    assert_int_equal(fclose(file), 0);
    tsr_batch_file *batch = open_batch(true);
    assert_int_equal(take_all(batch, ids), 1);
    give(batch, ids[0], TSR_FINISH_LENGTH, TSR_OK);
    ASSERT_STATUS(TSR_OK, tsr_batch_file_finish(batch, TSR_OK, &counts));
    tsr_batch_file_close(batch);
    assert_int_equal(counts.lines, 2);
    assert_int_equal(counts.kept, 1);
    read_answers();
    assert_int_equal(answer_count, 2);
}

static tsr_tokenizer *tokenizer;
static tsr_chat_template *chat_template;

static int open_model(void **state)
{
    tsr_problems problems = {0};
    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(input, sizeof(input), "%s/in", folder);
    (void)snprintf(output, sizeof(output), "%s/out", folder);
    ASSERT_STATUS(TSR_OK, tsr_tokenizer_open(MODEL, &problems, &tokenizer));
    ASSERT_STATUS(TSR_OK, tsr_chat_template_open(MODEL, &problems, &chat_template));
    tsr_problems_close(&problems);
    context.tokenizer = tokenizer;
    context.chat_template = chat_template;
    context.max_prompt_bytes = tsr_request_prompt_most_bytes(tokenizer, MAX_LEN);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    drop_answers();
    tsr_chat_template_close(chat_template);
    tsr_tokenizer_close(tokenizer);
    (void)remove(input);
    (void)remove(output);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_says_whose_line_it_is),
        cmocka_unit_test(a_url_is_served_or_refused_by_name),
        cmocka_unit_test(what_is_not_a_lines_fault_is_none_of_its_errors),
        cmocka_unit_test(one_line_asks_for_so_much_at_most),
        cmocka_unit_test(many_bad_lines_do_not_hold_up_a_step),
        cmocka_unit_test(prompts_beside_one_that_is_refused_stop),
        cmocka_unit_test(a_line_without_memory_fails_alone),
        cmocka_unit_test(probabilities_stand_beside_their_tokens),
        cmocka_unit_test(lines_with_one_id_need_an_answer_each),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
