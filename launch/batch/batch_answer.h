/* One line of batch output: the OpenAI response object of a finished line, or its error. */
#ifndef TSR_LAUNCH_BATCH_BATCH_ANSWER_H
#define TSR_LAUNCH_BATCH_BATCH_ANSWER_H

#include "launch/request/answer_logprobs.h"
#include "launch/request/request_body.h"
#include "launch/request/text_stream.h"

/* One answer to a prompt of a line. */
typedef struct tsr_batch_choice {
    tsr_text_stream stream;
    tsr_logprob_list logprobs; /* empty unless they are asked for */
    tsr_finish finish;         /* TSR_FINISH_NONE while it runs */
    int32_t last_token;
    int32_t prompt_tokens;
    int32_t output_tokens;
} tsr_batch_choice;

/* Of one line. */
enum { TSR_MOST_BATCH_CHOICES = 1 << 16 };

typedef struct tsr_batch_line {
    tsr_text custom_id; /* a JSON string, as it stands in the line */
    tsr_generation generation;
    tsr_batch_choice *choices; /* [choice_count] of the first prompt, then of the next ... */
    size_t choice_count;       /* prompts * copies */
    size_t submitted;          /* choices given to the engine */
    size_t withdrawn;          /* of a failed line: prompts that the engine was told to let go */
    size_t finished;
    uint64_t number; /* among the lines that count, from 1; 0: it has failed, and that is written */
    size_t bytes;    /* what it holds, about */
} tsr_batch_line;

/* Add a line to `out`, or nothing. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_batch_answer_add(const tsr_batch_line *line,
                                             const tsr_tokenizer *tokenizer, const char *model,
                                             tsr_text *out);

/* `custom_id` is a JSON string of `id_bytes` bytes; NULL: null stands there. */
TSR_MUST_USE tsr_status tsr_batch_error_add(const char *custom_id, size_t id_bytes, uint64_t number,
                                            const tsr_refusal *refusal, tsr_text *out);

#endif
