/*
 * A safetensors file of float32 logits.I [T, V], laid out beforehand and filled in any order. It
 * holds nothing that depends on the run, so that two runs can be compared byte by byte, and is no
 * safetensors file before it is finished.
 */
#ifndef TSR_LAUNCH_SCORE_LOGITS_FILE_H
#define TSR_LAUNCH_SCORE_LOGITS_FILE_H

#include "launch/score/token_file.h"

typedef struct tsr_logits_file tsr_logits_file;

/* What was there stays until all rows are there. TSR_ERR_OUTPUT, logged; TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_logits_file_open(const char *path, const tsr_token_file *tokens,
                                             int32_t vocab, tsr_logits_file **ret_file);

/* Rows first_row ... of logits.sequence: [rows, V]. TSR_ERR_OUTPUT, logged */
TSR_MUST_USE tsr_status tsr_logits_file_write(tsr_logits_file *file, size_t sequence,
                                              int32_t first_row, int32_t rows, const float *logits);

/* Gives a sequence up: its tensor is named failed.I, and what rows it has say nothing. */
void tsr_logits_file_fail(tsr_logits_file *file, size_t sequence);

/* Writes the header, of the first `sequences`, at least one: the others were not begun.
 * TSR_ERR_OUTPUT, logged, when a sequence has rows that were never written or
 * the disk is full. */
TSR_MUST_USE tsr_status tsr_logits_file_finish(tsr_logits_file *file, size_t sequences);

/* NULL is allowed. */
void tsr_logits_file_close(tsr_logits_file *file);

#endif
