/* The manual page of the program, from the tables that the program itself goes by. */
#ifndef TSR_LAUNCH_CLI_MANUAL_H
#define TSR_LAUNCH_CLI_MANUAL_H

#include <stdio.h>

/* In the language of man(7). Whether it could be written is the stream's to say. */
void tsr_manual_write(FILE *out);

#endif
