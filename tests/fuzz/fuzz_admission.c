/* Any bytes as the admissions of a step: read within their bounds, or refused. What was read packs
 * and reads again as the same. */
#include "tests/fuzz/fuzz.h"

#include "proto/admission.h"
#include "runtime/base/log.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 64 };

static void quiet(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    (void)level;
    (void)line;
}

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void there_and_back(const tsr_admission *admission)
{
    int32_t tokens[ROOM];
    tsr_admission again = {0};
    bool more = false;
    const size_t count = tsr_admission_bytes(admission);

    must(count <= tsr_admission_max_bytes(admission->token_count, TSR_RULE_LIST * 4 + 64));
    unsigned char *bytes = malloc(count);
    must(bytes != NULL);
    tsr_admission_pack(admission, bytes);
    tsr_admission_reader reader = {.bytes = bytes, .count = count};
    must(tsr_admission_next(&reader, tokens, ROOM, &again, &more) == TSR_OK && more);
    must(again.rank == admission->rank && again.slot == admission->slot);
    must(again.seed == admission->seed && again.top_k == admission->top_k);
    must(again.token_count == admission->token_count);
    must(memcmp(again.tokens, admission->tokens, again.token_count * sizeof(int32_t)) == 0);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    tsr_admission_reader reader = {.bytes = bytes, .count = count};
    int32_t tokens[ROOM];
    bool more = true;

    tsr_log_set_sink(quiet, NULL);
    while (more) {
        tsr_admission admission = {0};
        if (tsr_admission_next(&reader, tokens, ROOM, &admission, &more) != TSR_OK)
            break;
        if (more) {
            must(admission.token_count >= 1 && admission.token_count <= ROOM);
            there_and_back(&admission);
        }
    }
    return 0;
}
