/*
 * The test of right: `tessera score` on every checkpoint with expected logits (Hugging Face
 * transformers in float32 over the same dequantized weights), in its three activation modes.
 *
 * Tolerances, relative to the largest logit of each position: 1e-4 with exact activations, where
 * only the order of float32 sums differs (two implementations agree to 2e-6); 1e-3 with quantized
 * activations, where a small value may round the other way (they agree to 3e-4).
 */
#include "tests/launch/command.h"
#include "tests/test.h"

#include "runtime/base/file.h"
#include "runtime/checkpoint/safetensors.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEQUENCES = 2, NAME_BYTES = 64, PATH_BYTES = 512, MAX_FIXTURES = 64 };

typedef struct mode {
    const char *name;
    const char *options;
    double tolerance;
} mode;

static const mode modes[] = {
    {"weight_only", "--activations weight-only", 1e-4},
    {"declared", "--activations declared", 1e-3},
    {"hopper", "--activations-of h200", 1e-3},
};

typedef struct tensors {
    tsr_file file;
    tsr_arena *memory;
    tsr_safetensors header;
} tensors;

static tensors open_tensors(const char *path)
{
    tensors t = {0};
    tsr_problems problems = {0};
    ASSERT_STATUS(TSR_OK, tsr_arena_open(1 << 20, &t.memory));
    ASSERT_STATUS(TSR_OK, tsr_safetensors_open(path, path, 0, t.memory, &problems, &t.header));
    ASSERT_STATUS(TSR_OK, tsr_file_open(path, &t.file));
    tsr_problems_close(&problems);
    return t;
}

static void close_tensors(tensors *t)
{
    tsr_file_close(&t->file);
    tsr_arena_close(t->memory);
}

typedef struct logits {
    const float *values; /* [positions, vocab] */
    size_t positions;
    size_t vocab;
} logits;

static logits read_logits(tensors *t, const char *name)
{
    logits read = {0};

    for (size_t i = 0; i < t->header.count && read.values == NULL; i++) {
        const tsr_tensor *tensor = &t->header.tensors[i];
        if (strcmp(tensor->name, name) != 0)
            continue;
        float *values = tsr_arena_alloc(t->memory, (size_t)tensor->bytes);
        assert_non_null(values);
        ASSERT_STATUS(TSR_OK,
                      tsr_file_read(&t->file, tensor->offset, (size_t)tensor->bytes, values));
        assert_int_equal(tensor->rank, 2);
        read = (logits){values, (size_t)tensor->shape[0], (size_t)tensor->shape[1]};
    }
    assert_true(read.positions > 0);
    return read;
}

/* Largest difference over the largest logit, of one position. */
static double difference_of(const float *wanted, const float *got, size_t vocab)
{
    double largest = 0;
    double difference = 0;

    for (size_t i = 0; i < vocab; i++) {
        const double d = fabs((double)wanted[i] - (double)got[i]);
        largest = fmax(largest, fabs((double)wanted[i]));
        difference = isnan(d) ? (double)INFINITY : fmax(difference, d);
    }
    assert_true(largest > 0);
    return difference / largest;
}

/* That of the worst position of both sequences. */
static double worst_difference(tensors *expected, tensors *given, const char *mode_name)
{
    double worst = 0;

    for (int s = 0; s < SEQUENCES; s++) {
        char name[NAME_BYTES];
        (void)snprintf(name, sizeof(name), "logits.%s.%d", mode_name, s);
        const logits wanted = read_logits(expected, name);
        (void)snprintf(name, sizeof(name), "logits.%d", s);
        const logits got = read_logits(given, name);
        assert_int_equal(got.positions, wanted.positions);
        assert_int_equal(got.vocab, wanted.vocab);

        for (size_t t = 0; t < wanted.positions; t++) {
            const size_t at = t * wanted.vocab;
            worst = fmax(worst, difference_of(wanted.values + at, got.values + at, wanted.vocab));
        }
    }
    return worst;
}

static bool check_fixture(const char *folder)
{
    char expected_path[PATH_BYTES];
    double worst[sizeof(modes) / sizeof(modes[0])] = {0};
    bool good = true;

    (void)snprintf(expected_path, sizeof(expected_path), "%s/%s/expected.safetensors",
                   TSR_TEST_DATA, folder);
    for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
        const int code =
            run_command_line("%s score %s/%s --tokens %s --out %s --local-ranks 2 --threads 1 %s",
                             TSR_PROGRAM, TSR_TEST_DATA, folder, expected_path,
                             scratch_path("given.safetensors"), modes[m].options);
        if (code != 0)
            assert_said("err", "exit code 0");
        tensors expected = open_tensors(expected_path);
        tensors given = open_tensors(scratch_path("given.safetensors"));
        worst[m] = worst_difference(&expected, &given, modes[m].name);
        good = good && worst[m] <= modes[m].tolerance;
        close_tensors(&given);
        close_tensors(&expected);
    }
    print_message("%-22s weight_only %.1e (limit 1e-4)  declared %.1e (1e-3)  hopper %.1e "
                  "(1e-3)%s\n",
                  folder, worst[0], worst[1], worst[2], good ? "" : "  TOO FAR");
    return good;
}

static void every_fixture_agrees_in_every_mode(void **state)
{
    (void)state;
    DIR *data = opendir(TSR_TEST_DATA);
    size_t checked = 0;
    size_t wrong = 0;

    assert_non_null(data);
    for (const struct dirent *entry; (entry = readdir(data)) != NULL;) {
        char path[PATH_BYTES];
        (void)snprintf(path, sizeof(path), "%s/%.200s/expected.safetensors", TSR_TEST_DATA,
                       entry->d_name);
        if (!tsr_file_exists(path))
            continue;
        checked++;
        wrong += !check_fixture(entry->d_name);
    }
    (void)closedir(data);
    assert_in_range(checked, 16, MAX_FIXTURES);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_fixture_agrees_in_every_mode)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
