/* Any bytes from the other end of the socket between gateway and engine: refused, waited for, or a
 * message that packs and reads again as the same. */
#include "proto/serve_wire.h"
#include "runtime/base/log.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

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

/* A field that is said twice, or is not known, makes the first packing another; the next is its like. */
static void there_and_back(const tsr_serve_message *message)
{
    tsr_text packed = {0};
    tsr_text again = {0};
    tsr_serve_arrived arrived;
    size_t used = 0;

    must(tsr_serve_message_add(message, &packed) == TSR_OK);
    must(tsr_serve_message_read(packed.bytes, packed.count, &arrived, &used) == TSR_OK);
    must(used == packed.count && arrived.message.kind == message->kind);
    must(tsr_serve_message_add(&arrived.message, &again) == TSR_OK);
    must(again.count == packed.count && memcmp(again.bytes, packed.bytes, packed.count) == 0);
    tsr_serve_arrived_close(&arrived);
    tsr_text_close(&packed);
    tsr_text_close(&again);
}

/* What stands in front of every message, made for these bytes: lengths are seldom right by chance. */
static void read_framed(const uint8_t *bytes, size_t count)
{
    const uint32_t length = (uint32_t)count;
    tsr_serve_arrived arrived;
    tsr_text whole = {0};
    size_t used = 0;

    must(tsr_text_add(&whole, (const char *)&length, sizeof(length)) == TSR_OK);
    must(tsr_text_add(&whole, (const char *)bytes, count) == TSR_OK);
    if (tsr_serve_message_read(whole.bytes, whole.count, &arrived, &used) == TSR_OK && used > 0) {
        must(used == whole.count);
        there_and_back(&arrived.message);
        tsr_serve_arrived_close(&arrived);
    }
    tsr_text_close(&whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    tsr_serve_arrived arrived;
    size_t used = 1;

    tsr_log_set_sink(quiet, NULL);
    read_framed(bytes, count);
    for (size_t at = 0; at < count && used > 0; at += used) {
        if (tsr_serve_message_read(bytes + at, count - at, &arrived, &used) != TSR_OK)
            break;
        if (used == 0)
            break;
        there_and_back(&arrived.message);
        tsr_serve_arrived_close(&arrived);
    }
    return 0;
}
