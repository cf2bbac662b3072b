/* Pieces of the size of the staging memory, each waited for before it is used again. */
#include "tests/comm/rows.h"

#include <string.h>

enum { STAGING_BYTES = 1 << 18 };

tsr_status rows_open(int32_t card, rows *ret_rows)
{
    rows r = {0};
    tsr_status st = card == NO_CARD ? tsr_device_open_cpu(1, TSR_CPU_AUTO, &r.device)
                                    : tsr_device_open_cuda(card, false, &r.device);
    if (st == TSR_OK)
        st = tsr_device_stream_open(r.device, &r.stream);
    if (st == TSR_OK)
        st = tsr_device_mark_open(r.device, &r.mark);
    if (st == TSR_OK)
        st = tsr_device_host_alloc(r.device, STAGING_BYTES, &r.staging);
    if (st == TSR_OK)
        *ret_rows = r;
    else
        rows_close(&r);
    return st;
}

void rows_close(rows *r)
{
    if (r->device == NULL)
        return;
    tsr_device_host_free(r->device, r->staging);
    tsr_device_mark_close(r->device, r->mark);
    tsr_device_stream_close(r->device, r->stream);
    tsr_device_close(r->device);
    *r = (rows){0};
}

/* Until the stream has passed everything that is on it. */
static tsr_status pass(const rows *r)
{
    bool passed = false;
    tsr_status st = tsr_device_mark(r->device, r->mark, r->stream);
    while (st == TSR_OK && !passed)
        st = tsr_device_passed(r->device, r->mark, &passed);
    return st;
}

static size_t piece(size_t bytes)
{
    return bytes < STAGING_BYTES ? bytes : STAGING_BYTES;
}

tsr_status rows_put(const rows *r, void *to, const void *from, size_t bytes)
{
    tsr_status st = TSR_OK;
    for (size_t at = 0, n = 0; at < bytes && st == TSR_OK; at += n) {
        n = piece(bytes - at);
        memcpy(r->staging, (const unsigned char *)from + at, n);
        st = tsr_device_put(r->device, (unsigned char *)to + at, r->staging, n, r->stream);
        if (st == TSR_OK)
            st = pass(r);
    }
    return st;
}

tsr_status rows_get(const rows *r, void *to, const void *from, size_t bytes)
{
    tsr_status st = TSR_OK;
    for (size_t at = 0, n = 0; at < bytes && st == TSR_OK; at += n) {
        n = piece(bytes - at);
        st = tsr_device_get(r->device, r->staging, (const unsigned char *)from + at, n, r->stream);
        if (st == TSR_OK)
            st = pass(r);
        if (st == TSR_OK)
            memcpy((unsigned char *)to + at, r->staging, n);
    }
    return st;
}

tsr_status rows_answer(const rows *r, const tsr_exchange_buffers *b, int32_t number,
                       const void *answer, size_t bytes)
{
    tsr_status st = TSR_OK;
    void *part = b->answers;

    if (b->answer_parts != NULL) {
        st = rows_get(r, (void *)&part, b->answer_parts + (number >> b->answer_part_bits),
                      sizeof(part));
        number &= (1 << b->answer_part_bits) - 1;
    }
    if (st != TSR_OK)
        return st;
    return rows_put(r, (unsigned char *)part + (size_t)number * bytes, answer, bytes);
}
