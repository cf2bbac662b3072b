/* The files of tests/data/text, which tests/oracle/make_text_golden.py wrote and describes. */
#ifndef TSR_TESTS_TEXT_GOLDEN_H
#define TSR_TESTS_TEXT_GOLDEN_H

#include "runtime/text/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A file in memory and how far it was read; reading beyond its end fails the test. */
typedef struct golden {
    char *bytes;
    size_t count;
    size_t at;
} golden;

/* `folder` may be empty. */
golden golden_open(const char *folder, const char *file);
void golden_close(golden *g);

uint32_t golden_u32(golden *g);
uint64_t golden_u64(golden *g);

/* A length and that many bytes, which live as long as the file. */
const char *golden_blob(golden *g, size_t *ret_count);

/* A length and that many ids, in place of what `ids` held. */
void golden_ids(golden *g, tsr_ids *ids);

/* The tokenizer of a folder in tests/data/text; "demo" is the demo model's. */
tsr_tokenizer *golden_tokenizer(const char *folder);

bool ids_equal(const tsr_ids *a, const tsr_ids *b);

#endif
