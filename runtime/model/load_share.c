/* Nothing is kept of a share once it is taken: a cursor goes along the pieces. */
#include "runtime/model/load_share.h"

#include "runtime/base/sizes.h"

/* Rows that a cut leaves together where they are short: every layout's tile is a part of it. */
enum { ROWS_TOGETHER = 64 };

static int32_t step_of(const tsr_load_shares *s, const tsr_piece *piece)
{
    if (piece->part != TSR_PART_WEIGHT)
        return 1;
    return tsr_device_row_step(s->device, s->plan->linears[piece->owner].format);
}

/* Rows of a piece that is cut, from the cursor on. */
static void cut_rows(const tsr_load_shares *s, tsr_load_cursor *cursor, tsr_load_share *share)
{
    const tsr_piece *whole = &s->order->pieces[cursor->piece];
    const uint64_t row_bytes = whole->place.bytes / (uint64_t)whole->count;
    const int64_t step = step_of(s, whole);
    const int64_t fit = (int64_t)(s->most / row_bytes);
    const int64_t unit = fit >= ROWS_TOGETHER * step ? ROWS_TOGETHER * step : step;
    const int64_t most = tsr_larger_64(fit / unit * unit, step);
    const int32_t rows = (int32_t)tsr_smaller_64(most, whole->count - cursor->row);

    share->part = *whole;
    share->part.first += cursor->row;
    share->part.count = rows;
    share->part.place.offset += (uint64_t)cursor->row * row_bytes;
    share->part.place.bytes = (uint64_t)rows * row_bytes;
    share->place.begin = share->part.place.offset;
    share->place.end = share->place.begin + share->part.place.bytes;
    cursor->row += rows;
    if (cursor->row == whole->count) {
        cursor->row = 0;
        cursor->piece++;
    }
}

/* Whole pieces of the cursor's stretch, as many as fit. */
static void gather_pieces(const tsr_load_shares *s, tsr_load_cursor *cursor, tsr_load_share *share)
{
    const size_t end = s->order->first_piece[cursor->stretch + 1];

    for (cursor->piece++; cursor->piece < end; cursor->piece++, share->pieces++) {
        const tsr_tensor_place *next = &s->order->pieces[cursor->piece].place;
        const uint64_t reach = tsr_larger_size(share->place.end, next->offset + next->bytes);
        if (next->offset < share->place.begin || reach - share->place.begin > s->most)
            return;
        share->place.end = reach;
    }
}

bool tsr_load_share_next(const tsr_load_shares *shares, tsr_load_cursor *cursor,
                         tsr_load_share *ret_share)
{
    const tsr_load_order *order = shares->order;

    if (cursor->piece == order->piece_count)
        return false;
    while (cursor->piece >= order->first_piece[cursor->stretch + 1])
        cursor->stretch++;

    const tsr_tensor_place *place = &order->pieces[cursor->piece].place;
    tsr_load_share share = {
        .place = {place->offset, place->offset + place->bytes, place->file},
        .first_piece = cursor->piece,
        .pieces = 1,
    };
    if (place->bytes > shares->most)
        cut_rows(shares, cursor, &share);
    else
        gather_pieces(shares, cursor, &share);
    *ret_share = share;
    return true;
}

uint64_t tsr_load_share_longest(const tsr_load_shares *shares)
{
    tsr_load_cursor cursor = {0};
    tsr_load_share share;
    uint64_t longest = 0;

    while (tsr_load_share_next(shares, &cursor, &share))
        longest = tsr_larger_size(longest, share.place.end - share.place.begin);
    return longest;
}

const tsr_piece *tsr_load_share_piece(const tsr_load_shares *shares, const tsr_load_share *share,
                                      size_t i)
{
    return share->part.count > 0 ? &share->part : &shares->order->pieces[share->first_piece + i];
}

uint64_t tsr_load_share_bytes(const tsr_load_shares *shares, const tsr_load_share *share)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < share->pieces; i++)
        bytes += tsr_load_share_piece(shares, share, i)->place.bytes;
    return bytes;
}
