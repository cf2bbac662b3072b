/* Which lines of a batch an earlier run has answered: those that --resume leaves out. */
#ifndef TSR_LAUNCH_BATCH_BATCH_ANSWERED_H
#define TSR_LAUNCH_BATCH_BATCH_ANSWERED_H

#include "launch/files/output_file.h"

#include <stdint.h>

typedef struct tsr_batch_answered tsr_batch_answered;

/* TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_batch_answered_open(tsr_batch_answered **ret_answered);

/* Keeps answers, each once, and drops errors: their lines are to be answered again. */
tsr_line_keeper tsr_batch_answered_keeper(tsr_batch_answered *answered);

/*
 * True when the file has an answer to a line of this custom_id (a JSON string) that no other line
 * has taken: of lines with the same custom_id each needs its own.
 */
bool tsr_batch_answered_take(tsr_batch_answered *answered, const char *custom_id, size_t bytes);

/* NULL is allowed. */
void tsr_batch_answered_close(tsr_batch_answered *answered);

#endif
