/* Whether two paths lead to one file, so that writing the one would destroy the other. */
#ifndef TSR_LAUNCH_SAME_FILE_H
#define TSR_LAUNCH_SAME_FILE_H

#include <stdbool.h>

/* False where either does not exist, and for devices and pipes, which nothing destroys. */
bool tsr_same_file(const char *a, const char *b);

#endif
