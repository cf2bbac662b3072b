/* Bodies of OpenAI requests: what is served, what is refused by name, what the defaults are. */
#include "launch/request/request_body.h"
#include "runtime/base/json_file.h"
#include "runtime/base/log.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL TSR_TEST_DATA "/demo-mixed"

static tsr_request_context context = {.generation = {.has_temperature = true, .temperature = 0.25F},
                                      .max_model_len = 128};

static tsr_status read_body(const char *text, tsr_generation *generation, tsr_refusal *refusal)
{
    json_error_t error;
    json_t *body = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (body == NULL)
        fail_msg("%s: %s", text, error.text);
    const tsr_status st =
        tsr_request_body_read(body, TSR_BODY_BY_CONTENT, &context, generation, refusal);
    json_decref(body);
    return st;
}

static void a_chat_becomes_what_its_template_says(void **state)
{
    (void)state;
    tsr_generation g;
    tsr_refusal refusal;
    tsr_ids wanted = {0};
    static const char text[] = "<|im_start|>system\nBe brief.<|im_end|>\n"
                               "<|im_start|>user\none\ntwo<|im_end|>\n<|im_start|>assistant\n";

    ASSERT_STATUS(TSR_OK, read_body("{\"messages\":[{\"role\":\"system\",\"content\":\"Be "
                                    "brief.\"},{\"role\":\"user\",\"content\":[{\"type\":"
                                    "\"text\",\"text\":\"one\"},{\"type\":\"text\",\"text\":"
                                    "\"two\"}]}],\"max_completion_tokens\":9,\"top_k\":-1,"
                                    "\"seed\":-5,\"stop\":[\"x\",\"yz\"],\"unknown\":1,"
                                    "\"priority\":-2,\"cache_salt\":\"ours\"}",
                                    &g, &refusal));
    ASSERT_STATUS(TSR_OK,
                  tsr_tokenizer_encode(context.tokenizer, text, sizeof(text) - 1, false, &wanted));
    assert_true(g.chat);
    assert_int_equal(g.prompt_count, 1);
    assert_int_equal(g.prompts[0].count, wanted.count);
    assert_memory_equal(g.prompts[0].ids, wanted.ids, wanted.count * sizeof(int32_t));
    assert_int_equal(g.request.max_tokens, 9);
    assert_int_equal(g.request.top_k, 0);
    assert_int_equal(g.request.priority, -2);
    assert_true(g.request.cache_salt != 0);
    assert_true(g.request.has_seed && g.request.seed == (uint64_t)-5);
    assert_true(g.request.temperature == 0.25F);
    assert_true(g.request.top_p == 1.0F);
    assert_int_equal(g.stop_count, 2);
    tsr_ids_close(&wanted);
    tsr_generation_close(&g);
}

/* Whether the prompt of such a body opens the assistant's turn. */
static bool opens_a_turn(const char *more)
{
    char body[256];
    tsr_generation g;
    tsr_refusal refusal;
    tsr_ids opening = {0};
    static const char text[] = "<|im_start|>assistant\n";
    (void)snprintf(body, sizeof(body), "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]%s}",
                   more);
    ASSERT_STATUS(TSR_OK, read_body(body, &g, &refusal));
    ASSERT_STATUS(TSR_OK,
                  tsr_tokenizer_encode(context.tokenizer, text, sizeof(text) - 1, false, &opening));
    const tsr_ids *prompt = &g.prompts[0];
    const bool opens =
        prompt->count > opening.count && memcmp(prompt->ids + prompt->count - opening.count,
                                                opening.ids, opening.count * sizeof(int32_t)) == 0;
    tsr_ids_close(&opening);
    tsr_generation_close(&g);
    return opens;
}

