/*
 * The same logits everywhere: `tessera score` writes a file that holds nothing of the run, so that
 * any two runs can be compared byte by byte: ranks as processes or threads, spreads, chunks, batch
 * sizes, threads, instruction sets, and three ways of declaring one checkpoint.
 */
#include "tests/launch/command.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NVFP4 TSR_TEST_DATA "/qwen3-nvfp4"
#define MIXED TSR_TEST_DATA "/glm4-mixed-keys"

/* Seven sequences of different lengths: more than some worlds have ranks, fewer than others. */
static void write_tokens(const char *path)
{
    static const int lengths[] = {1, 5, 17, 33, 2, 64, 24};
    uint32_t state = 12345;
    FILE *out = fopen(path, "w");

    assert_non_null(out);
    (void)fputs("[", out);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        (void)fputs(i > 0 ? ",[" : "[", out);
        for (int t = 0; t < lengths[i]; t++) {
            state = state * 1664525U + 1013904223U;
            (void)fprintf(out, "%s%u", t > 0 ? "," : "", (state >> 16) % 512U);
        }
        (void)fputs("]", out);
    }
    (void)fputs("]\n", out);
    assert_int_equal(fclose(out), 0);
}

/* Scores with the given launcher and options, and returns the file's bytes. */
static char *score(const char *launcher, const char *model, const char *options, size_t *ret_bytes)
{
    (void)remove(scratch_path("logits.safetensors"));
    const int code =
        run_command_line("%s %s score %s --tokens %s --out %s %s", launcher, TSR_PROGRAM, model,
                         scratch_path("tokens.json"), scratch_path("logits.safetensors"), options);
    if (code != 0)
        assert_said("err", "exit code 0");
    return read_whole(scratch_path("logits.safetensors"), ret_bytes);
}

typedef struct variant {
    int mpi_ranks; /* 0: no mpirun */
    const char *options;
} variant;

static void compare(const char *model, const variant *variants, size_t count)
{
    size_t bytes = 0;
    char *wanted = score("", model, "--cpu-isa plain --threads 1", &bytes);

    for (size_t i = 0; i < count; i++) {
        size_t other_bytes = 0;
        const int ranks = variants[i].mpi_ranks;
        char *other =
            score(ranks > 0 ? mpirun(ranks) : "", model, variants[i].options, &other_bytes);
        if (other_bytes != bytes || memcmp(other, wanted, bytes) != 0)
            fail_msg("%s: other bits with %d MPI ranks and %s", model, ranks, variants[i].options);
        free(other);
    }
    free(wanted);
    print_message("%s: %zu runs, %zu bytes of logits each, no bit differs\n", model, count + 1,
                  bytes);
}

static void ranks_do_not_change_a_bit(void **state)
{
    (void)state;
    static const variant variants[] = {
        {1, ""},
        {2, "--spread first"},
        {3, "--spread round-robin"},
        {4, ""},
        {5, "--prefill-chunk 3"},
        {8, "--exchange-tokens 5"},
        {0, "--local-ranks 2"},
        {0, "--local-ranks 3 --spread round-robin"},
        {0, "--local-ranks 4 --spread first"},
        {0, "--local-ranks 5"},
        {0, "--local-ranks 8 --prefill-chunk 7"},
    };
    compare(MIXED, variants, sizeof(variants) / sizeof(variants[0]));
}

static void batches_chunks_threads_and_instruction_sets_do_not_change_a_bit(void **state)
{
    (void)state;
    static const variant variants[] = {
        {0, "--prefill-chunk 1"},
        {0, "--max-num-batched-tokens 6 --max-num-seqs 3"},
        {0, "--max-num-seqs 1"},
        {0, "--block-size 1"},
        {0, "--block-size 64 --exchange-tokens 1"},
        {0, "--threads 2"},
        {0, "--threads 5"},
        {0, "--cpu-isa auto --threads 3 --local-ranks 2"},
    };
    compare(NVFP4, variants, sizeof(variants) / sizeof(variants[0]));
}

/* A copy of the checkpoint with the two JSON files of another declaration. */
static void declare(const char *how)
{
    assert_int_equal(run_command_line("rm -rf %s && cp -rL %s %s && cp %s/%s/*.json %s",
                                      scratch_path("declared"), NVFP4, scratch_path("declared"),
                                      NVFP4, how, scratch_path("declared")),
                     0);
}

static void three_declarations_of_one_checkpoint_give_the_same_bits(void **state)
{
    (void)state;
    size_t bytes = 0;
    char *wanted = score("", NVFP4, "", &bytes);

    static const char *const ways[] = {"as-block", "as-keys"};
    for (size_t i = 0; i < 2; i++) {
        size_t other_bytes = 0;
        declare(ways[i]);
        char *other = score("", scratch_path("declared"), "", &other_bytes);
        assert_int_equal(other_bytes, bytes);
        assert_memory_equal(other, wanted, bytes);
        free(other);
    }
    free(wanted);
}

static int prepare(void **state)
{
    (void)state;
    write_tokens(scratch_path("tokens.json"));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_do_not_change_a_bit),
        cmocka_unit_test(batches_chunks_threads_and_instruction_sets_do_not_change_a_bit),
        cmocka_unit_test(three_declarations_of_one_checkpoint_give_the_same_bits),
    };
    return cmocka_run_group_tests(tests, prepare, NULL);
}
