/* The option table: values, units, ranges, the environment behind the command line. */
#include "launch/cli/backends.h"
#include "launch/cli/config.h"
#include "launch/plan/plan_request.h"
#include "runtime/base/log.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ARGUMENTS = 32, ARGUMENT_BYTES = 64 };

static char last_line[512];

static void keep_line(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    (void)level;
    (void)snprintf(last_line, sizeof(last_line), "%s", line);
}

/* Parses a command line given as one string with single spaces. */
static tsr_status parse(const char *line, tsr_config *config)
{
    static char words[MAX_ARGUMENTS][ARGUMENT_BYTES];
    char *argv[MAX_ARGUMENTS + 1] = {0};
    int argc = 0;

    last_line[0] = '\0';
    for (const char *at = line; *at && argc < MAX_ARGUMENTS; argc++) {
        const size_t bytes = strcspn(at, " ");
        (void)snprintf(words[argc], ARGUMENT_BYTES, "%.*s", (int)bytes, at);
        argv[argc] = words[argc];
        at += bytes + (at[bytes] == ' ');
    }
    return tsr_config_parse(argc, argv, config);
}

static void values_and_units_are_read(void **state)
{
    (void)state;
    tsr_config c;
    ASSERT_STATUS(TSR_OK, parse("tessera run dir --chat hi --max-model-len 32K --memory 24GiB "
                                "--temperature 0.5 --seed 7 --stop a --stop b --ignore-eos",
                                &c));
    assert_string_equal(c.folder, "dir");
    assert_string_equal(c.chat, "hi");
    assert_int_equal(c.max_model_len, 32768);
    assert_int_equal(c.memory, 24LL << 30);
    assert_true(c.temperature == 0.5);
    assert_true(isnan(c.top_p));
    assert_true(c.has_seed && c.seed == 7);
    assert_int_equal(c.stop.count, 2);
    assert_true(c.ignore_eos);
    ASSERT_STATUS(TSR_OK, parse("tessera score dir --memory 2.5G", &c));
    assert_int_equal(c.memory, 2500000000LL);
    ASSERT_STATUS(TSR_OK, parse("tessera score dir --max-model-len 25.6k", &c));
    assert_int_equal(c.max_model_len, 25600);
    assert_false(c.has_seed);
}

static void a_server_has_its_options(void **state)
{
    (void)state;
    tsr_config c;
    ASSERT_STATUS(TSR_OK, parse("tessera serve dir", &c));
    assert_string_equal(c.host, "127.0.0.1");
    assert_int_equal(c.port, 8000);
    assert_int_equal(c.ranks, 0);
    assert_int_equal(c.api_key.count, 0);
    ASSERT_STATUS(TSR_OK, parse("tessera serve dir --port 0 --api-key one --api-key two "
                                "--served-model-name m --ranks 8 --max_queue 3",
                                &c));
    assert_int_equal(c.port, 0);
    assert_int_equal(c.api_key.count, 2);
    assert_string_equal(c.api_key.items[1], "two");
    assert_int_equal(c.served_model_name.count, 1);
    assert_int_equal(c.ranks, 8);
    assert_int_equal(c.max_queue, 3);
}

static void underscores_are_dashes(void **state)
{
    (void)state;
    tsr_config c;
    ASSERT_STATUS(TSR_OK, parse("tessera run dir --max_num_seqs=4 --prompt a_b", &c));
    assert_int_equal(c.max_num_seqs, 4);
    assert_string_equal(c.prompt, "a_b");
}

static void the_environment_stands_behind_the_command_line(void **state)
{
    (void)state;
    tsr_config c;
    assert_int_equal(setenv("TESSERA_MAX_NUM_SEQS", "9", 1), 0);
    ASSERT_STATUS(TSR_OK, parse("tessera run dir", &c));
    assert_int_equal(c.max_num_seqs, 9);
    ASSERT_STATUS(TSR_OK, parse("tessera run dir --max-num-seqs 4", &c));
    assert_int_equal(c.max_num_seqs, 4);
    assert_int_equal(setenv("TESSERA_MAX_NUM_SEQS", "none", 1), 0);
    ASSERT_STATUS(TSR_ERR_ARG, parse("tessera run dir", &c));
    assert_non_null(strstr(last_line, "TESSERA_MAX_NUM_SEQS"));
    assert_int_equal(unsetenv("TESSERA_MAX_NUM_SEQS"), 0);
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"tessera walk dir", "walk"},
        {"tessera run dir --max-model-length 3", "did you mean --max-model-len?"},
        {"tessera run dir --zzzzzzzzzzzz", "--zzzzzzzzzzzz"},
        {"tessera run dir --top-p 1.5", "--top-p 1.5"},
        {"tessera run dir --max-num-seqs 1.5", "--max-num-seqs 1.5"},
        {"tessera run dir --max-num-seqs 0", "--max-num-seqs 0"},
        {"tessera run dir --max-num-seqs 5q", "--max-num-seqs 5q"},
        {"tessera run dir --activations some", "auto|declared|weight-only"},
        {"tessera run dir --backend abacus", "auto|cuda|cpu"},
        {"tessera run dir --activations-of abacus", "h100|h200"},
        {"tessera run dir --chat", "needs a value"},
        {"tessera run dir other", "other"},
        {"tessera run", "folder"},
        {"tessera inspect dir --chat hi", "--chat"},
        {"tessera serve dir --port 65536", "--port 65536"},
        {"tessera serve dir --api-key=", "--api-key"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_config c = {.max_tokens = 77};
        ASSERT_STATUS(TSR_ERR_ARG, parse(cases[i][0], &c));
        assert_int_equal(c.max_tokens, 77);
        if (strstr(last_line, cases[i][1]) == NULL)
            fail_msg("%s: said \"%s\"", cases[i][0], last_line);
    }
}

