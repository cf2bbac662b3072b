/* Runs the built program, alone or under mpirun, and reads back what it wrote. For tests of whole
 * commands. */
#ifndef TSR_TESTS_LAUNCH_COMMAND_H
#define TSR_TESTS_LAUNCH_COMMAND_H

#include <stddef.h>

/* A fresh folder that is removed at exit. */
const char *scratch_folder(void);

/* "scratch/name"; valid until the fourth call after it. */
const char *scratch_path(const char *name);

/* Runs a shell command; stdout and stderr go to scratch/out and scratch/err. Returns its exit code,
 * -1 for a signal. */
__attribute__((format(printf, 1, 2))) int run_command_line(const char *format, ...);

/* "mpirun ... -n N", usable as root and with fewer cores than ranks. Valid until the next call. */
const char *mpirun(int ranks);

/* A whole file with a zero byte behind it; the caller frees it. Fails the test when it cannot be
 * read. */
char *read_whole(const char *path, size_t *ret_bytes);

/* Where a tensor begins in the bytes of a file of safetensors. */
size_t tensor_begin(const char *bytes, const char *tensor);

/* Fails the test unless scratch/err (or out) holds the text; prints what is there instead. */
void assert_said(const char *stream, const char *text);

/* Fails the test unless scratch/err holds exactly `count` lines that say "error". */
void assert_error_lines(int count);

#endif
