/*
 * Any bytes as tokenizer.json: read or refused. And any bytes as text of a tokenizer that was read:
 * what comes back from its ids is the text, repaired.
 */
#include "tests/fuzz/fuzz.h"

#include "runtime/text/detokenizer.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A mistake that is not a memory error must end the run too. */
static void must(bool holds)
{
    if (!holds)
        abort();
}

/* Encodes, decodes, and compares where nothing was normalised. */
static void encode(const tsr_tokenizer *tokenizer, const char *text, size_t count, bool exact)
{
    tsr_ids ids = {0};
    tsr_text out = {0};
    tsr_text repaired = {0};
    tsr_detokenizer detokenizer = {.tokenizer = tokenizer};
    must(tsr_utf8_repair(text, count, &repaired) == TSR_OK);
    const tsr_status st = tsr_tokenizer_encode(tokenizer, text, count, count % 2 == 0, &ids);
    for (size_t i = 0; st == TSR_OK && i < ids.count; i++) {
        must(ids.ids[i] >= 0 && ids.ids[i] < tsr_tokenizer_ids(tokenizer));
        must(tsr_detokenizer_push(&detokenizer, ids.ids[i], &out) == TSR_OK);
    }
    must(tsr_detokenizer_finish(&detokenizer, &out) == TSR_OK);
    if (st == TSR_OK && exact) {
        must(out.count == repaired.count);
        must(out.count == 0 || memcmp(out.bytes, repaired.bytes, out.count) == 0);
    }
    tsr_ids_close(&ids);
    tsr_text_close(&out);
    tsr_text_close(&repaired);
}

/* The tokenizers of the tests, opened once; the process ends with them. */
static const tsr_tokenizer *known(bool nfc)
{
    static tsr_tokenizer *tokenizers[2];
    static const char *const folders[] = {TSR_TEST_DATA "/text/glm4", TSR_TEST_DATA "/text/qwen3"};
    tsr_problems problems = {0};
    if (tokenizers[nfc] == NULL)
        must(tsr_tokenizer_open(folders[nfc], &problems, &tokenizers[nfc]) == TSR_OK);
    tsr_problems_close(&problems);
    return tokenizers[nfc];
}

/* What would be a tokenizer.json. */
static void read_file(const char *text, size_t count)
{
    tsr_problems problems = {0};
    tsr_tokenizer *tokenizer = NULL;
    const tsr_status st = tsr_tokenizer_parse("fuzz", text, count, &problems, &tokenizer);
    must((st == TSR_ERR_CHECKPOINT) == tsr_problems_has_error(&problems));
    if (st == TSR_OK)
        encode(tokenizer, "Hello, it's 12 caf\xc3\xa9 <a>\xff", 25, false);
    tsr_tokenizer_close(tokenizer);
    tsr_problems_close(&problems);
}

/* An object is a file, everything else a text: either takes long enough by itself. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    enum { TEXT_MOST = 256 };
    const char *text = (const char *)bytes;
    if (count == 0 || text[0] == '{')
        read_file(text, count);
    if (count > 0 && (text[0] != '{' || count < TEXT_MOST)) {
        const size_t length = count < TEXT_MOST ? count : TEXT_MOST;
        encode(known(false), text, length, true);
        encode(known(true), text, length, false);
    }
    return 0;
}
