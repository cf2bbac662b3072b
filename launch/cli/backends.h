/* What computes (--backend): a row for each kind of device this build has. */
#ifndef TSR_LAUNCH_CLI_BACKENDS_H
#define TSR_LAUNCH_CLI_BACKENDS_H

#include "kernels/device.h"
#include "launch/cli/config.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct tsr_backend {
    const char *name;
    bool host;          /* computes in the host's memory; false: on GPUs */
    bool (*here)(void); /* this machine has one */
    /* Whose memory and abilities it has: a row of runtime/plan/targets.c. NULL, logged: of none. */
    const char *(*target)(void);
    /* Opens the device of one rank; `threads` as planned, `card` its GPU. Close it with
     * tsr_device_close. */
    tsr_status (*open)(const tsr_config *config, int32_t threads, int32_t card,
                       tsr_device **ret_device);
} tsr_backend;

/* What a job asks of its GPUs. */
typedef struct tsr_backend_ranks {
    int32_t ranks;
    int32_t on_card;   /* most ranks on one GPU; 0: a rank has none */
    int32_t allowed;   /* so many may be */
    const char *crowd; /* who meets on one, for a message; borrowed */
} tsr_backend_ranks;

/* "auto" is the best this build has that is here and takes these ranks. NULL when there is no such
 * backend. */
const tsr_backend *tsr_backend_find(const char *name, const tsr_backend_ranks *ranks);

/* The same before anything is known of ranks but that each would have what it needs. */
const tsr_backend *tsr_backend_of(const char *name);

/* Whether a backend that was named takes these ranks. TSR_ERR_DEVICE, logged. That GPUs stay unused
 * because ranks meet on one is a warning. */
TSR_MUST_USE tsr_status tsr_backend_check(const tsr_backend *backend,
                                          const tsr_backend_ranks *ranks);

/* What --backend takes: "auto", then the rows; NULL behind the last. */
const char *tsr_backend_choice(size_t index);

#endif
