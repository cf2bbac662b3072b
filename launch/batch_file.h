/*
 * A file of OpenAI batch lines as the engine's source and sink: each line becomes one or several
 * requests, each finished line one line of output, in order of completion. A line that cannot be
 * served fails alone, with an error that says why; no line is lost.
 */
#ifndef TSR_LAUNCH_BATCH_FILE_H
#define TSR_LAUNCH_BATCH_FILE_H

#include "launch/request_body.h"

typedef struct tsr_batch_file tsr_batch_file;

typedef struct tsr_batch_counts {
    uint64_t lines;
    uint64_t failed;
} tsr_batch_counts;

/*
 *   input, output  paths; the output file is created or emptied
 *   context        borrowed, with all it points to
 *   model          name that answers carry; borrowed
 *
 * TSR_ERR_ARG, logged     the input cannot be read
 * TSR_ERR_OUTPUT, logged  the output cannot be written
 */
TSR_MUST_USE tsr_status tsr_batch_file_open(const char *input, const char *output,
                                            const tsr_request_context *context, const char *model,
                                            tsr_batch_file **ret_batch);

tsr_source tsr_batch_file_source(tsr_batch_file *batch);
tsr_sink tsr_batch_file_sink(tsr_batch_file *batch);

/*
 * After the engine has ended: lines that were not answered are written as errors with `reason`
 * (a line of text), the file is flushed and closed. TSR_ERR_OUTPUT, logged
 */
TSR_MUST_USE tsr_status tsr_batch_file_finish(tsr_batch_file *batch, const char *reason,
                                              tsr_batch_counts *ret_counts);

/* NULL is allowed. */
void tsr_batch_file_close(tsr_batch_file *batch);

#endif
