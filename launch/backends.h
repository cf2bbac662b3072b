/* What computes (--backend): a row for each kind of device this build has. */
#ifndef TSR_LAUNCH_BACKENDS_H
#define TSR_LAUNCH_BACKENDS_H

#include "kernels/device.h"
#include "launch/config.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct tsr_backend {
    const char *name;
    bool host;          /* computes in the host's memory, where rows travel between ranks */
    bool (*here)(void); /* this machine has one */
    /* Whose memory and abilities it has: a row of runtime/plan/targets.c. NULL, logged: of none. */
    const char *(*target)(void);
    /* Opens the device of one rank; `threads` as planned. Close it with tsr_device_close. */
    tsr_status (*open)(const tsr_config *config, int32_t threads, tsr_device **ret_device);
} tsr_backend;

/* "auto" is the best this build has that is here and takes so many ranks. NULL when there is no such
 * backend. */
const tsr_backend *tsr_backend_find(const char *name, int32_t ranks);

/* What --backend takes: "auto", then the rows; NULL behind the last. */
const char *tsr_backend_choice(size_t index);

#endif
