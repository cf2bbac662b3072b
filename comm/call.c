/* Calls as what peers compare and as what messages show. */
#include "comm/call.h"

#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdio.h>

/* Characters that a list of ranks takes in a message; a longer list ends in "...". */
enum { LIST_BYTES = 256, LIST_ROOM_FOR_ONE = 20 };

tsr_call tsr_call_of_open(const tsr_exchange *exchange)
{
    return (tsr_call){
        .kind = TSR_CALL_EXCHANGE_OPEN,
        .exchange = exchange->number,
        .max_tokens = exchange->shape.max_tokens,
        .max_arrivals = exchange->shape.max_arrivals,
        .slots = exchange->shape.slots,
        .row_bytes = exchange->shape.row_bytes,
        .return_row_bytes = exchange->shape.return_row_bytes,
    };
}

tsr_call tsr_call_of_exchange(const tsr_exchange *exchange, tsr_call_kind kind)
{
    return (tsr_call){
        .kind = (int32_t)kind,
        .step = exchange->step,
        .stage = exchange->stage,
        .exchange = exchange->number,
    };
}

static int call_text(const tsr_call *call, char *text, size_t capacity)
{
    switch ((tsr_call_kind)call->kind) {
    case TSR_CALL_JOIN:
        return snprintf(text, capacity, "opening the group");
    case TSR_CALL_LEAVE:
        return snprintf(text, capacity, "closing the group");
    case TSR_CALL_BARRIER:
        return snprintf(text, capacity, "barrier");
    case TSR_CALL_BROADCAST:
        return snprintf(text, capacity, "broadcast of %" PRIu64 " bytes from rank %" PRId32,
                        call->bytes, call->root);
    case TSR_CALL_GATHER:
        return snprintf(text, capacity, "gather of %" PRIu64 " bytes to rank %" PRId32, call->bytes,
                        call->root);
    case TSR_CALL_EXCHANGE_OPEN:
        return snprintf(text, capacity,
                        "opening exchange %" PRId32 " (%" PRId32 " rows of %" PRIu64
                        " bytes, %" PRId32 " arrive, %" PRId32 " slots, answers of %" PRIu64
                        " bytes)",
                        call->exchange, call->max_tokens, call->row_bytes, call->max_arrivals,
                        call->slots, call->return_row_bytes);
    case TSR_CALL_DISPATCH:
    case TSR_CALL_RETURN:
        return snprintf(text, capacity,
                        "%s of step %" PRIu64 " stage %" PRId32 " (exchange %" PRId32 ")",
                        call->kind == TSR_CALL_DISPATCH ? "dispatch" : "return", call->step,
                        call->stage, call->exchange);
    }
    return snprintf(text, capacity, "unknown call %" PRId32, call->kind);
}

void tsr_call_text(const tsr_call *call, char text[TSR_CALL_TEXT_BYTES])
{
    if (call_text(call, text, TSR_CALL_TEXT_BYTES) < 0)
        text[0] = '\0';
}

bool tsr_call_equal(const tsr_call *a, const tsr_call *b)
{
    return a->kind == b->kind && a->root == b->root && a->bytes == b->bytes && a->step == b->step &&
           a->stage == b->stage && a->exchange == b->exchange && a->max_tokens == b->max_tokens &&
           a->max_arrivals == b->max_arrivals && a->slots == b->slots &&
           a->row_bytes == b->row_bytes && a->return_row_bytes == b->return_row_bytes;
}

tsr_status tsr_call_mismatch(const tsr_call *mine, int32_t peer, const tsr_call *theirs)
{
    char here[TSR_CALL_TEXT_BYTES];
    char there[TSR_CALL_TEXT_BYTES];
    tsr_call_text(mine, here);
    tsr_call_text(theirs, there);
    tsr_log(TSR_LOG_ERROR, "ranks disagree: this rank is at %s, rank %" PRId32 " at %s", here, peer,
            there);
    return TSR_ERR_MISMATCH;
}

void tsr_rank_list_text(const int32_t *ranks, int32_t count, size_t capacity, char *ret_text)
{
    size_t used = 0;

    ret_text[0] = '\0';
    for (int32_t i = 0; i < count; i++) {
        const bool room = used + LIST_ROOM_FOR_ONE < capacity;
        const int n = room ? snprintf(ret_text + used, capacity - used, "%s%" PRId32,
                                      i == 0 ? "" : ", ", ranks[i])
                           : snprintf(ret_text + used, capacity - used, ", ...");
        if (!room || n < 0)
            break;
        used += (size_t)n;
    }
}

tsr_status tsr_call_timeout(const tsr_call *mine, int32_t deadline_ms, const int32_t *missing,
                            int32_t count)
{
    char here[TSR_CALL_TEXT_BYTES];
    char list[LIST_BYTES];

    tsr_rank_list_text(missing, count, sizeof(list), list);
    tsr_call_text(mine, here);
    tsr_log(TSR_LOG_ERROR, "%s: %s %s did not come within %" PRId32 " ms", here,
            count == 1 ? "rank" : "ranks", list, deadline_ms);
    return TSR_ERR_TIMEOUT;
}
