/* What this process may use of its machine. In a container, a batch job or a service that is less
 * than the machine has. */
#ifndef TSR_RUNTIME_BASE_MACHINE_H
#define TSR_RUNTIME_BASE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Bytes of memory: what the machine has available, or the limit of the process's control group
 * (version 2) and of every group around it, whichever is least. 0 when the machine does not say.
 *
 *   root  stands in front of /proc and /sys: "" for this machine
 */
uint64_t tsr_machine_memory(const char *root);

/* Cores that this process may run on, at least 1. *ret_bound, which may be NULL: the machine has
 * more, so somebody has bound it to these. */
int32_t tsr_machine_cores(bool *ret_bound);

#endif
