/*
 * What a command writes: never over what is read, never half a line, nothing that was there lost
 * before there is something in its place, and no reader of a pipe waited for without an end.
 */
#include "tests/launch/command.h"
#include "tests/test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEMO TSR_TEST_DATA "/demo-mixed"

enum { OLD_LINES = 1527, MANY = 600, PATH_BYTES = 256 };

/* Paths that outlive those of scratch_path. */
static char question[PATH_BYTES];
static char answers[PATH_BYTES];

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void put_requests(int count, int tokens)
{
    FILE *file = fopen(question, "w");
    assert_non_null(file);
    for (int i = 0; i < count; i++)
        (void)fprintf(file,
                      "{\"custom_id\":\"%d\",\"body\":{\"prompt\":\"a b\",\"max_tokens\":%d,"
                      "\"ignore_eos\":true}}\n",
                      i, tokens);
    assert_int_equal(fclose(file), 0);
}

/* What an earlier run may have left, which is none of this one's. */
static void put_old(void)
{
    FILE *file = fopen(answers, "w");
    assert_non_null(file);
    for (int i = 0; i < OLD_LINES; i++)
        (void)fputs("old\n", file);
    assert_int_equal(fclose(file), 0);
}

/* Counts whole lines, and those with `text`; fails on half a line at the end. */
static size_t count_lines(const char *path, const char *text, size_t *ret_with)
{
    size_t bytes = 0;
    char *all = read_whole(path, &bytes);
    size_t lines = 0;
    size_t with = 0;

    assert_true(bytes == 0 || all[bytes - 1] == '\n');
    for (char *line = all; *line != '\0'; lines++) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        with += text != NULL && strstr(line, text) != NULL;
        line = end + 1;
    }
    free(all);
    if (ret_with != NULL)
        *ret_with = with;
    return lines;
}

static void assert_old_stays(void)
{
    size_t old = 0;
    assert_int_equal(count_lines(answers, "old", &old), OLD_LINES);
    assert_int_equal(old, OLD_LINES);
}

static int run_batch(const char *before, const char *options)
{
    return run_command_line("%s %s run %s --input %s --output %s %s", before, TSR_PROGRAM, DEMO,
                            question, answers, options);
}

static void no_file_of_the_checkpoint_is_written(void **state)
{
    (void)state;
    char folder[PATH_BYTES];
    char link[PATH_BYTES];
    char file[PATH_BYTES + 32];
    (void)snprintf(folder, sizeof(folder), "%s/model", scratch_folder());
    (void)snprintf(link, sizeof(link), "%s/link", scratch_folder());
    assert_int_equal(run_command_line("cp -r %s %s", DEMO, folder), 0);
    put_requests(1, 1);

    static const char *const names[] = {"tokenizer.json", "config.json", "chat_template.jinja",
                                        "grading.jsonl", "added_tokens.json"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)snprintf(file, sizeof(file), "%s/%s", folder, names[i]);
        assert_int_equal(run_command_line("%s run %s/../model --input %s --output %s", TSR_PROGRAM,
                                          folder, question, file),
                         2);
        assert_said("err", names[i]);
        assert_error_lines(1);
    }
    assert_int_not_equal(access(file, F_OK), 0); /* the last was not there */
    (void)snprintf(file, sizeof(file), "%s/tokenizer.json", folder);
    assert_int_equal(symlink(file, link), 0);
    assert_int_equal(
        run_command_line("%s run %s --input %s --output %s", TSR_PROGRAM, folder, question, link),
        2);
    assert_said("err", "is tokenizer.json of the checkpoint");
    assert_int_equal(run_command_line("diff -r %s %s", DEMO, folder), 0);
}

/* A folder of links, as a download cache makes it. */
static void nor_is_what_a_link_in_the_folder_leads_to(void **state)
{
    (void)state;
    put_requests(1, 1);
    assert_int_equal(run_command_line("sh -c 'cd %s && cp -r %s blobs && mkdir links && "
                                      "ln -s $PWD/blobs/* links/'",
                                      scratch_folder(), DEMO),
                     0);
    assert_int_equal(run_command_line("%s run %s/links --input %s --output %s/blobs/tokenizer.json",
                                      TSR_PROGRAM, scratch_folder(), question, scratch_folder()),
                     2);
    assert_said("err", "is tokenizer.json of the checkpoint");
}

