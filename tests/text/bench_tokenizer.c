/*
 * How fast text becomes ids and comes back: MB/s on one thread, for each file named (or the
 * tokenizer's own file as text), best of five.
 *
 *     bench_tokenizer FOLDER [FILE]
 */
#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "runtime/text/detokenizer.h"
#include "runtime/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 5, MAX_BYTES = 1 << 28 };

static double mb_per_s(size_t bytes, int64_t ns)
{
    return ns > 0 ? (double)bytes * 1e3 / (double)ns : 0.0;
}

static tsr_status measure(const tsr_tokenizer *tokenizer, const char *text, size_t count)
{
    int64_t encode_ns = INT64_MAX;
    int64_t decode_ns = INT64_MAX;
    tsr_ids ids = {0};
    tsr_text out = {0};
    tsr_status st = TSR_OK;
    for (int round = 0; st == TSR_OK && round < ROUNDS; round++) {
        tsr_detokenizer detokenizer = {.tokenizer = tokenizer};
        ids.count = 0;
        tsr_text_clear(&out);
        const int64_t start = tsr_clock_ns();
        st = tsr_tokenizer_encode(tokenizer, text, count, false, &ids);
        const int64_t middle = tsr_clock_ns();
        for (size_t i = 0; st == TSR_OK && i < ids.count; i++)
            st = tsr_detokenizer_push(&detokenizer, ids.ids[i], &out);
        const int64_t end = tsr_clock_ns();
        encode_ns = middle - start < encode_ns ? middle - start : encode_ns;
        decode_ns = end - middle < decode_ns ? end - middle : decode_ns;
    }
    if (st == TSR_OK)
        printf("%zu bytes, %zu ids: encode %.1f MB/s, decode %.1f MB/s\n", count, ids.count,
               mb_per_s(count, encode_ns), mb_per_s(count, decode_ns));
    tsr_ids_close(&ids);
    tsr_text_close(&out);
    return st;
}

int main(int argc, char **argv)
{
    char path[4096];
    tsr_problems problems = {0};
    tsr_tokenizer *tokenizer = NULL;
    char *text = NULL;
    size_t count = 0;
    if (argc < 2) {
        (void)fprintf(stderr, "usage: bench_tokenizer FOLDER [FILE]\n");
        return EXIT_FAILURE;
    }
    const int64_t start = tsr_clock_ns();
    tsr_status st = tsr_tokenizer_open(argv[1], &problems, &tokenizer);
    if (st == TSR_OK)
        printf("opened in %.1f ms\n", (double)(tsr_clock_ns() - start) / 1e6);
    if (st == TSR_OK)
        st = tsr_path_join(argv[1], "tokenizer.json", sizeof(path), path);
    if (st == TSR_OK)
        st = tsr_file_read_text(argc > 2 ? argv[2] : path, MAX_BYTES, &text, &count);
    if (st == TSR_OK)
        st = measure(tokenizer, text, count);
    tsr_problems_log(&problems);
    tsr_problems_close(&problems);
    tsr_tokenizer_close(tokenizer);
    free(text);
    return tsr_status_exit_code(st);
}
