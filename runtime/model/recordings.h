/*
 * Steps that are played again. A step that decodes does the same work on the same addresses as the
 * last one of its sizes, with other contents: a device that can records such a step the second time
 * its sizes come up, and from then on gets it as one piece.
 *
 *   sizes (flight, tokens, rows, samples, bent, rounds)    seen once    recorded    played n times
 *
 * A device that gains nothing by it gives no recording, and every step is done as usual.
 */
#ifndef TSR_RUNTIME_MODEL_RECORDINGS_H
#define TSR_RUNTIME_MODEL_RECORDINGS_H

#include "kernels/device.h"
#include "runtime/base/status.h"
#include "runtime/plan/batch.h"

#include <stdbool.h>
#include <stdint.h>

/* What the work of a step depends on; block tables stand last in a batch and move nothing. */
typedef struct tsr_step_sizes {
    int32_t flight;
    int32_t tokens;
    int32_t logit_rows;
    int32_t samples;
    int32_t max_rank_tokens;
    bool is_bent; /* some sample has rules or a min_p */
} tsr_step_sizes;

/* How many sizes are remembered; the one that was not used for longest goes. */
enum { TSR_RECORDINGS = 32 };

typedef struct tsr_recorded_step {
    tsr_step_sizes sizes;     /* tokens 0: nothing is remembered here */
    tsr_recording *recording; /* NULL: seen once */
    uint64_t used;
} tsr_recorded_step;

typedef struct tsr_recordings {
    tsr_recorded_step step[TSR_RECORDINGS];
    uint64_t uses;
} tsr_recordings;

/* Whether a batch only decodes: other sizes hardly ever come again. */
bool tsr_is_recordable(const tsr_batch_sizes *batch);

/* What is remembered of these sizes; from now on at least that they were seen.
 *   ret_again  false: they are new */
tsr_recorded_step *tsr_recordings_find(tsr_recordings *recordings, tsr_device *device,
                                       const tsr_step_sizes *sizes, bool *ret_again);

void tsr_recordings_close(tsr_recordings *recordings, tsr_device *device);

#endif
