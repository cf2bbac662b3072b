/* tessera score: the logits of every position of given sequences. */
#ifndef TSR_LAUNCH_SCORE_SCORE_COMMAND_H
#define TSR_LAUNCH_SCORE_SCORE_COMMAND_H

#include "launch/cli/config.h"

/* Whether --tokens and --out are there, and two files. */
TSR_MUST_USE tsr_status tsr_score_command_check(const tsr_config *config);

TSR_MUST_USE tsr_status tsr_score_command(const tsr_config *config, const tsr_launch_info *info);

#endif
