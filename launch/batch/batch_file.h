/*
 * A file of OpenAI batch lines as the engine's source and sink: each line becomes one or several
 * requests, each finished line one line of output, in order of completion. A line that cannot be
 * served fails alone, with an error that says why; no line is lost.
 */
#ifndef TSR_LAUNCH_BATCH_BATCH_FILE_H
#define TSR_LAUNCH_BATCH_BATCH_FILE_H

#include "launch/request/request_body.h"

typedef struct tsr_batch_file tsr_batch_file;

typedef struct tsr_batch_counts {
    uint64_t lines;
    uint64_t failed;
    uint64_t kept; /* of `lines`: answered by an earlier run */
} tsr_batch_counts;

typedef struct tsr_batch_args {
    const char *input; /* paths; borrowed */
    const char *output;
    int32_t deadline_ms;                /* for whoever reads the output */
    bool resume;                        /* leave out what the output has an answer to */
    const tsr_request_context *context; /* borrowed, with all it points to */
    const char *model;                  /* name that answers carry; borrowed */
} tsr_batch_args;

/*
 * TSR_ERR_ARG, logged     the input cannot be read, or the output holds no answers to resume
 * TSR_ERR_OUTPUT, logged  the output cannot be written
 */
TSR_MUST_USE tsr_status tsr_batch_file_open(const tsr_batch_args *args, tsr_batch_file **ret_batch);

tsr_source tsr_batch_file_source(tsr_batch_file *batch);
tsr_sink tsr_batch_file_sink(tsr_batch_file *batch);

/*
 * After the engine has ended with `status`, or was asked to drain (TSR_OK): lines that were not
 * answered are written as errors that say so, and the output gets its name. After a start that
 * failed, when no line was read, nothing is written, and *ret_counts is 0.
 *
 * TSR_ERR_OUTPUT, TSR_ERR_TIMEOUT, logged
 */
TSR_MUST_USE tsr_status tsr_batch_file_finish(tsr_batch_file *batch, tsr_status status,
                                              tsr_batch_counts *ret_counts);

/* NULL is allowed. */
void tsr_batch_file_close(tsr_batch_file *batch);

#endif
