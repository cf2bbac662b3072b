/* One row per command: config.c finds a command by it, and every text about commands is made from
 * it (--help, the manual, the shell's completion). */
#ifndef TSR_LAUNCH_CLI_COMMAND_TABLE_H
#define TSR_LAUNCH_CLI_COMMAND_TABLE_H

#include "launch/cli/config.h"

#include <stddef.h>

typedef struct tsr_command_row {
    const char *name;
    tsr_command command;
    const char *argument; /* "DIR|comm": a folder, or one of these words; NULL: takes none */
    const char *usage;
    const char *help;
    const char *example;
} tsr_command_row;

extern const tsr_command_row tsr_command_rows[];
extern const size_t tsr_command_count;

/* Words in a command's place that print a text about the program. */
typedef struct tsr_printed_row {
    const char *word;
    size_t offset; /* into tsr_config, a bool */
} tsr_printed_row;

extern const tsr_printed_row tsr_printed_rows[];
extern const size_t tsr_printed_count;

/* NULL: there is none of that name. */
const tsr_command_row *tsr_command_find(const char *name);

#endif
