/* Token sequences to score: a JSON array of arrays of ids, or safetensors with int32 tokens.I. */
#ifndef TSR_LAUNCH_SCORE_TOKEN_FILE_H
#define TSR_LAUNCH_SCORE_TOKEN_FILE_H

#include "runtime/base/arena.h"
#include "runtime/base/problems.h"
#include "runtime/base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tsr_token_sequence {
    const int32_t *ids; /* [count], count >= 1 */
    int32_t count;
} tsr_token_sequence;

typedef struct tsr_token_file {
    tsr_token_sequence *sequences; /* [count], in the arena */
    size_t count;
    int32_t longest;
} tsr_token_file;

/*
 * Every id must be in 0..vocab-1. TSR_ERR_ARG: `problems` names the file, the sequence and the
 * position.
 */
TSR_MUST_USE tsr_status tsr_token_file_read(const char *path, int32_t vocab, tsr_arena *memory,
                                            tsr_problems *problems, tsr_token_file *ret_tokens);

#endif
