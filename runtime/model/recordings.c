/* A handful of sizes come again and again while requests decode, so a short table that is searched
 * from end to end is enough; capturing a step costs far more than the search. */
#include "runtime/model/recordings.h"

static bool same(const tsr_step_sizes *a, const tsr_step_sizes *b)
{
    return a->flight == b->flight && a->tokens == b->tokens && a->logit_rows == b->logit_rows &&
           a->samples == b->samples && a->max_rank_tokens == b->max_rank_tokens &&
           a->is_bent == b->is_bent;
}

bool tsr_is_recordable(const tsr_batch_sizes *batch)
{
    return batch->tokens > 0 && batch->tokens == batch->sequences;
}

tsr_recorded_step *tsr_recordings_find(tsr_recordings *recordings, tsr_device *device,
                                       const tsr_step_sizes *sizes, bool *ret_again)
{
    tsr_recorded_step *oldest = &recordings->step[0];

    recordings->uses++;
    for (int32_t i = 0; i < TSR_RECORDINGS; i++) {
        tsr_recorded_step *step = &recordings->step[i];
        if (same(&step->sizes, sizes)) {
            step->used = recordings->uses;
            *ret_again = true;
            return step;
        }
        if (step->used < oldest->used)
            oldest = step;
    }
    tsr_device_recording_close(device, oldest->recording);
    *oldest = (tsr_recorded_step){.sizes = *sizes, .used = recordings->uses};
    *ret_again = false;
    return oldest;
}

void tsr_recordings_close(tsr_recordings *recordings, tsr_device *device)
{
    for (int32_t i = 0; i < TSR_RECORDINGS; i++)
        tsr_device_recording_close(device, recordings->step[i].recording);
    *recordings = (tsr_recordings){0};
}
