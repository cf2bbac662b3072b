/* Offsets one after the other; the order is exchange_nccl_layout.h's. */
#include "comm/exchange_nccl_layout.h"

#include "comm/exchange_nccl.h"
#include "runtime/base/sizes.h"

#include <string.h>

/* Of an area: rows are read in pieces that a warp takes at once. */
enum { AREA_ALIGNMENT = 256 };

/* Up to so many bytes of a rank to all, itself included, packets are faster than a word behind rows; a
 * third more bytes travel, and rows that nobody there has asked for. */
enum { PACKED_BYTES = 2 * 1024 * 1024, WORDS_OF_PACKET = 3, PACKET_BYTES = 16 };

/* Of answers to a rank's few rows, which have room of their own. */
enum { COMING_BYTES = 64 * 1024 * 1024 };

static uint64_t cut(uint64_t *used, uint64_t count, uint64_t bytes)
{
    const uint64_t at = *used;

    *used += tsr_aligned(count * bytes, AREA_ALIGNMENT);
    return at;
}

static int32_t packets_of(uint64_t words)
{
    return (int32_t)((words + WORDS_OF_PACKET - 1) / WORDS_OF_PACKET);
}

/* How many tokens of each rank are few: there is room for all of them everywhere. */
static int32_t few_of(const tsr_exchange_shape *shape, uint64_t ranks)
{
    const uint64_t few =
        tsr_smaller_size(PACKED_BYTES / ranks / shape->row_bytes, TSR_NCCL_MOST_FEW);
    const uint64_t answered = COMING_BYTES / shape->return_row_bytes / (uint64_t)shape->slots;
    const int32_t most = tsr_smaller(shape->max_tokens, shape->max_arrivals / (int32_t)ranks);

    if (shape->slots > TSR_NCCL_MOST_FEW_SLOTS)
        return 0;
    return tsr_smaller((int32_t)tsr_smaller_size(few, answered), most);
}

static void count_packets(const tsr_exchange_shape *shape, uint64_t ranks, tsr_nccl_layout *l)
{
    l->few_rows = few_of(shape, ranks);
    l->packets_of_row = 1 + packets_of(shape->row_bytes / sizeof(int32_t));
}

static void lay_out_window(const tsr_exchange_shape *shape, uint64_t ranks, tsr_nccl_layout *l)
{
    const uint64_t arrivals = (uint64_t)shape->max_arrivals;
    const uint64_t slots = (uint64_t)shape->slots;
    uint64_t used = 0;

    l->notices = cut(&used, 2 * ranks * ranks, sizeof(tsr_nccl_notice));
    l->sent = cut(&used, ranks, sizeof(tsr_nccl_notice));
    l->returned = cut(&used, ranks, sizeof(tsr_nccl_notice));
    l->notices_end = used;
    l->arrived_rows = cut(&used, arrivals, shape->row_bytes);
    l->answer_of = cut(&used, arrivals * slots, sizeof(int32_t));
    l->returned_rows = cut(&used, ((uint64_t)shape->max_tokens + (uint64_t)l->few_rows) * slots,
                           shape->return_row_bytes);
    l->coming_rows =
        l->returned_rows + (uint64_t)shape->max_tokens * slots * shape->return_row_bytes;
    l->row_packets =
        cut(&used, 2 * ranks * (uint64_t)l->few_rows * (uint64_t)l->packets_of_row, PACKET_BYTES);
    l->window_bytes = used;
}

