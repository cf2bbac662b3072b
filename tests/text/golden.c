#include "tests/text/golden.h"

#include "runtime/base/file.h"
#include "runtime/text/bpe.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

golden golden_open(const char *folder, const char *file)
{
    char path[1024];
    golden g = {0};
    (void)snprintf(path, sizeof(path), "%s/text/%s%s%s", TSR_TEST_DATA, folder, *folder ? "/" : "",
                   file);
    ASSERT_STATUS(TSR_OK, tsr_file_read_text(path, 1 << 20, &g.bytes, &g.count));
    return g;
}

void golden_close(golden *g)
{
    assert_int_equal(g->count, g->at); /* everything was read */
    free(g->bytes);
    *g = (golden){0};
}

static const char *take(golden *g, size_t count)
{
    assert_true(count <= g->count - g->at);
    g->at += count;
    return g->bytes + g->at - count;
}

uint64_t golden_u64(golden *g)
{
    const uint64_t low = golden_u32(g);
    return low | (uint64_t)golden_u32(g) << 32;
}

uint32_t golden_u32(golden *g)
{
    const char *bytes = take(g, 4);
    uint32_t value = 0;
    for (int i = 3; i >= 0; i--)
        value = value << 8 | (unsigned char)bytes[i];
    return value;
}

static size_t varint(golden *g)
{
    size_t value = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        const unsigned char byte = (unsigned char)*take(g, 1);
        value |= (size_t)(byte & 0x7fu) << shift;
        if (byte < 0x80)
            break;
    }
    return value;
}

const char *golden_blob(golden *g, size_t *ret_count)
{
    *ret_count = varint(g);
    return take(g, *ret_count);
}

void golden_ids(golden *g, tsr_ids *ids)
{
    ids->count = 0;
    for (size_t left = varint(g); left > 0; left--)
        ASSERT_STATUS(TSR_OK, tsr_ids_add(ids, (int32_t)varint(g)));
}

tsr_tokenizer *golden_tokenizer(const char *folder)
{
    char path[1024];
    const bool demo = strcmp(folder, "demo") == 0;
    (void)snprintf(path, sizeof(path), "%s/%s", TSR_TEST_DATA, demo ? "demo-mixed" : "text/");
    if (!demo)
        (void)snprintf(path + strlen(path), sizeof(path) - strlen(path), "%s", folder);

    tsr_problems problems = {0};
    tsr_tokenizer *tokenizer = NULL;
    const tsr_status st = tsr_tokenizer_open(path, &problems, &tokenizer);
    tsr_problems_log(&problems);
    tsr_problems_close(&problems);
    ASSERT_STATUS(TSR_OK, st);
    return tokenizer;
}

bool ids_equal(const tsr_ids *a, const tsr_ids *b)
{
    if (a->count != b->count)
        return false;
    return a->count == 0 || memcmp(a->ids, b->ids, a->count * sizeof(*a->ids)) == 0;
}
