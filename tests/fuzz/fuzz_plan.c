/* Any bytes as a plan, and any bytes as a plan's message behind a head that holds: refused, or a
 * plan within its bounds that packs and reads again as the same. */
#include "proto/plan.h"
#include "runtime/base/log.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { HEAD_BYTES = 16 };

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

static void there_and_back(const unsigned char *bytes, size_t count)
{
    unsigned char *packed;
    size_t packed_count;
    tsr_plan *plan, *again;
    uint64_t digest;

    if (tsr_plan_unpack(bytes, count, &plan) != TSR_OK)
        return;
    must(tsr_plan_pack(plan, &packed, &packed_count) == TSR_OK);
    digest = plan->digest;
    must(tsr_plan_unpack(packed, packed_count, &again) == TSR_OK);
    must(again->digest == digest && again->linear_count == plan->linear_count);
    free(packed);
    tsr_plan_close(plan);
    tsr_plan_close(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    const uint32_t head[2] = {0x4c505354, 2};
    const uint64_t digest = XXH3_64bits(bytes, count);
    unsigned char *whole = malloc(HEAD_BYTES + count);

    must(whole != NULL);
    tsr_log_set_sink(quiet, NULL);
    memcpy(whole, head, sizeof(head));
    memcpy(whole + sizeof(head), &digest, sizeof(digest));
    if (count > 0)
        memcpy(whole + HEAD_BYTES, bytes, count);
    there_and_back(bytes, count);
    there_and_back(whole, HEAD_BYTES + count);
    free(whole);
    return 0;
}