static void lay_out_block(const tsr_exchange_shape *shape, uint64_t ranks, tsr_nccl_layout *l)
{
    const uint64_t tokens = (uint64_t)shape->max_tokens;
    const uint64_t slots = (uint64_t)shape->slots;
    uint64_t used = 0;

    l->send_rows = cut(&used, tokens, shape->row_bytes);
    l->send_ranks = cut(&used, tokens * slots, sizeof(int32_t));
    l->listed = cut(&used, ranks * tokens, sizeof(int32_t));
    l->arrived_count = cut(&used, 1, sizeof(int32_t));
    l->waited = cut(&used, ranks, sizeof(uint64_t));
    l->done = cut(&used, ranks + 1, sizeof(uint32_t));
    l->bare = cut(&used, ranks * TSR_EXCHANGE_BARE_CTAS, sizeof(uint32_t));
    l->peers = cut(&used, ranks, sizeof(void *));
    l->parts = cut(&used, ranks, sizeof(void *));
    l->state = cut(&used, 1, sizeof(tsr_nccl_state));
    l->block_bytes = used;
}

tsr_nccl_layout tsr_nccl_layout_of(const tsr_exchange_shape *shape, int32_t ranks)
{
    tsr_nccl_layout l = {0};

    count_packets(shape, (uint64_t)ranks, &l);
    lay_out_window(shape, (uint64_t)ranks, &l);
    lay_out_block(shape, (uint64_t)ranks, &l);
    return l;
}

uint64_t tsr_exchange_nccl_bytes(const tsr_exchange_shape *shape, int32_t ranks)
{
    const tsr_nccl_layout l = tsr_nccl_layout_of(shape, ranks);

    return l.window_bytes + l.block_bytes;
}

static tsr_nccl_notice notice_at(const unsigned char *notices, uint64_t area, uint64_t index)
{
    tsr_nccl_notice notice;

    memcpy(&notice, notices + area + index * sizeof(notice), sizeof(notice));
    return notice;
}

/* The source's first notice of an epoch, as every rank has it. */
static uint64_t first_notice(uint64_t ranks, uint32_t epoch, uint64_t source)
{
    return (epoch % 2 * ranks + source) * ranks;
}

/* Whether a source has told everybody what it sends. */
static bool has_told(const tsr_nccl_layout *l, uint64_t ranks, const unsigned char *notices,
                     uint32_t epoch, uint64_t source)
{
    const uint64_t first = first_notice(ranks, epoch, source);

    for (uint64_t target = 0; target < ranks; target++) {
        if (notice_at(notices, l->notices, first + target).epoch != epoch)
            return false;
    }
    return true;
}

/* Of packets: a source tells nobody else what it has sent a rank. */
static int32_t missing_packets(const tsr_nccl_layout *l, int32_t ranks, int32_t rank,
                               const unsigned char *notices, uint32_t epoch, int32_t *ret_missing)
{
    int32_t count = 0;

    for (int32_t r = 0; r < ranks; r++) {
        const uint64_t first = first_notice((uint64_t)ranks, epoch, (uint64_t)r);
        if (notice_at(notices, l->notices, first + (uint64_t)rank).epoch != epoch)
            ret_missing[count++] = r;
    }
    return count;
}

int32_t tsr_nccl_missing(const tsr_nccl_layout *layout, int32_t ranks, int32_t rank,
                         const unsigned char *notices, const tsr_nccl_state *state,
                         int32_t *ret_missing)
{
    const bool returning = state->phase == TSR_PHASE_RETURNING;
    const uint64_t words = returning ? layout->returned : layout->sent;
    const uint32_t epoch = state->epoch;
    int32_t count = 0;

    if (state->phase != TSR_PHASE_DISPATCHED && !returning)
        return 0;
    if (state->packed != 0)
        return returning ? 0 : missing_packets(layout, ranks, rank, notices, epoch, ret_missing);
    for (int32_t r = 0; r < ranks && !returning; r++) {
        if (!has_told(layout, (uint64_t)ranks, notices, epoch, (uint64_t)r))
            ret_missing[count++] = r;
    }
    /* Before all have, nobody sends rows: this rank neither. */
    for (int32_t r = 0, waiting = count == 0; r < ranks && waiting; r++) {
        if (notice_at(notices, words, (uint64_t)r).epoch != epoch)
            ret_missing[count++] = r;
    }
    return count;
}