/* A target is known to every option once it has a row. */
static void every_target_is_a_choice_and_in_the_help(void **state)
{
    (void)state;
    char help[16384] = {0};
    char line[256];
    FILE *out = fmemopen(help, sizeof(help), "w");
    assert_non_null(out);
    tsr_config_help(TSR_COMMAND_PLAN, out);
    assert_int_equal(fclose(out), 0);

    size_t count = 0;
    for (const char *name; (name = tsr_target_choice(count)) != NULL; count++) {
        tsr_config c;
        tsr_plan_request request;
        (void)snprintf(line, sizeof(line), "tessera plan dir --target %s --activations-of %s", name,
                       name);
        ASSERT_STATUS(TSR_OK, parse(line, &c));
        ASSERT_STATUS(TSR_OK,
                      tsr_plan_request_read(&c, tsr_backend_of("auto"), c.target, 1, &request));
        assert_ptr_equal(request.target, tsr_target_find(name));
        assert_ptr_equal(request.activations_of, tsr_target_find(name));
        assert_non_null(strstr(help, name));
    }
    assert_true(count >= 4);
}

/* What was not asked for is planned for the device that would compute. */
static void a_plan_is_for_the_backend_unless_a_target_is_named(void **state)
{
    (void)state;
    tsr_config c;
    tsr_plan_request request;
    ASSERT_STATUS(TSR_OK, parse("tessera plan dir", &c));
    ASSERT_STATUS(TSR_OK, tsr_plan_request_read(&c, tsr_backend_of("auto"), c.target, 1, &request));
    const tsr_target *here = tsr_target_find(tsr_backend_of("auto")->target());
    assert_non_null(here);
    assert_ptr_equal(request.target, here);
    ASSERT_STATUS(TSR_OK, tsr_plan_request_read(&c, tsr_backend_of("auto"), "24GiB", 1, &request));
    assert_ptr_equal(request.target, here);
    assert_int_equal(request.memory_bytes, 24LL << 30);
    ASSERT_STATUS(TSR_ERR_ARG,
                  tsr_plan_request_read(&c, tsr_backend_of("auto"), "abacus", 1, &request));
    assert_non_null(strstr(last_line, "--target abacus: expected one of cpu|h100|h200|b200"));
    for (size_t i = 0; tsr_backend_choice(i) != NULL; i++) {
        const tsr_backend *backend = tsr_backend_of(tsr_backend_choice(i));
        assert_non_null(backend);
        if (backend->here())
            assert_non_null(tsr_target_find(backend->target()));
    }
    assert_null(tsr_backend_of("abacus"));
}

/* Several ranks compute on GPUs when each has one, or where that was asked for as many as share
 * one. */
static void ranks_without_a_gpu_each_compute_on_the_host(void **state)
{
    (void)state;
    const tsr_backend_ranks none = {.ranks = 4, .on_card = 0, .allowed = 1};
    const tsr_backend_ranks shared = {
        .ranks = 4, .on_card = 2, .allowed = 1, .crowd = "rank 1 and rank 2 meet"};
    const tsr_backend_ranks asked = {.ranks = 4, .on_card = 2, .allowed = 2};
    const tsr_backend_ranks each = {.ranks = 4, .on_card = 1, .allowed = 1};
    const tsr_backend *cuda = tsr_backend_of("cuda");
    assert_true(tsr_backend_find("auto", &none)->host);
    assert_true(tsr_backend_find("auto", &shared)->host);
    ASSERT_STATUS(TSR_ERR_DEVICE, tsr_backend_check(cuda, &none));
    assert_non_null(strstr(last_line, "--backend cuda: of 4 ranks not every one sees a GPU"));
    ASSERT_STATUS(TSR_ERR_DEVICE, tsr_backend_check(cuda, &shared));
    assert_non_null(strstr(last_line, "--backend cuda: rank 1 and rank 2 meet; "));
    assert_non_null(strstr(last_line, "--ranks-per-gpu 2"));
    ASSERT_STATUS(TSR_OK, tsr_backend_check(tsr_backend_of("cpu"), &shared));
    assert_non_null(strstr(last_line, "rank 1 and rank 2 meet: all ranks compute on CPUs; "));
    ASSERT_STATUS(TSR_OK, tsr_backend_check(cuda, &asked));
    ASSERT_STATUS(TSR_OK, tsr_backend_check(cuda, &each));
    ASSERT_STATUS(TSR_OK, tsr_backend_check(tsr_backend_of("cpu"), &none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_and_units_are_read),
        cmocka_unit_test(a_server_has_its_options),
        cmocka_unit_test(underscores_are_dashes),
        cmocka_unit_test(the_environment_stands_behind_the_command_line),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(every_target_is_a_choice_and_in_the_help),
        cmocka_unit_test(a_plan_is_for_the_backend_unless_a_target_is_named),
        cmocka_unit_test(ranks_without_a_gpu_each_compute_on_the_host),
    };
    tsr_log_set_sink(keep_line, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
