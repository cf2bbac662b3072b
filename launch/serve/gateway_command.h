/* The gateway's process: clients in front, an engine behind. */
#ifndef TSR_LAUNCH_SERVE_GATEWAY_COMMAND_H
#define TSR_LAUNCH_SERVE_GATEWAY_COMMAND_H

#include "launch/cli/config.h"

typedef struct tsr_gateway_command_args {
    const tsr_config *config;
    const tsr_launch_info *info;
    int listener;  /* of tsr_listen_open; taken over */
    int32_t port;  /* likewise */
    int engine_fd; /* the engine's socket, taken over; -1: an engine is started, and looked after */
} tsr_gateway_command_args;

/*
 * Serves until it is told to drain or no engine will come any more.
 *
 *   ret_code  the exit code of the process
 */
void tsr_gateway_command(const tsr_gateway_command_args *args, int *ret_code);

#endif
