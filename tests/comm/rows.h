/*
 * How tests write and read the buffers of an exchange: by the device in whose memory they lie,
 * never by host pointer, so that a test does not know where that is.
 *
 *      test's array --> staging (host memory of the device) --put--> send_rows, answers, ...
 *      test's array <-- staging                             <--get-- arrived_rows, counts, ...
 */
#ifndef TSR_TESTS_COMM_ROWS_H
#define TSR_TESTS_COMM_ROWS_H

#include "comm/exchange.h"
#include "kernels/device.h"

/* Of one rank. Its exchanges work on the same stream. */
typedef struct rows {
    tsr_device *device;
    tsr_stream stream;
    tsr_mark *mark;
    void *staging;
} rows;

enum { NO_CARD = -1 };

/* On a CPU, or on a GPU. */
TSR_MUST_USE tsr_status rows_open(int32_t card, rows *ret_rows);
void rows_close(rows *r);

/* Both are through when they return. */
TSR_MUST_USE tsr_status rows_put(const rows *r, void *to, const void *from, size_t bytes);
TSR_MUST_USE tsr_status rows_get(const rows *r, void *to, const void *from, size_t bytes);

/* Puts the answer of that number where it belongs. */
TSR_MUST_USE tsr_status rows_answer(const rows *r, const tsr_exchange_buffers *b, int32_t number,
                                    const void *answer, size_t bytes);

#endif
