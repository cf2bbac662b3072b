/* tessera chat: questions and answers at a terminal, with a server that is there or one of its own. */
#ifndef TSR_LAUNCH_CLIENT_CHAT_COMMAND_H
#define TSR_LAUNCH_CLIENT_CHAT_COMMAND_H

#include "launch/cli/config.h"

/* Options that rule each other out. TSR_ERR_ARG, logged */
TSR_MUST_USE tsr_status tsr_chat_command_check(const tsr_config *config,
                                               const tsr_launch_info *info);

/* The exit code of the process. */
void tsr_chat_command(const tsr_config *config, const tsr_launch_info *info, int *ret_code);

#endif
