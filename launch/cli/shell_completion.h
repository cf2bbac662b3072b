/* What bash completes a tessera command line by, from the tables of commands and options. */
#ifndef TSR_LAUNCH_CLI_SHELL_COMPLETION_H
#define TSR_LAUNCH_CLI_SHELL_COMPLETION_H

#include <stdio.h>

/* A script to be sourced. Whether it could be written is the stream's to say. */
void tsr_shell_completion_write(FILE *out);

#endif
