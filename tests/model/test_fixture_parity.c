/*
 * Every model in tests/data with expected.safetensors must give the logits that Hugging Face
 * transformers gives in float32 over the same dequantized weights, in each activation mode.
 *
 * Limits, of the largest logit of the sequence: 1e-4 where activations are exact. Float32 sums in
 * another order differ by about sqrt(128) * 2^-24 a layer, 7e-7; the rest is room for other
 * exponentials. 1e-3 where activations are quantized: small values that round the other way move
 * the result by up to 3e-4; an activation mode that is wrong moves it by more than 1e-2.
 */
#include "tests/model/safetensors_edit.h"
#include "tests/model/served.h"
#include "tests/test.h"

#include "runtime/base/file.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double limit_of_mode[SERVED_MODES] = {1e-4, 1e-3, 1e-3};

static double distance_of(const char *folder, served_mode mode)
{
    served_expected e = served_expectation(folder, mode);
    served_sequence sequences[2];
    for (int i = 0; i < 2; i++)
        sequences[i] = (served_sequence){.tokens = e.tokens[i], .count = e.count[i], .start = i};
    served(&(served_setup){.folder = folder, .mode = mode}, (served_device){0}, sequences, 2);

    double worst = 0;
    for (int i = 0; i < 2; i++) {
        const size_t values = (size_t)e.count[i] * (size_t)e.vocab;
        const double d = served_distance(sequences[i].logits, e.logits[i], values);
        worst = d > worst ? d : worst;
    }
    served_free(sequences, 2);
    served_expected_free(&e);
    return worst;
}

static bool has_expectation(const char *name, char folder[PATH_MAX])
{
    char path[PATH_MAX];
    if (name[0] == '.')
        return false;
    edit_path(TSR_TEST_DATA, name, PATH_MAX, folder);
    edit_path(folder, "expected.safetensors", sizeof(path), path);
    return tsr_file_exists(path);
}

/* All are measured and printed before the first failure ends the test. */
static void compare_all(served_mode mode)
{
    struct dirent **entries = NULL;
    const int count = scandir(TSR_TEST_DATA, &entries, NULL, alphasort);
    assert_true(count > 0);

    int compared = 0;
    int beyond = 0;
    for (int i = 0; i < count; i++) {
        char folder[PATH_MAX];
        if (has_expectation(entries[i]->d_name, folder)) {
            const double d = distance_of(folder, mode);
            print_message("%-22s %-12s %.1e\n", entries[i]->d_name, served_mode_name(mode), d);
            compared++;
            beyond += d <= limit_of_mode[mode] ? 0 : 1;
        }
        free(entries[i]);
    }
    free(entries);
    assert_true(compared >= 16);
    assert_int_equal(beyond, 0);
}

static void weight_only_logits_are_those_of_transformers(void **state)
{
    (void)state;
    compare_all(SERVED_WEIGHT_ONLY);
}

static void declared_logits_are_those_of_transformers(void **state)
{
    (void)state;
    compare_all(SERVED_DECLARED);
}

static void hopper_logits_are_those_of_transformers(void **state)
{
    (void)state;
    compare_all(SERVED_HOPPER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weight_only_logits_are_those_of_transformers),
        cmocka_unit_test(declared_logits_are_those_of_transformers),
        cmocka_unit_test(hopper_logits_are_those_of_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