static void kwargs_of_the_body_have_the_last_word(void **state)
{
    (void)state;
    static const char kwargs[] = ",\"chat_template_kwargs\":{\"add_generation_prompt\":false}";
    json_t *defaults = json_pack("{s:b}", "add_generation_prompt", 0);
    assert_true(opens_a_turn(""));
    assert_false(opens_a_turn(",\"add_generation_prompt\":false"));
    assert_false(opens_a_turn(kwargs));
    context.template_kwargs = defaults;
    assert_false(opens_a_turn(""));
    assert_true(opens_a_turn(",\"add_generation_prompt\":true"));
    context.template_kwargs = NULL;
    json_decref(defaults);
}

/* A template of one line in a folder of its own. */
static tsr_chat_template *open_template(const char *text)
{
    char folder[] = "/tmp/tessera-template-XXXXXX";
    char path[64];
    tsr_problems problems = {0};
    tsr_chat_template *opened = NULL;

    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/chat_template.jinja", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    ASSERT_STATUS(TSR_OK, tsr_chat_template_open(folder, &problems, &opened));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
    tsr_problems_close(&problems);
    return opened;
}

static void arguments_of_tool_calls_reach_the_template_as_objects(void **state)
{
    (void)state;
    const tsr_chat_template *usual = context.chat_template;
    tsr_chat_template *loops = open_template(
        "{% for k, v in messages[0].tool_calls[0].function.arguments.items() %}{{ k }}={{ v }};"
        "{% endfor %}");
    tsr_generation g;
    tsr_refusal refusal;
    tsr_ids wanted = {0};

    context.chat_template = loops;
    ASSERT_STATUS(TSR_OK, read_body("{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{"
                                    "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\": 1,"
                                    "\\\"b\\\":[2]}\"}}]}]}",
                                    &g, &refusal));
    ASSERT_STATUS(TSR_OK,
                  tsr_tokenizer_encode(context.tokenizer, "a=1;b=[2];", 10, false, &wanted));
    assert_int_equal(g.prompts[0].count, wanted.count);
    assert_memory_equal(g.prompts[0].ids, wanted.ids, wanted.count * sizeof(int32_t));
    tsr_generation_close(&g);
    ASSERT_STATUS(TSR_ERR_ARG, read_body("{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{"
                                         "\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}]}",
                                         &g, &refusal));
    assert_non_null(strstr(refusal.message, "messages[0].tool_calls[0].function.arguments"));
    context.chat_template = usual;
    tsr_ids_close(&wanted);
    tsr_chat_template_close(loops);
}

/* The prompt that a body gives under a template of one line. */
static void assert_prompt(const char *template_text, const char *body, const char *wanted_text)
{
    const tsr_chat_template *usual = context.chat_template;
    tsr_chat_template *own = open_template(template_text);
    tsr_generation g;
    tsr_refusal refusal;
    tsr_ids wanted = {0};

    context.chat_template = own;
    ASSERT_STATUS(TSR_OK, read_body(body, &g, &refusal));
    ASSERT_STATUS(TSR_OK, tsr_tokenizer_encode(context.tokenizer, wanted_text, strlen(wanted_text),
                                               false, &wanted));
    assert_int_equal(g.prompts[0].count, wanted.count);
    assert_memory_equal(g.prompts[0].ids, wanted.ids, wanted.count * sizeof(int32_t));
    tsr_generation_close(&g);
    context.chat_template = usual;
    tsr_ids_close(&wanted);
    tsr_chat_template_close(own);
}

static void parts_reach_a_template_that_goes_through_them(void **state)
{
    (void)state;
#define PARTS "[{\"type\":\"text\",\"text\":\"one\"},{\"type\":\"text\",\"text\":\"two\"}]"
    static const char loop[] = "{% for p in messages[0].content %}{{ p.text }}+{% endfor %}";
    assert_prompt(loop, "{\"messages\":[{\"role\":\"user\",\"content\":" PARTS "}]}", "one+two+");
    assert_prompt(
        "{% if 0 %}{% for p in content %}{% endfor %}{% endif %}{{ messages[0].content }}",
        "{\"messages\":[{\"role\":\"tool\",\"content\":" PARTS "}]}", "one\ntwo");
    assert_prompt("{{ messages[0].content }}",
                  "{\"messages\":[{\"role\":\"user\",\"content\":" PARTS "}]}", "one\ntwo");
#undef PARTS
}

