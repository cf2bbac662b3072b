/* Brings the ranks of a job up: this process as one of mpirun's, or threads of this process. */
#ifndef TSR_LAUNCH_JOB_RANKS_H
#define TSR_LAUNCH_JOB_RANKS_H

#include "comm/comm.h"
#include "launch/cli/config.h"

/* What one rank does. It neither closes nor keeps the comm. */
typedef tsr_status (*tsr_rank_main)(tsr_comm *comm, void *context);

/*
 * Runs `rank_main` on every rank and returns when this process's ranks have ended. When several
 * ranks end with an error, the cause counts, not the echo (TSR_ERR_PEER).
 */
TSR_MUST_USE tsr_status tsr_ranks_run(const tsr_config *config, const tsr_launch_info *info,
                                      tsr_rank_main rank_main, void *context);

/*
 * Whether a job of `ranks` is the one that was meant: as many as --expect-world-size or, without it,
 * no fewer than the launcher has started. TSR_ERR_INIT, logged by the launcher's process 0
 */
TSR_MUST_USE tsr_status tsr_ranks_check_size(const tsr_config *config, const tsr_launch_info *info,
                                             int32_t ranks);

#endif
