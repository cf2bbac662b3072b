/* Where a command may write: nowhere that it reads, and no file of a checkpoint. */
#ifndef TSR_LAUNCH_FILES_OUTPUT_PATH_H
#define TSR_LAUNCH_FILES_OUTPUT_PATH_H

#include "runtime/base/status.h"

#include <stddef.h>

/* A file as the command line names it. */
typedef struct tsr_named_path {
    const char *option; /* "--input" */
    const char *path;   /* NULL: not given */
} tsr_named_path;

/*
 * Refuses an output that is one of `reads`, or is or would become a file of the checkpoint.
 *
 *   folder  of the checkpoint; NULL: none
 *   reads   [count]
 *
 * TSR_ERR_ARG, logged. What cannot be looked at is no reason: opening it will say so.
 */
TSR_MUST_USE tsr_status tsr_output_path_check(const tsr_named_path *output, const char *folder,
                                              const tsr_named_path *reads, size_t count);

#endif