static void a_number_beyond_64_bits_is_refused_where_it_is_read(void **state)
{
    (void)state;
    json_error_t error;
    static const char text[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"n\":18446744073709551616}],"
        "\"metadata\":1e999,\"max_tokens\":3}";
    json_t *body = tsr_json_loadb(text, sizeof(text) - 1, 0, &error);
    tsr_generation g;
    tsr_refusal refusal;
    ASSERT_STATUS(TSR_ERR_ARG, tsr_request_body_read(body, TSR_BODY_CHAT, &context, &g, &refusal));
    assert_string_equal(refusal.param, "messages");
    assert_non_null(strstr(refusal.message, "18446744073709551616 is a number beyond 64 bits"));
    json_decref(body);
}

static void prompts_come_in_four_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        size_t prompts;
    } cases[] = {
        {"{\"prompt\":\"one two\"}", 1},
        {"{\"prompt\":[\"one\",\"two\"]}", 2},
        {"{\"prompt\":[5,6,7]}", 1},
        {"{\"prompt\":[[5],[6,7],[8]]}", 3},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_generation g;
        tsr_refusal refusal;
        ASSERT_STATUS(TSR_OK, read_body(cases[i].body, &g, &refusal));
        assert_false(g.chat);
        assert_int_equal(g.prompt_count, cases[i].prompts);
        assert_int_equal(g.request.max_tokens, 16);
        tsr_generation_close(&g);
    }
}

static void neutral_values_of_unbuilt_parameters_are_legal(void **state)
{
    (void)state;
    tsr_generation g;
    tsr_refusal refusal;
    ASSERT_STATUS(TSR_OK,
                  read_body("{\"prompt\":\"a\",\"n\":1,\"logprobs\":null,\"stream\":false,"
                            "\"repetition_penalty\":1.0,\"presence_penalty\":0,\"tools\":[],"
                            "\"logit_bias\":{},\"response_format\":{\"type\":\"text\"},"
                            "\"tool_choice\":\"none\",\"stop\":null,\"seed\":null,\"model\":\"m\"}",
                            &g, &refusal));
    tsr_generation_close(&g);
}

/* Lists come sorted and once, words also with a blank in front where that is another id. */
static void rules_of_tokens_are_read(void **state)
{
    (void)state;
    tsr_generation g;
    tsr_refusal refusal;
    ASSERT_STATUS(TSR_OK,
                  read_body("{\"prompt\":\"a\",\"min_p\":0.25,\"repetition_penalty\":1.5,"
                            "\"presence_penalty\":-1,\"frequency_penalty\":0.5,\"min_tokens\":3,"
                            "\"logit_bias\":{\"9\":-100,\"4\":2.5},\"bad_words\":[\" the\"],"
                            "\"allowed_token_ids\":[7,3,7,5],\"echo\":true,\"logprobs\":4,"
                            "\"n\":3,\"best_of\":5,\"prompt_logprobs\":6,\"max_tokens\":0}",
                            &g, &refusal));
    const tsr_token_rules *r = g.request.rules;
    assert_non_null(r);
    assert_true(g.request.min_p == 0.25F && r->repetition == 1.5F && r->presence == -1.0F &&
                r->frequency == 0.5F);
    assert_int_equal(3, r->min_tokens);
    assert_int_equal(2, r->biases);
    assert_true(r->list[0] == 4 && r->list[1] == 9);
    assert_true(tsr_rules_bias(r, 0) == 2.5F && tsr_rules_bias(r, 1) == -100.0F);
    assert_int_equal(3, r->allowed);
    assert_memory_equal(r->list + 4, ((int32_t[]){3, 5, 7}), 3 * sizeof(int32_t));
    assert_null(tsr_rules_wrong(r, tsr_rules_bytes(r), 512));
    assert_in_range(r->bad, 2, 16);
    assert_true(g.echo && g.logprobs && g.request.score_prompt);
    assert_int_equal(4, g.request.top);
    assert_int_equal(6, g.request.score_top);
    assert_int_equal(6, g.prompt_top);
    assert_int_equal(5, g.copies);
    assert_int_equal(3, g.kept);
    assert_int_equal(0, g.request.max_tokens);
    tsr_generation_close(&g);
    ASSERT_STATUS(TSR_OK, read_body("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
                                    "\"logprobs\":true,\"top_logprobs\":0,\"logit_bias\":{}}",
                                    &g, &refusal));
    assert_true(g.logprobs && g.request.top == 0 && g.request.rules == NULL && g.copies == 1);
    assert_true(g.kept == 1 && g.prompt_top == -1 && !g.request.score_prompt);
    tsr_generation_close(&g);
}

