/*
 * What a step under way keeps to itself, so that the next one can be launched beside it:
 *
 *   host       image        prompts ... ids     results
 *   putting    put, put_mark    |                  ^
 *   stream       |  await   put, each to text      '-- samples    mark
 *                v              v
 *   device     batch        text [slot]         logits
 */
#ifndef TSR_RUNTIME_MODEL_FLIGHT_H
#define TSR_RUNTIME_MODEL_FLIGHT_H

#include "kernels/blocks.h"
#include "runtime/base/status.h"
#include "runtime/model/step.h"
#include "runtime/plan/batch.h"

#include <stdbool.h>

typedef struct tsr_flight {
    tsr_batch batch;                /* in `image` */
    tsr_batch on_device;            /* the same views of the device's copy; it has no prompts */
    void *image;                    /* host memory of the device, as is the next one */
    tsr_sampled *results;           /* [logit_rows], written by the device, as are the next */
    tsr_token_logprob *top_results; /* [logit_rows * TSR_MOST_TOP] */
    void *block;                    /* device memory, as are the next two */
    float *logits;                  /* [logit_rows, V] */
    uint32_t *masks;                /* [masks, mask_words] of tsr_batch_most */
    tsr_mark *put_mark;             /* behind the batch's put */
    tsr_mark *mark;                 /* behind everything */
    tsr_device *device;
    uint64_t epoch;
    int32_t rounds; /* exchanges of each layer */
    bool out;       /* launched and not landed */
} tsr_flight;

/* Flight `number` of the step's arrays. TSR_ERR_MEMORY, TSR_ERR_DEVICE */
TSR_MUST_USE tsr_status tsr_flight_open(const tsr_plan *plan, const tsr_step *step, int32_t number,
                                        tsr_flight *ret_flight);

/* Lays a batch out. TSR_ERR_ARG, logged: more than the limits */
TSR_MUST_USE tsr_status tsr_flight_lay_out(tsr_flight *flight, const tsr_plan *plan,
                                           const tsr_batch_sizes *count);

/* Puts the batch on a stream of its own, since nothing that is under way reads it; the masks on the step's,
 * its prompts into the text, rules to those of their slots. TSR_ERR_ARG, logged: a prompt, rules, a slot
 * or a position beyond the limits */
TSR_MUST_USE tsr_status tsr_flight_put(const tsr_flight *flight, const tsr_plan *plan,
                                       const tsr_text_table *text, tsr_token_rules *rules,
                                       tsr_stream putting, tsr_stream stream);

/* A zeroed struct is allowed. */
void tsr_flight_close(tsr_flight *flight);

#endif
