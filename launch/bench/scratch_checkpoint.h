/* A checkpoint that is made for one job, in a folder of its own, and removed again. */
#ifndef TSR_LAUNCH_BENCH_SCRATCH_CHECKPOINT_H
#define TSR_LAUNCH_BENCH_SCRATCH_CHECKPOINT_H

#include "launch/cli/config.h"
#include "runtime/synthetic/synthetic.h"

/* Zero-initialise; close with tsr_scratch_checkpoint_remove. */
typedef struct tsr_scratch_checkpoint {
    char *folder; /* NULL: there is none */
} tsr_scratch_checkpoint;

/* What --shape and the options beside it ask for. */
tsr_synthetic_request tsr_scratch_request(const tsr_config *config);

/* TSR_ERR_OUTPUT, logged: --scratch cannot be written to; TSR_ERR_ARG, TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_scratch_checkpoint_make(const tsr_config *config,
                                                    tsr_scratch_checkpoint *scratch);

/* May be called again, and where nothing was made. */
void tsr_scratch_checkpoint_remove(tsr_scratch_checkpoint *scratch);

#endif
