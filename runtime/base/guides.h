/*
 * Guides: which tokens may come next, for a request whose answer has to be of a form. The engine asks
 * and knows nothing of forms; text answers and knows nothing of steps.
 */
#ifndef TSR_RUNTIME_BASE_GUIDES_H
#define TSR_RUNTIME_BASE_GUIDES_H

#include "runtime/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What may follow the outputs so far. */
typedef struct tsr_guidance {
    bool is_free;    /* anything: the bits were not written */
    bool may_end;    /* the ids that end an answer too; no guide has them among its bits */
    const char *why; /* where nothing can be said: a line, as long as the guide; else NULL */
} tsr_guidance;

/* The words of a bit for each id. */
static inline int32_t tsr_guide_words(int32_t ids)
{
    return (ids + 31) / 32;
}

typedef struct tsr_guides {
    /*
     * A guide by the text that the request has.
     *
     *   refusal  [refusal_bytes] why there is none, one line
     *
     * TSR_ERR_ARG: see refusal; TSR_ERR_MEMORY
     */
    tsr_status (*open)(void *context, const char *text, char *refusal, size_t refusal_bytes,
                       void **ret_guide);

    /* Of the outputs [count] of the request, which grow from call to call. bits: [tsr_guide_words of
     * the model's ids]. Takes no memory. */
    tsr_guidance (*ask)(void *guide, const int32_t *outputs, int32_t count, uint32_t *bits);

    void (*close)(void *guide);
    void *context;
} tsr_guides;

#endif
