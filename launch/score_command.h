/* tessera score: the logits of every position of given sequences. */
#ifndef TSR_LAUNCH_SCORE_COMMAND_H
#define TSR_LAUNCH_SCORE_COMMAND_H

#include "launch/config.h"

TSR_MUST_USE tsr_status tsr_score_command(const tsr_config *config, const tsr_launch_info *info);

#endif
