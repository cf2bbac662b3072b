/* tessera bench serve: load on an OpenAI-compatible server, and how it bears it. */
#ifndef TSR_LAUNCH_CLIENT_LOAD_COMMAND_H
#define TSR_LAUNCH_CLIENT_LOAD_COMMAND_H

#include "launch/cli/config.h"

#include <stdio.h>

/* `tessera bench serve`; a folder of that name is ./serve. */
bool tsr_load_is_asked(const tsr_config *config);

/* TSR_ERR_PEER: requests failed, and the line says how many and why the first did. */
TSR_MUST_USE tsr_status tsr_load_command(const tsr_config *config, FILE *out);

#endif
