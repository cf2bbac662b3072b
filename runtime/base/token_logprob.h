/* A token and how probable it was: what sampling, steps and outputs all tell. */
#ifndef TSR_RUNTIME_BASE_TOKEN_LOGPROB_H
#define TSR_RUNTIME_BASE_TOKEN_LOGPROB_H

#include <stdint.h>

typedef struct tsr_token_logprob {
    int32_t token;
    float logprob;
} tsr_token_logprob;

/* Of the most probable ids at one position, more are not told. */
enum { TSR_MOST_TOP = 20 };

#endif