/* Every way to ask for a form says the same to the engine. */
static void forms_are_read(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"\"response_format\":{\"type\":\"json_object\"}", "{\"json_object\":true}"},
        {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\","
         "\"strict\":true,\"schema\":{\"type\":\"null\"}}}",
         "{\"json\":{\"type\":\"null\"}}"},
        {"\"guided_json\":\"{\\\"type\\\":\\\"null\\\"}\"", "{\"json\":{\"type\":\"null\"}}"},
        {"\"guided_json\":{}", "{\"json\":{}}"},
        {"\"structured_outputs\":{\"json\":{\"type\":\"null\"},\"regex\":null}",
         "{\"json\":{\"type\":\"null\"}}"},
        {"\"structured_outputs\":{\"choice\":[\"a\",\"b\"]}", "{\"choice\":[\"a\",\"b\"]}"},
        {"\"guided_regex\":\"a+\",\"tool_choice\":\"auto\"", "{\"regex\":\"a+\"}"},
        {"\"guided_json_object\":true", "{\"json_object\":true}"},
        {"\"structured_outputs\":{},\"guided_choice\":[],\"guided_json\":null", NULL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_generation g;
        tsr_refusal refusal;
        char body[512];
        (void)snprintf(body, sizeof(body), "{\"prompt\":\"a\",%s}", cases[i][0]);
        ASSERT_STATUS(TSR_OK, read_body(body, &g, &refusal));
        if (cases[i][1] == NULL)
            assert_null(g.request.guide);
        else
            assert_string_equal(cases[i][1], g.request.guide);
        tsr_generation_close(&g);
    }
}

