/* One prompt as the engine's source and its answer, streamed to a terminal or a pipe, as its
 * sink. */
#ifndef TSR_LAUNCH_BATCH_PROMPT_SESSION_H
#define TSR_LAUNCH_BATCH_PROMPT_SESSION_H

#include "launch/files/output_file.h"
#include "launch/request/request_body.h"
#include "launch/request/text_stream.h"

/* Zero-initialise; open fills it, close always. */
typedef struct tsr_prompt_session {
    tsr_generation generation;
    tsr_text_stream stream;
    size_t shown; /* bytes of stream.text that were written */
    bool submitted;
    tsr_output_file *out; /* stdout */
    tsr_finish finish;
} tsr_prompt_session;

/* Takes the generation over. `tokenizer` is borrowed. */
TSR_MUST_USE tsr_status tsr_prompt_session_open(tsr_generation *generation,
                                                const tsr_tokenizer *tokenizer, int32_t deadline_ms,
                                                tsr_prompt_session *session);

tsr_source tsr_prompt_session_source(tsr_prompt_session *session);

/* The sink's status is TSR_ERR_ARG, logged, when the engine refuses the prompt. */
tsr_sink tsr_prompt_session_sink(tsr_prompt_session *session);

void tsr_prompt_session_close(tsr_prompt_session *session);

#endif
