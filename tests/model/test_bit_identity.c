/*
 * A position's logits depend on its own sequence alone. The reference is one rank, one thread, the
 * plain instruction set, each sequence by itself and whole; everything else must give its bits.
 */
#include "tests/model/safetensors_edit.h"
#include "tests/model/served.h"
#include "tests/test.h"

#include "proto/plan.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* Between them: every format, shared experts, expert groups, biases, dense layers, a tied head, an
 * FP8 cache. */
static const char *const fixtures[] = {"qwen3-mixed",        "qwen3-fp8-block",  "qwen3-fp8-pc-pt",
                                       "glm4-mixed",         "glm4-air-mixed",   "qwen3-nvfp4-awq",
                                       "qwen3-nvfp4-kv-fp8", "qwen3-dense-mixed"};
enum { FIXTURES = sizeof(fixtures) / sizeof(fixtures[0]), OTHERS = 3, OTHER_TOKENS = 17 };

/* One fixture with its reference. */
typedef struct subject {
    char folder[PATH_MAX];
    served_expected e; /* for its tokens */
    served_sequence reference[2];
} subject;

static subject *subjects; /* [FIXTURES] */

static int make_subjects(void **state)
{
    (void)state;
    subjects = calloc(FIXTURES, sizeof(*subjects));
    assert_non_null(subjects);
    for (int f = 0; f < FIXTURES; f++) {
        subject *s = &subjects[f];
        edit_path(TSR_TEST_DATA, fixtures[f], sizeof(s->folder), s->folder);
        s->e = served_expectation(s->folder, SERVED_DECLARED);
        for (int i = 0; i < 2; i++)
            s->reference[i] =
                (served_sequence){.tokens = s->e.tokens[i], .count = s->e.count[i], .start = i};
        served(&(served_setup){.folder = s->folder, .mode = SERVED_DECLARED},
               (served_device){.isa = TSR_CPU_PLAIN}, s->reference, 2);
    }
    return 0;
}

static int free_subjects(void **state)
{
    (void)state;
    for (int f = 0; f < FIXTURES; f++) {
        served_free(subjects[f].reference, 2);
        served_expected_free(&subjects[f].e);
    }
    free(subjects);
    return 0;
}

static served_sequence sequence_of(const subject *s, int index)
{
    return (served_sequence){.tokens = s->e.tokens[index], .count = s->e.count[index]};
}

static void same_as_reference(const subject *s, const served_sequence *sequences, const char *what)
{
    for (int i = 0; i < 2; i++) {
        char line[PATH_MAX + 128];
        (void)snprintf(line, sizeof(line), "%s, sequence %d, %s", s->folder, i, what);
        served_same_bits(line, s->reference[i].logits, sequences[i].logits,
                         (size_t)s->e.count[i] * (size_t)s->e.vocab);
    }
}

static void any_number_of_ranks_gives_the_same_bits(void **state)
{
    (void)state;
    static const int32_t ranks[] = {2, 3, 4, 5, 8};
    for (int f = 0; f < FIXTURES; f++) {
        for (size_t r = 0; r < sizeof(ranks) / sizeof(ranks[0]); r++) {
            const subject *s = &subjects[f];
            served_sequence sequences[2] = {sequence_of(s, 0), sequence_of(s, 1)};
            sequences[0].rank = ranks[r] - 1;
            sequences[0].start = 1; /* an idle step first */
            sequences[1].rank = 1;
            sequences[1].start = 1;
            served(&(served_setup){.folder = s->folder,
                                   .mode = SERVED_DECLARED,
                                   .ranks = ranks[r],
                                   .exchange_tokens = 7}, /* four rounds for 24 tokens */
                   (served_device){.isa = TSR_CPU_PLAIN}, sequences, 2);
            char what[32];
            (void)snprintf(what, sizeof(what), "%d ranks", ranks[r]);
            same_as_reference(s, sequences, what);
            served_free(sequences, 2);
        }
    }
}

static void any_chunking_gives_the_same_bits(void **state)
{
    (void)state;
    static const int32_t chunks[] = {1, 7, 16};
    for (int f = 0; f < FIXTURES; f++) {
        for (size_t c = 0; c < sizeof(chunks) / sizeof(chunks[0]); c++) {
            const subject *s = &subjects[f];
            served_sequence sequences[2] = {sequence_of(s, 0), sequence_of(s, 1)};
            sequences[0].chunk = chunks[c];
            sequences[1].chunk = chunks[c];
            sequences[1].start = 1;
            served(&(served_setup){.folder = s->folder, .mode = SERVED_DECLARED},
                   (served_device){.isa = TSR_CPU_PLAIN}, sequences, 2);
            char what[32];
            (void)snprintf(what, sizeof(what), "chunks of %d", chunks[c]);
            same_as_reference(s, sequences, what);
            served_free(sequences, 2);
        }
    }
}

static void company_in_the_batch_changes_no_bit(void **state)
{
    (void)state;
    for (int f = 0; f < FIXTURES; f++) {
        const subject *s = &subjects[f];
        int32_t tokens[OTHERS][OTHER_TOKENS];
        served_sequence sequences[2 + OTHERS] = {sequence_of(s, 0), sequence_of(s, 1)};
        sequences[1].chunk = 5;
        for (int o = 0; o < OTHERS; o++) {
            for (int t = 0; t < OTHER_TOKENS; t++)
                tokens[o][t] = (o * 131 + t * 29 + 3) % s->e.vocab;
            sequences[2 + o] = (served_sequence){
                .tokens = tokens[o], .count = OTHER_TOKENS, .start = o, .chunk = 3 * o};
        }
        served(&(served_setup){.folder = s->folder, .mode = SERVED_DECLARED},
               (served_device){.isa = TSR_CPU_PLAIN}, sequences, 2 + OTHERS);
        same_as_reference(s, sequences, "with others");
        served_free(sequences, 2 + OTHERS);
    }
}

static bool processor_has(tsr_cpu_isa isa)
{
    tsr_device *device = NULL;
    const bool has = tsr_device_open_cpu(1, isa, &device) == TSR_OK;
    tsr_device_close(device);
    return has;
}

static void any_instruction_set_and_thread_count_gives_the_same_bits(void **state)
{
    (void)state;
    static const served_device devices[] = {
        {TSR_CPU_PLAIN, 3}, {TSR_CPU_AVX2, 1}, {TSR_CPU_AVX512, 1}, {TSR_CPU_AUTO, 2}};
    for (size_t d = 0; d < sizeof(devices) / sizeof(devices[0]); d++) {
        if (!processor_has(devices[d].isa)) {
            print_message("instruction set %d is not on this processor\n", (int)devices[d].isa);
            continue;
        }
        for (int f = 0; f < FIXTURES; f++) {
            const subject *s = &subjects[f];
            served_sequence sequences[2] = {sequence_of(s, 0), sequence_of(s, 1)};
            served(&(served_setup){.folder = s->folder, .mode = SERVED_DECLARED}, devices[d],
                   sequences, 2);
            char what[64];
            (void)snprintf(what, sizeof(what), "instruction set %d, %d threads",
                           (int)devices[d].isa, devices[d].threads);
            same_as_reference(s, sequences, what);
            served_free(sequences, 2);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_ranks_gives_the_same_bits),
        cmocka_unit_test(any_chunking_gives_the_same_bits),
        cmocka_unit_test(company_in_the_batch_changes_no_bit),
        cmocka_unit_test(any_instruction_set_and_thread_count_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, make_subjects, free_subjects);
}