/* Body, code, parameter. */
static const char *const refused[][3] = {
    {"[]", "invalid_value", "body"},
    {"{}", "invalid_value", "body"},
    {"{\"prompt\":\"a\",\"messages\":[]}", "invalid_value", "messages"},
    {"{\"messages\":[]}", "invalid_value", "messages"},
    {"{\"prompt\":\"a\",\"add_special_tokens\":1}", "invalid_value", "add_special_tokens"},
    {"{\"messages\":[{\"content\":\"x\"}]}", "invalid_value", "messages"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", "invalid_value",
     "messages"},
    {"{\"messages\":[{\"role\":\"user\"}],\"chat_template_kwargs\":\"x\"}", "invalid_value",
     "chat_template_kwargs"},
    {"{\"messages\":[{\"role\":\"user\"}],\"add_generation_prompt\":0}", "invalid_value",
     "add_generation_prompt"},
    {"{\"prompt\":\"\"}", "invalid_value", "prompt"},
    {"{\"prompt\":7}", "invalid_value", "prompt"},
    {"{\"prompt\":[99999]}", "invalid_value", "prompt"},
    {"{\"prompt\":[1,\"a\"]}", "invalid_value", "prompt"},
    {"{\"prompt\":\"a\",\"n\":0}", "invalid_value", "n"},
    {"{\"prompt\":\"a\",\"n\":3,\"best_of\":2}", "invalid_value", "best_of"},
    {"{\"messages\":[{\"role\":\"user\"}],\"best_of\":2}", "unsupported_parameter", "best_of"},
    {"{\"prompt\":\"a\",\"prompt_logprobs\":21}", "invalid_value", "prompt_logprobs"},
    {"{\"prompt\":\"a\",\"prompt_logprobs\":-1}", "invalid_value", "prompt_logprobs"},
    {"{\"prompt\":\"a\",\"logprobs\":21}", "invalid_value", "logprobs"},
    {"{\"prompt\":\"a\",\"logprobs\":true}", "invalid_value", "logprobs"},
    {"{\"messages\":[{\"role\":\"user\"}],\"logprobs\":2}", "invalid_value", "logprobs"},
    {"{\"messages\":[{\"role\":\"user\"}],\"top_logprobs\":2}", "invalid_value", "top_logprobs"},
    {"{\"prompt\":\"a\",\"echo\":1}", "invalid_value", "echo"},
    {"{\"prompt\":\"a\",\"repetition_penalty\":0}", "invalid_value", "repetition_penalty"},
    {"{\"prompt\":\"a\",\"presence_penalty\":-2.5}", "invalid_value", "presence_penalty"},
    {"{\"prompt\":\"a\",\"frequency_penalty\":\"x\"}", "invalid_value", "frequency_penalty"},
    {"{\"prompt\":\"a\",\"min_tokens\":-1}", "invalid_value", "min_tokens"},
    {"{\"prompt\":\"a\",\"logit_bias\":[1]}", "invalid_value", "logit_bias"},
    {"{\"prompt\":\"a\",\"logit_bias\":{\"x\":1}}", "invalid_value", "logit_bias"},
    {"{\"prompt\":\"a\",\"logit_bias\":{\"5\":101}}", "invalid_value", "logit_bias"},
    {"{\"prompt\":\"a\",\"allowed_token_ids\":[-1]}", "invalid_value", "allowed_token_ids"},
    {"{\"prompt\":\"a\",\"allowed_token_ids\":5}", "invalid_value", "allowed_token_ids"},
    {"{\"prompt\":\"a\",\"bad_words\":\"x\"}", "invalid_value", "bad_words"},
    {"{\"prompt\":\"a\",\"bad_words\":[\" \"]}", "invalid_value", "bad_words"},
    {"{\"prompt\":\"a\",\"stream\":true}", "unsupported_parameter", "stream"},
    {"{\"prompt\":\"a\",\"min_p\":1.1}", "invalid_value", "min_p"},
    {"{\"prompt\":\"a\",\"guided_choice\":[1]}", "invalid_value", "guided_choice"},
    {"{\"prompt\":\"a\",\"guided_choice\":[\"x\"],\"guided_regex\":\"x\"}", "invalid_value",
     "guided_regex"},
    {"{\"prompt\":\"a\",\"guided_json\":\"{\"}", "invalid_value", "guided_json"},
    {"{\"prompt\":\"a\",\"guided_regex\":\"(\"}", "invalid_value", "guided_regex"},
    {"{\"prompt\":\"a\",\"guided_grammar\":\"root ::= x\"}", "unsupported_parameter",
     "guided_grammar"},
    {"{\"prompt\":\"a\",\"structured_outputs\":{\"grammar\":\"x\"}}", "unsupported_parameter",
     "structured_outputs"},
    {"{\"prompt\":\"a\",\"structured_outputs\":[1]}", "invalid_value", "structured_outputs"},
    {"{\"prompt\":\"a\",\"guided_choice\":[\"x\"],\"min_tokens\":2}", "invalid_value",
     "min_tokens"},
    {"{\"prompt\":\"a\",\"use_beam_search\":true}", "unsupported_parameter", "use_beam_search"},
    {"{\"prompt\":\"a\",\"repeat_penalty\":1.3}", "unsupported_parameter", "repeat_penalty"},
    {"{\"prompt\":\"a\",\"tool_choice\":\"required\"}", "invalid_value", "tool_choice"},
    {"{\"prompt\":\"a\",\"tool_choice\":\"some\"}", "invalid_value", "tool_choice"},
    {"{\"prompt\":\"a\",\"tool_choice\":{\"type\":\"custom\"}}", "unsupported_parameter",
     "tool_choice"},
    {"{\"prompt\":\"a\",\"parallel_tool_calls\":1}", "invalid_value", "parallel_tool_calls"},
    {"{\"prompt\":\"a\",\"enable_thinking\":false}", "unsupported_parameter", "enable_thinking"},
    {"{\"prompt\":\"a\",\"tools\":[{}]}", "unsupported_parameter", "tools"},
    {"{\"prompt\":\"a\",\"response_format\":{\"type\":\"xml\"}}", "unsupported_parameter",
     "response_format"},
    {"{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_schema\"}}", "invalid_value",
     "response_format"},
    {"{\"prompt\":\"a\",\"response_format\":\"json\"}", "invalid_value", "response_format"},
    {"{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":"
     "{\"properties\":{\"a\":{\"multipleOf\":3}}}}}}",
     "invalid_value", "response_format"},
    {"{\"prompt\":\"a\",\"temperature\":-1}", "invalid_value", "temperature"},
    {"{\"prompt\":\"a\",\"temperature\":\"hot\"}", "invalid_value", "temperature"},
    {"{\"prompt\":\"a\",\"top_p\":0}", "invalid_value", "top_p"},
    {"{\"prompt\":\"a\",\"max_tokens\":0}", "invalid_value", "max_tokens"},
    {"{\"prompt\":\"a\",\"max_tokens\":1.5}", "invalid_value", "max_tokens"},
    {"{\"prompt\":\"a\",\"max_tokens\":128}", "context_length_exceeded", "max_tokens"},
    {"{\"prompt\":\"a\",\"stop\":[\"\"]}", "invalid_value", "stop"},
    {"{\"prompt\":\"a\",\"stop\":3}", "invalid_value", "stop"},
    {"{\"prompt\":\"a\",\"stop\":[\"b\\u0000c\"]}", "invalid_value", "stop"},
    {"{\"prompt\":\"a\",\"stop_token_ids\":[-1]}", "invalid_value", "stop_token_ids"},
    {"{\"prompt\":\"a\",\"seed\":1.5}", "invalid_value", "seed"},
    {"{\"prompt\":\"a\",\"ignore_eos\":1}", "invalid_value", "ignore_eos"},
    {"{\"prompt\":\"a\",\"priority\":0.5}", "invalid_value", "priority"},
    {"{\"prompt\":\"a\",\"cache_salt\":\"\"}", "invalid_value", "cache_salt"},
};

