/* One line of batch output: the OpenAI response object of a finished line, or its error. */
#ifndef TSR_LAUNCH_BATCH_ANSWER_H
#define TSR_LAUNCH_BATCH_ANSWER_H

#include "launch/request_body.h"
#include "launch/text_stream.h"

#include <stdio.h>

/* One prompt of a line and what came of it. */
typedef struct tsr_batch_choice {
    tsr_text_stream stream;
    tsr_finish finish; /* TSR_FINISH_NONE while it runs */
    int32_t last_token;
    int32_t prompt_tokens;
    int32_t output_tokens;
} tsr_batch_choice;

typedef struct tsr_batch_line {
    json_t *custom_id; /* owned; a string, or null where the line has none */
    tsr_generation generation;
    tsr_batch_choice *choices; /* [generation.prompt_count] */
    size_t submitted;          /* prompts given to the engine */
    size_t finished;
    uint64_t number; /* of the line in its file, from 1 */
} tsr_batch_line;

/* TSR_ERR_OUTPUT when the line cannot be written, TSR_ERR_MEMORY; silently */
TSR_MUST_USE tsr_status tsr_batch_answer_write(const tsr_batch_line *line, const char *model,
                                               FILE *out);
TSR_MUST_USE tsr_status tsr_batch_error_write(const json_t *custom_id, uint64_t number,
                                              const tsr_refusal *refusal, FILE *out);

#endif
