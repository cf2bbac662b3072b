/*
 * A file that a command writes. Where there is nothing yet it is written as it comes. Where there is
 * something, that stays until all is there to take its place: until then what is written is called
 * PATH.partial. Pipes and devices are written as they are.
 *
 * No call waits for whoever reads the other end of a pipe, but for those that say so: what does not
 * go yet is kept, and goes with a later call. Who takes nothing for longer than the deadline fails
 * the file. The first failure is logged with the option and the path; calls after it fail silently.
 */
#ifndef TSR_LAUNCH_FILES_OUTPUT_FILE_H
#define TSR_LAUNCH_FILES_OUTPUT_FILE_H

#include "runtime/base/status.h"
#include "runtime/base/text_buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tsr_output_file tsr_output_file;

typedef struct tsr_output_args {
    const char *option; /* "--output"; borrowed */
    const char *path;   /* borrowed */
    int32_t deadline_ms;
    bool resume; /* tsr_output_file_resume follows */
    bool places; /* written at places of its own choice: no pipe; nothing of it is kept when it was
                    not finished */
} tsr_output_args;

/*
 * Finds out whether the file can be written, and that nobody else is writing it.
 *
 * TSR_ERR_OUTPUT, logged; TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_output_file_open(const tsr_output_args *args,
                                             tsr_output_file **ret_file);

/* Writes to a descriptor that is there already, and stays open; `name` stands for it in messages.
 * TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_output_file_over(int descriptor, const char *name, int32_t deadline_ms,
                                             tsr_output_file **ret_file);

/* Which lines stay. */
typedef struct tsr_line_keeper {
    tsr_status (*keep)(void *context, int32_t file, const char *line, size_t count, bool *ret_keep);
    void *context;
} tsr_line_keeper;

/*
 * Goes on with what an earlier run has left in PATH.partial and in PATH: each whole line is offered
 * to `keep`, and stays when it says so. A last line without an end is dropped. Before anything is
 * written.
 *
 *   keep  file: 0 for PATH.partial, then 1 for PATH; TSR_ERR_ARG: this is no such line
 *
 * TSR_ERR_ARG, logged: PATH is a pipe or device, or a line is none of `keep`'s
 * TSR_ERR_OUTPUT, logged; TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_output_file_resume(tsr_output_file *file,
                                               const tsr_line_keeper *keeper);

/* Where the next bytes are put together; written with the next push. A line in it is whole. */
tsr_text *tsr_output_file_text(tsr_output_file *file);

/* Writes what goes now. TSR_ERR_OUTPUT, TSR_ERR_TIMEOUT */
TSR_MUST_USE tsr_status tsr_output_file_push(tsr_output_file *file);

/* Bytes that wait for a reader. */
size_t tsr_output_file_waiting(const tsr_output_file *file);

/* Writes at a place, at once. TSR_ERR_OUTPUT */
TSR_MUST_USE tsr_status tsr_output_file_put(tsr_output_file *file, uint64_t offset,
                                            const void *bytes, size_t count);

/* Waits until all is written, and gives the file its name. TSR_ERR_OUTPUT, TSR_ERR_TIMEOUT */
TSR_MUST_USE tsr_status tsr_output_file_finish(tsr_output_file *file);

/* Of a file that was not finished whole lines stay, under the name that it has; one without any is
 * removed. NULL is allowed. */
void tsr_output_file_close(tsr_output_file *file);

#endif