static void what_is_refused_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        tsr_generation g = {.prompt_count = 42};
        tsr_refusal refusal = {0};
        ASSERT_STATUS(TSR_ERR_ARG, read_body(refused[i][0], &g, &refusal));
        assert_int_equal(g.prompt_count, 42);
        if (strcmp(refusal.code, refused[i][1]) != 0 || strcmp(refusal.param, refused[i][2]) != 0)
            fail_msg("%s: refused %s %s: %s", refused[i][0], refusal.code, refusal.param,
                     refusal.message);
    }
}

static void count_warnings(void *to, tsr_log_level level, const char *line)
{
    int *counts = to;
    counts[0] += level == TSR_LOG_WARN && strstr(line, "unheard") != NULL;
    counts[1] += level == TSR_LOG_WARN;
}

static void an_unknown_field_is_said_once_and_not_all_of_them(void **state)
{
    (void)state;
    int counts[2] = {0};
    tsr_generation g;
    tsr_refusal refusal;

    context.unknown = json_object();
    tsr_log_set_sink(count_warnings, counts);
    for (int i = 0; i < 100; i++) {
        char body[96];
        (void)snprintf(body, sizeof(body), "{\"prompt\":\"a\",\"un\\nheard\":%d,\"x%d\":1}", i, i);
        ASSERT_STATUS(TSR_OK, read_body(body, &g, &refusal));
        tsr_generation_close(&g);
        (void)snprintf(body, sizeof(body), "{\"prompt\":\"a\",\"unheard\":%d}", i);
        ASSERT_STATUS(TSR_OK, read_body(body, &g, &refusal));
        tsr_generation_close(&g);
    }
    tsr_log_set_sink(NULL, NULL);
    json_decref(context.unknown);
    context.unknown = NULL;
    assert_int_equal(counts[0], 1);
    assert_int_equal(counts[1], 33);
}

