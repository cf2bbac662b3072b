/* A refusal: what is said in place of an answer. */
#ifndef TSR_LAUNCH_REQUEST_REFUSAL_H
#define TSR_LAUNCH_REQUEST_REFUSAL_H

#include "runtime/base/status.h"

/* Why a body is refused, in the words of the OpenAI error object. */
typedef struct tsr_refusal {
    const char *code; /* "invalid_value", "unsupported_parameter", "context_length_exceeded" ...;
                         docs/operations.md has them */
    int status;       /* HTTP's: 400 where it is the request's fault, else 500 or 503 */
    char param[64];   /* "" when no one parameter is to blame */
    char message[1024];
} tsr_refusal;

/* Sets a refusal of status 400 and returns TSR_ERR_ARG. `param` may be NULL. */
__attribute__((format(printf, 4, 5))) tsr_status
tsr_refuse(tsr_refusal *ret_refusal, const char *code, const char *param, const char *format, ...);

#endif
