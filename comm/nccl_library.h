/*
 * NCCL's functions, found when they are first needed, so that one binary serves machines with and
 * without NCCL: a build needs its header alone. A table of them, so that a test can bring its own.
 *
 * Multicast over NVLink stays off, whatever the environment says.
 */
#ifndef TSR_COMM_NCCL_LIBRARY_H
#define TSR_COMM_NCCL_LIBRARY_H

#include "runtime/base/status.h"

#include <nccl.h>
#include <stdint.h>

/* Ranks that reach each other's memory: as NCCL's ncclTeam_t, whose header is C++. */
typedef struct tsr_nccl_team {
    int ranks;
    int rank;
    int stride;
} tsr_nccl_team;

typedef struct tsr_nccl_library {
    ncclResult_t (*get_version)(int *version);
    ncclResult_t (*get_unique_id)(ncclUniqueId *id);
    const char *(*get_error_string)(ncclResult_t result);
    const char *(*get_last_error)(ncclComm_t comm);
    ncclResult_t (*comm_init)(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank,
                              ncclConfig_t *config);
    ncclResult_t (*comm_error)(ncclComm_t comm, ncclResult_t *ret_error);
    ncclResult_t (*comm_finalize)(ncclComm_t comm);
    ncclResult_t (*comm_destroy)(ncclComm_t comm);
    ncclResult_t (*comm_abort)(ncclComm_t comm);
    ncclResult_t (*mem_alloc)(void **memory, size_t bytes);
    ncclResult_t (*mem_free)(void *memory);
    ncclResult_t (*window_register)(ncclComm_t comm, void *memory, size_t bytes,
                                    ncclWindow_t *window, int flags);
    ncclResult_t (*window_deregister)(ncclComm_t comm, ncclWindow_t window);
    tsr_nccl_team (*team_lsa)(ncclComm_t comm);
} tsr_nccl_library;

/*
 * TSR_ERR_DEVICE, logged: NCCL is not installed here, or is not the version that kernels were
 * built for: they read what it keeps in device memory.
 */
TSR_MUST_USE tsr_status tsr_nccl_library_open(const tsr_nccl_library **ret_library);

#endif