static void a_checkpoints_longest_answer_is_the_default(void **state)
{
    (void)state;
    tsr_generation g;
    tsr_refusal refusal;

    context.generation.max_new_tokens = 21;
    ASSERT_STATUS(TSR_OK, read_body("{\"prompt\":\"a\"}", &g, &refusal));
    assert_int_equal(g.request.max_tokens, 21);
    tsr_generation_close(&g);
    ASSERT_STATUS(TSR_OK, read_body("{\"prompt\":\"a\",\"max_tokens\":5}", &g, &refusal));
    assert_int_equal(g.request.max_tokens, 5);
    tsr_generation_close(&g);
    context.generation.max_new_tokens = 0;
}

static void a_prompt_longer_than_the_context_says_both_lengths(void **state)
{
    (void)state;
    tsr_text body = {0};
    tsr_generation g;
    tsr_refusal refusal = {0};

    ASSERT_STATUS(TSR_OK, tsr_text_add_string(&body, "{\"prompt\":[1"));
    for (int i = 0; i < 200; i++)
        ASSERT_STATUS(TSR_OK, tsr_text_add_string(&body, ",1"));
    ASSERT_STATUS(TSR_OK, tsr_text_add_string(&body, "]}"));
    ASSERT_STATUS(TSR_ERR_ARG, read_body(body.bytes, &g, &refusal));
    assert_string_equal(refusal.code, "context_length_exceeded");
    assert_non_null(strstr(refusal.message, "maximum context length is 128 tokens"));
    assert_non_null(strstr(refusal.message, "201 tokens"));
    tsr_text_close(&body);
}

static tsr_tokenizer *tokenizer;
static tsr_chat_template *chat_template;

static int open_model(void **state)
{
    tsr_problems problems = {0};
    (void)state;
    ASSERT_STATUS(TSR_OK, tsr_tokenizer_open(MODEL, &problems, &tokenizer));
    ASSERT_STATUS(TSR_OK, tsr_chat_template_open(MODEL, &problems, &chat_template));
    tsr_problems_close(&problems);
    context.tokenizer = tokenizer;
    context.chat_template = chat_template;
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    tsr_chat_template_close(chat_template);
    tsr_tokenizer_close(tokenizer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_becomes_what_its_template_says),
        cmocka_unit_test(kwargs_of_the_body_have_the_last_word),
        cmocka_unit_test(arguments_of_tool_calls_reach_the_template_as_objects),
        cmocka_unit_test(parts_reach_a_template_that_goes_through_them),
        cmocka_unit_test(a_number_beyond_64_bits_is_refused_where_it_is_read),
        cmocka_unit_test(prompts_come_in_four_shapes),
        cmocka_unit_test(neutral_values_of_unbuilt_parameters_are_legal),
        cmocka_unit_test(rules_of_tokens_are_read),
        cmocka_unit_test(forms_are_read),
        cmocka_unit_test(what_is_refused_is_named),
        cmocka_unit_test(an_unknown_field_is_said_once_and_not_all_of_them),
        cmocka_unit_test(a_checkpoints_longest_answer_is_the_default),
        cmocka_unit_test(a_prompt_longer_than_the_context_says_both_lengths),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
