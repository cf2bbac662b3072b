/* One line of a batch: from its bytes to what the engine is to do, or to why it is refused. */
#ifndef TSR_LAUNCH_BATCH_BATCH_LINE_H
#define TSR_LAUNCH_BATCH_BATCH_LINE_H

#include "launch/batch/batch_answer.h"
#include "launch/files/line_file.h"
#include "launch/files/line_scan.h"

/* What a line may hold while it is live. */
enum { TSR_MAX_BATCH_LINE_BYTES = 256 << 20 };

/* Of the line without a byte order mark. */
tsr_line_scan tsr_batch_line_scan(const tsr_line *line);

/*
 *   scan  of the same line
 *
 * TSR_ERR_ARG  *ret_refusal says why
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_batch_line_read(const tsr_line *line, const tsr_line_scan *scan,
                                            const tsr_request_context *context,
                                            tsr_batch_line **ret_line, tsr_refusal *ret_refusal);

/* NULL is allowed. */
void tsr_batch_line_close(tsr_batch_line *line);

/* Why a line has no answer though nothing is wrong with it. TSR_OK: the job was asked to drain. */
void tsr_batch_fault(tsr_status status, tsr_refusal *ret_refusal);

/* One of its prompts has no next token: no answer is better than half of one. */
void tsr_batch_not_finite(const tsr_output *output, tsr_refusal *ret_refusal);

#endif
