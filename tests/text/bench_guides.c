/*
 * How long guides take over the tokens of a folder's tokenizer: to open one, and to say what may come,
 * the first time in a state and again.
 *
 *   bench_guides FOLDER
 */
#include "runtime/base/clock.h"
#include "runtime/text/guide_maker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 4096, ROUNDS = 2, PER_US = 1000 };

static const char *const cases[][2] = {
    {"{\"json_object\": true}", "{\"name\": \"Ada Lovelace\", \"born\": 1815, \"tags\": [\"math\", "
                                "\"poetry \xc3\xa9t\xc3\xa9\"], "
                                "\"deep\": {\"a\": {\"b\": [1, 2, {\"c\": null}]}}}"},
    {"{\"json\": {\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}, "
     "\"born\": "
     "{\"type\": \"integer\"}, \"tags\": {\"type\": \"array\", \"items\": {\"type\": "
     "\"string\"}}}, "
     "\"required\": [\"name\", \"born\"]}}",
     "{\"name\": \"Ada Lovelace\", \"born\": 1815, \"tags\": [\"math\", \"poetry\"]}"},
    {"{\"json\": {\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\", "
     "\"maxLength\": 100}}, \"required\": [\"name\"]}}",
     "{\"name\": \"A name of a bit more than thirty characters\"}"},
    {"{\"json\": {\"type\": \"string\", \"pattern\": \"^[A-Z][a-z]+( [A-Z][a-z]+)*$\"}}",
     "\"Ada Lovelace Byron\""},
    {"{\"regex\": \"(.*a){900}b\"}", "aha, a banana"}, /* as bad as it gets */
};

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a;
    const int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void run_case(const tsr_tokenizer *tokenizer, const tsr_guides *guides, const char *wanted,
                     const char *answer, uint32_t *bits)
{
    char refusal[512];
    tsr_ids ids = {0};
    void *guide = NULL;
    int64_t took[MOST];
    size_t count = 0;

    const int64_t begin = tsr_clock_ns();
    if (guides->open(guides->context, wanted, refusal, sizeof(refusal), &guide) != TSR_OK ||
        tsr_tokenizer_encode(tokenizer, answer, strlen(answer), true, &ids) != TSR_OK)
        exit(1);
    (void)printf("%.70s\n  opened in %lld us\n", wanted,
                 (long long)(tsr_clock_ns() - begin) / PER_US);
    for (int round = 0; round < ROUNDS; round++) {
        for (count = 0; count <= ids.count && count < MOST; count++) {
            const int64_t start = tsr_clock_ns();
            (void)guides->ask(guide, ids.ids, (int32_t)count, bits);
            took[count] = tsr_clock_ns() - start;
        }
        qsort(took, count, sizeof(*took), by_value);
        (void)printf("  %s: %zu tokens, median %lld us, most %lld us\n",
                     round == 0 ? "first" : "again", count, (long long)took[count / 2] / PER_US,
                     (long long)took[count - 1] / PER_US);
    }
    guides->close(guide);
    tsr_ids_close(&ids);
}

int main(int argc, char **argv)
{
    tsr_problems problems = {0};
    tsr_tokenizer *tokenizer = NULL;
    tsr_guide_maker *maker = NULL;

    if (argc != 2 || tsr_tokenizer_open(argv[1], &problems, &tokenizer) != TSR_OK)
        return 2;
    const int32_t vocab = tsr_tokenizer_ids(tokenizer);
    uint32_t *bits = calloc((size_t)tsr_guide_words(vocab), sizeof(*bits));
    const int64_t begin = tsr_clock_ns();
    if (bits == NULL || tsr_guide_maker_open(tokenizer, vocab, &maker) != TSR_OK)
        exit(2);
    (void)printf("%d ids, table in %lld ms\n", vocab,
                 (long long)(tsr_clock_ns() - begin) / PER_US / PER_US);
    const tsr_guides guides = tsr_guide_maker_guides(maker);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        run_case(tokenizer, &guides, cases[i][0], cases[i][1], bits);
    tsr_guide_maker_close(maker);
    tsr_tokenizer_close(tokenizer);
    tsr_problems_close(&problems);
    free(bits);
    return 0;
}
