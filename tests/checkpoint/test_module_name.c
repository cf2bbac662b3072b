/* Canonical names and the patterns of exclusion lists. */
#include "tests/test.h"

#include "runtime/checkpoint/module_name.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void names_get_one_spelling(void **state)
{
    static const struct {
        const char *spelled;
        const char *canonical;
    } rows[] = {
        {"model.layers.3.mlp.experts", "model.layers.3.mlp.experts"},
        {"language_model.model.layers.3.mlp.gate", "model.layers.3.mlp.gate"},
        {"model.language_model.layers.3.mlp.gate", "model.layers.3.mlp.gate"},
        {"language_model.layers.3.mlp.gate", "model.layers.3.mlp.gate"},
        {"layers.3.mlp.gate", "model.layers.3.mlp.gate"},
        {"language_model.lm_head", "lm_head"},
        {"model.language_model.embed_tokens", "model.embed_tokens"},
        {"embed_tokens", "model.embed_tokens"},
        {"norm", "model.norm"},
        {"norms", "norms"},
        {"lm_head.weight", "lm_head"},
        {"model.layers.3.self_attn.q_proj.weight", "model.layers.3.self_attn.q_proj"},
        {"model.layers.3.language_model.x", "model.layers.3.language_model.x"},
        {"language_model", "language_model"},
        {"language_model.", "language_model."},
        {"language_model.*", "*"},
        {"my_language_model.layers.3", "my_language_model.layers.3"},
        {"model.language_model.layers.1*", "model.layers.1*"},
        {"re:model\\.language_model\\.layers.*\\.weight", NULL},
        {".weight", ".weight"},
        {"", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char canonical[128];
        tsr_name_canonical_module(rows[i].spelled, canonical);
        assert_string_equal(rows[i].canonical != NULL ? rows[i].canonical : rows[i].spelled,
                            canonical);
    }
    char canonical[128];
    tsr_name_canonical("language_model.model.norm.weight", canonical);
    assert_string_equal("model.norm.weight", canonical);
}

static void layers_are_read_from_names(void **state)
{
    static const struct {
        const char *name;
        int32_t layer; /* -1: none */
        const char *rest;
    } rows[] = {
        {"model.layers.0.mlp.gate", 0, "mlp.gate"},
        {"model.layers.92", 92, ""},
        {"model.layers.10.x", 10, "x"},
        {"model.layers.", -1, NULL},
        {"model.layers.x", -1, NULL},
        {"model.layers.1x", -1, NULL},
        {"model.layers.01.x", -1, NULL},
        {"model.layers.99999999999999", -1, NULL},
        {"model.layer.1.x", -1, NULL},
        {"lm_head", -1, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int32_t layer = -1;
        const char *rest = NULL;
        assert_int_equal(rows[i].layer >= 0, tsr_name_layer(rows[i].name, &layer, &rest));
        assert_int_equal(rows[i].layer, layer);
        if (rows[i].rest != NULL)
            assert_string_equal(rows[i].rest, rest);
    }
}

static bool matches(const char *pattern, const char *name)
{
    char *copy = strdup(pattern);
    assert_non_null(copy);
    tsr_name_patterns *patterns = NULL;
    tsr_problems problems = {0};
    ASSERT_STATUS(TSR_OK, tsr_name_patterns_open(&copy, 1, "test", &problems, &patterns));
    size_t index = 7;
    const bool matched = tsr_name_patterns_match(patterns, name, &index);
    assert_int_equal(matched ? 0 : 7, index);
    tsr_name_patterns_close(patterns);
    free(copy);
    return matched;
}

static void patterns_match_names_and_ancestors_and_never_substrings(void **state)
{
    static const struct {
        const char *pattern;
        const char *name;
        bool matched;
    } rows[] = {
        {"model.layers.1.mlp.gate", "model.layers.1.mlp.gate", true},
        {"model.layers.1.mlp.gate", "model.layers.1.mlp.gate_up_proj", false},
        {"model.layers.1.mlp.gate", "model.layers.1.mlp.gate.inner", true},
        {"model.layers.1.mlp", "model.layers.1.mlp.experts.3.up_proj", true},
        {"model.layers.1", "model.layers.10.mlp", false},
        {"mlp.gate", "model.layers.1.mlp.gate", false},
        {"layers.1*", "model.layers.1.mlp", false},
        {"model.layers.1*", "model.layers.1.mlp", true},
        {"model.layers.1*", "model.layers.10.mlp", true},
        {"model.layers.1.*", "model.layers.10.mlp", false},
        {"model.layers.1.*", "model.layers.1", true},
        {"model.layers.1.*", "model.layers.1.mlp.gate", true},
        {"*.gate", "model.layers.1.mlp.gate", true},
        {"*.gate", "model.layers.1.mlp.gate_proj", false},
        {"*.mlp", "model.layers.1.mlp.experts", true},
        {"*.mlp.*", "model.layers.1.mlp", true},
        {"*attn*", "model.layers.1.self_attn.q_proj", true},
        {"*", "lm_head", true},
        {"lm_head", "lm_head", true},
        {"LM_HEAD", "lm_head", false},
        {"model.layers.?.mlp", "model.layers.3.mlp", true},
        {"model.layers.?.mlp", "model.layers.13.mlp", false},
        {"model.layers.[0-2].mlp", "model.layers.2.mlp", true},
        {"model.layers.[0-2].mlp", "model.layers.3.mlp", false},
        {"model.layers.[!0-2].mlp", "model.layers.3.mlp", true},
        {"model.layers.[!0-2].mlp", "model.layers.1.mlp", false},
        {"a[]]b", "a]b", true},
        {"a[b", "a[b", true},
        {"a[b", "ab", false},
        {"re:model\\.layers\\.\\d+\\.mlp", "model.layers.12.mlp", true},
        {"re:model\\.layers\\.\\d+\\.mlp", "model.layers.12.mlp.gate", true},
        {"re:layers\\.\\d+\\.mlp", "model.layers.12.mlp", false},
        {"re:.*self_attn.*", "model.layers.0.self_attn.q_proj", true},
        {"re:.*lm_head", "lm_head_2", false},
        {"", "lm_head", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (matches(rows[i].pattern, rows[i].name) != rows[i].matched)
            fail_msg("%s %s %s", rows[i].pattern, rows[i].matched ? "misses" : "matches",
                     rows[i].name);
    }
}

static void the_pattern_that_matched_is_named(void **state)
{
    static char first[] = "lm_head";
    static char second[] = "model.layers.2*";
    static char third[] = "re:model\\.norm";
    char *const list[] = {first, second, third};
    tsr_name_patterns *patterns = NULL;
    tsr_problems problems = {0};
    size_t index = 9;
    (void)state;

    ASSERT_STATUS(TSR_OK, tsr_name_patterns_open(list, 3, "test", &problems, &patterns));
    assert_true(tsr_name_patterns_match(patterns, "model.layers.2.mlp", &index));
    assert_int_equal(1, index);
    assert_true(tsr_name_patterns_match(patterns, "model.norm", &index));
    assert_int_equal(2, index);
    assert_true(tsr_name_patterns_match(patterns, "lm_head", &index));
    assert_int_equal(0, index);
    assert_false(tsr_name_patterns_match(patterns, "model.embed_tokens", &index));
    tsr_name_patterns_close(patterns);
}

static void a_malformed_expression_is_refused_by_name(void **state)
{
    static char bad[] = "re:model.(layers";
    char *const list[] = {bad};
    tsr_name_patterns *patterns = NULL;
    tsr_problems problems = {0};
    (void)state;

    ASSERT_STATUS(TSR_ERR_CHECKPOINT,
                  tsr_name_patterns_open(list, 1, "file.json", &problems, &patterns));
    assert_int_equal(1, problems.errors);
    assert_non_null(strstr(problems.items[0].text, "file.json: pattern \"re:model.(layers\""));
    tsr_problems_close(&problems);
}

/* By definition: the name or an ancestor, in the C library's words. */
static bool matches_by_definition(const char *pattern, const char *name)
{
    char part[32];
    char parent[32];
    const size_t count = strlen(pattern);
    const bool has_parent = count > 2 && strcmp(pattern + count - 2, ".*") == 0;

    (void)snprintf(parent, sizeof(parent), "%.*s", has_parent ? (int)count - 2 : 0, pattern);
    for (size_t i = 1; i <= strlen(name); i++) {
        if (name[i] != '.' && name[i] != '\0')
            continue;
        (void)snprintf(part, sizeof(part), "%.*s", (int)i, name);
        if (fnmatch(pattern, part, FNM_NOESCAPE) == 0 ||
            (has_parent && fnmatch(parent, part, FNM_NOESCAPE) == 0))
            return true;
    }
    return false;
}

static void random_text(uint32_t *seed, const char *alphabet, char text[16])
{
    *seed = *seed * 1664525 + 1013904223;
    const size_t count = 1 + (*seed >> 20) % 12;

    for (size_t i = 0; i < count; i++) {
        *seed = *seed * 1664525 + 1013904223;
        text[i] = alphabet[(*seed >> 16) % strlen(alphabet)];
    }
    text[count] = '\0';
}

/* What is kept of the name before, and what is ruled out early, changes no answer. */
static void names_in_any_order_match_as_each_alone(void **state)
{
    enum { PATTERNS = 3, NAMES = 40 };
    uint32_t seed = 5;
    int hits = 0;
    (void)state;

    for (int round = 0; round < 500; round++) {
        char texts[PATTERNS][16];
        char *list[PATTERNS];
        tsr_name_patterns *patterns = NULL;
        for (int i = 0; i < PATTERNS; i++) {
            random_text(&seed, "ab.1*?", texts[i]);
            list[i] = texts[i];
        }
        ASSERT_STATUS(TSR_OK, tsr_name_patterns_open(list, PATTERNS, "test", NULL, &patterns));
        for (int n = 0; n < NAMES; n++) {
            char name[16];
            bool wanted = false;
            size_t index = 0;
            random_text(&seed, "ab.1", name);
            for (int i = 0; i < PATTERNS; i++)
                wanted = wanted || matches_by_definition(texts[i], name);
            if (tsr_name_patterns_match(patterns, name, &index) != wanted)
                fail_msg("%s, %s, %s and %s", texts[0], texts[1], texts[2], name);
            hits += wanted;
        }
        tsr_name_patterns_close(patterns);
    }
    assert_in_range(hits, 2000, 18000);
}

/* Many stars cost no more than length squared; an expression stops at its limit. */
static void hostile_patterns_end(void **state)
{
    char name[400];
    char stars[400];
    (void)state;

    memset(name, 'a', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    for (size_t i = 0; i < sizeof(stars); i++)
        stars[i] = i % 2 == 0 ? '*' : 'a';
    stars[sizeof(stars) - 2] = 'b';
    stars[sizeof(stars) - 1] = '\0';
    assert_false(matches(stars, name));
    assert_false(matches("re:(a*)*(a*)*(a*)*b", name));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_get_one_spelling),
        cmocka_unit_test(layers_are_read_from_names),
        cmocka_unit_test(patterns_match_names_and_ancestors_and_never_substrings),
        cmocka_unit_test(the_pattern_that_matched_is_named),
        cmocka_unit_test(a_malformed_expression_is_refused_by_name),
        cmocka_unit_test(names_in_any_order_match_as_each_alone),
        cmocka_unit_test(hostile_patterns_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