static void a_start_that_fails_leaves_what_was_there(void **state)
{
    (void)state;
    size_t bytes = 0;
    char *model = read_whole(DEMO "/model.safetensors", &bytes);
    model[tensor_begin(model, "model.layers.0.mlp.experts.0.down_proj.weight_scale")] = 0x7f;
    assert_int_equal(run_command_line("cp -r %s %s/nan", DEMO, scratch_folder()), 0);
    FILE *file = fopen(scratch_path("nan/model.safetensors"), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(model, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    free(model);
    put_requests(3, 1);

    put_old();
    assert_int_equal(run_command_line("%s run %s/nan --input %s --output %s", TSR_PROGRAM,
                                      scratch_folder(), question, answers),
                     3);
    assert_old_stays();
    assert_int_not_equal(access(scratch_path("answers.partial"), F_OK), 0);
    assert_int_equal(remove(answers), 0);
    assert_int_equal(run_command_line("%s run %s/nan --input %s --output %s", TSR_PROGRAM,
                                      scratch_folder(), question, answers),
                     3);
    assert_int_not_equal(access(answers, F_OK), 0); /* and nothing where nothing was */
}

static void answers_take_the_place_of_old_ones_when_they_are_whole(void **state)
{
    (void)state;
    put_requests(3, 1);
    put_old();
    assert_int_equal(chmod(answers, 0600), 0);
    assert_int_equal(run_batch("", ""), 0);
    assert_int_equal(count_lines(answers, NULL, NULL), 3);
    assert_int_not_equal(access(scratch_path("answers.partial"), F_OK), 0);
    struct stat there;
    assert_int_equal(stat(answers, &there), 0);
    assert_int_equal(there.st_mode & 0777, 0600);
}

static void assert_all_answered_once(int count)
{
    char *seen = calloc((size_t)count, 1);
    size_t lines = 0;
    FILE *in = fopen(answers, "r");
    assert_non_null(in);
    assert_non_null(seen);
    for (json_t *line; (line = json_loadf(in, JSON_DISABLE_EOF_CHECK, NULL)) != NULL; lines++) {
        const char *id = json_string_value(json_object_get(line, "custom_id"));
        assert_non_null(id);
        const long at = strtol(id, NULL, 10);
        assert_in_range(at, 0, count - 1);
        assert_true(json_is_null(json_object_get(line, "error")));
        assert_int_equal(seen[at]++, 0);
        json_decref(line);
    }
    assert_int_equal(lines, count);
    (void)fclose(in);
    free(seen);
}

/* While the run waits for more lines, a folder takes the output's place. */
static void answers_that_cannot_take_their_place_stay_beside_it(void **state)
{
    (void)state;
    put_requests(3, 1);
    put_old();
    assert_int_equal(
        run_command_line("{ { cat %s; until [ -e %s.partial ]; do sleep 0.02; done; rm %s; "
                         "mkdir %s; } | %s run %s --input /dev/stdin --output %s; }",
                         question, answers, answers, answers, TSR_PROGRAM, DEMO, answers),
        1);
    assert_said("err", "Is a directory");
    assert_int_equal(rmdir(answers), 0);
    assert_int_equal(count_lines(scratch_path("answers.partial"), NULL, NULL), 3);
    assert_int_equal(run_batch("", "--resume"), 0);
    assert_all_answered_once(3);
}

/* `ulimit -f` counts blocks of 512 bytes in some shells and of 1024 in others. */
static void a_limit_on_files_is_an_error_and_cuts_no_line(void **state)
{
    (void)state;
    put_requests(MANY, 1);
    (void)remove(answers);
    assert_int_equal(run_batch("ulimit -f 40;", ""), 1);
    assert_said("err", "cannot be written: File too large; the answers so far are kept");
    assert_error_lines(1);
    assert_in_range(count_lines(answers, NULL, NULL), 10, MANY - 1);
    put_old();
    assert_int_equal(run_batch("ulimit -f 40;", ""), 1);
    assert_said("err", "answers.partial");
    assert_old_stays();
    assert_in_range(count_lines(scratch_path("answers.partial"), NULL, NULL), 10, MANY - 1);
    assert_int_equal(remove(scratch_path("answers.partial")), 0);
}

/* Every custom_id from 0 has one line, and no other line is there. */
static void a_resumed_run_answers_what_is_missing(void **state)
{
    (void)state;
    (void)remove(answers);
    put_requests(MANY, 1);
    assert_int_equal(run_batch("ulimit -f 40;", ""), 1);
    const size_t first = count_lines(answers, NULL, NULL);
    size_t errors = 0;

    /* a line cut short, as a machine that fails leaves it, behind an error, which is no answer */
    FILE *file = fopen(answers, "a");
    assert_non_null(file);
    (void)fputs(
        "{\"id\":\"x\",\"custom_id\":\"599\",\"response\":null,\"error\":{\"code\":\"y\"}}\n"
        "{\"id\":\"batch_req_9\",\"custom_id\":\"598\",\"resp",
        file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(run_command_line("cp %s %s/before", answers, scratch_folder()), 0);
    assert_int_equal(run_batch("ulimit -f 80;", "--resume"), 1);
    assert_int_equal(run_command_line("cmp %s %s/before", answers, scratch_folder()), 0);
    assert_true(count_lines(scratch_path("answers.partial"), "\"error\":{", &errors) > first);
    assert_int_equal(errors, 0);
    assert_int_equal(run_batch("", "--resume"), 0);
    assert_said("err", "600 lines, 0 of them errors, ");
    assert_said("err", " answered before");
    assert_all_answered_once(MANY);
    assert_int_not_equal(access(scratch_path("answers.partial"), F_OK), 0);

    assert_int_equal(run_batch("", "--resume"), 0);
    assert_said("err", "600 lines, 0 of them errors, 600 answered before");
    assert_all_answered_once(MANY);
}

static void only_answers_are_resumed(void **state)
{
    (void)state;
    put_requests(1, 1);
    put(answers, "{\"id\":\"1\",\"custom_id\":\"7\",\"response\":{},\"error\":null}\nmy thesis\n");
    assert_int_equal(run_batch("", "--resume"), 2);
    assert_said("err", "line 2 of ");
    assert_error_lines(1);
    assert_int_equal(count_lines(answers, "thesis", NULL), 2);
    assert_int_equal(run_command_line("%s run %s --input %s --output /dev/null --resume",
                                      TSR_PROGRAM, DEMO, question),
                     2);
    assert_said("err", "--resume needs a file");
    (void)remove(answers);
    assert_int_equal(run_batch("", "--resume"), 0); /* there may be nothing yet */
    assert_int_equal(count_lines(answers, NULL, NULL), 1);
}

static void a_pipe_that_nobody_opens_is_named_on_any_number_of_ranks(void **state)
{
    (void)state;
    put_requests(3, 1);
    assert_int_equal(mkfifo(scratch_path("pipe"), 0600), 0);
    assert_int_equal(run_command_line("%s run %s --input %s --output %s/pipe --step-timeout 1",
                                      TSR_PROGRAM, DEMO, question, scratch_folder()),
                     8);
    assert_said("err", "/pipe: nobody has opened it for 1000 ms");
    assert_int_equal(run_command_line("%s %s run %s --input %s --output %s/pipe --step-timeout 1",
                                      mpirun(3), TSR_PROGRAM, DEMO, question, scratch_folder()),
                     8);
    assert_said("err", "/pipe: nobody has opened it for 1000 ms");
    assert_error_lines(1);
}

static void a_reader_that_stops_or_leaves_is_named(void **state)
{
    (void)state;
    put_requests(MANY, 2);
    const char *folder = scratch_folder();
    assert_int_equal(run_command_line("{ (exec 3<%s/pipe; sleep 6) & %s run %s --input %s --output "
                                      "%s/pipe --local-ranks 2 --step-timeout 1; }",
                                      folder, TSR_PROGRAM, DEMO, question, folder),
                     8);
    assert_said("err", "/pipe: nobody has read from it for 1000 ms");
    assert_error_lines(1);
    assert_int_equal(run_command_line("{ head -c 1 %s/pipe & %s run %s --input %s --output %s/pipe "
                                      "--local-ranks 2; }",
                                      folder, TSR_PROGRAM, DEMO, question, folder),
                     1);
    assert_said("err", "/pipe: cannot be written: Broken pipe");
    assert_error_lines(1);
}

static void a_slow_reader_gets_every_line(void **state)
{
    (void)state;
    put_requests(MANY, 2);
    assert_int_equal(
        run_command_line("{ (exec 3<%s/pipe; sleep 2; cat <&3 >%s) & %s run %s --input "
                         "%s --output %s/pipe --local-ranks 2 --step-timeout 4 && wait; "
                         "}",
                         scratch_folder(), answers, TSR_PROGRAM, DEMO, question, scratch_folder()),
        0);
    assert_all_answered_once(MANY);
}

static void standard_output_is_an_output(void **state)
{
    (void)state;
    assert_int_equal(
        run_command_line("{ { %s run %s --prompt a --max-tokens 200 --ignore-eos; echo "
                         "$? >%s; } | head -c 1; exit $(cat %s); }",
                         TSR_PROGRAM, DEMO, answers, answers),
        1);
    assert_said("err", "standard output: cannot be written: Broken pipe");
    assert_int_equal(
        run_command_line("{ %s run %s --prompt a --max-tokens 2 >/dev/full; }", TSR_PROGRAM, DEMO),
        1);
    assert_said("err", "standard output: cannot be written: No space left on device");
    assert_int_equal(run_command_line("{ %s --version >/dev/full; }", TSR_PROGRAM), 1);
    assert_said("err", "standard output: cannot be written: No space left on device");
}

static void one_file_has_one_writer(void **state)
{
    (void)state;
    put_requests(4, 1900);
    for (int there = 0; there < 2; there++) {
        if (there)
            put_old();
        else
            (void)remove(answers);
        assert_int_equal(
            run_command_line("{ %s run %s --input %s --output %s 2>/dev/null & first=$!; "
                             "until [ -e %s%s ]; do sleep 0.02; done; "
                             "%s run %s --input %s --output %s; code=$?; kill -KILL $first; "
                             "wait $first; exit $code; }",
                             TSR_PROGRAM, DEMO, question, answers, answers, there ? ".partial" : "",
                             TSR_PROGRAM, DEMO, question, answers),
            1);
        assert_said("err", "another run is writing it");
    }
    assert_old_stays();
}

static int name_files(void **state)
{
    (void)state;
    (void)snprintf(question, sizeof(question), "%s/question", scratch_folder());
    (void)snprintf(answers, sizeof(answers), "%s/answers", scratch_folder());
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_file_of_the_checkpoint_is_written),
        cmocka_unit_test(nor_is_what_a_link_in_the_folder_leads_to),
        cmocka_unit_test(a_start_that_fails_leaves_what_was_there),
        cmocka_unit_test(answers_take_the_place_of_old_ones_when_they_are_whole),
        cmocka_unit_test(answers_that_cannot_take_their_place_stay_beside_it),
        cmocka_unit_test(a_limit_on_files_is_an_error_and_cuts_no_line),
        cmocka_unit_test(a_resumed_run_answers_what_is_missing),
        cmocka_unit_test(only_answers_are_resumed),
        cmocka_unit_test(a_pipe_that_nobody_opens_is_named_on_any_number_of_ranks),
        cmocka_unit_test(a_reader_that_stops_or_leaves_is_named),
        cmocka_unit_test(a_slow_reader_gets_every_line),
        cmocka_unit_test(standard_output_is_an_output),
        cmocka_unit_test(one_file_has_one_writer),
    };
    return cmocka_run_group_tests(tests, name_files, NULL);
}
