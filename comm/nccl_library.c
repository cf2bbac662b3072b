/* Loaded once, and kept to the end of the process: NCCL's threads may outlive its communicators. */
#include "comm/nccl_library.h"

#include "comm/exchange.h"
#include "runtime/base/log.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { PER_MINOR = 100 }; /* NCCL writes 2.28.3 as 22803 */

static const struct {
    const char *name;
    size_t at;
} functions[] = {
    {"ncclGetVersion", offsetof(tsr_nccl_library, get_version)},
    {"ncclGetUniqueId", offsetof(tsr_nccl_library, get_unique_id)},
    {"ncclGetErrorString", offsetof(tsr_nccl_library, get_error_string)},
    {"ncclGetLastError", offsetof(tsr_nccl_library, get_last_error)},
    {"ncclCommInitRankConfig", offsetof(tsr_nccl_library, comm_init)},
    {"ncclCommGetAsyncError", offsetof(tsr_nccl_library, comm_error)},
    {"ncclCommFinalize", offsetof(tsr_nccl_library, comm_finalize)},
    {"ncclCommDestroy", offsetof(tsr_nccl_library, comm_destroy)},
    {"ncclCommAbort", offsetof(tsr_nccl_library, comm_abort)},
    {"ncclMemAlloc", offsetof(tsr_nccl_library, mem_alloc)},
    {"ncclMemFree", offsetof(tsr_nccl_library, mem_free)},
    {"ncclCommWindowRegister", offsetof(tsr_nccl_library, window_register)},
    {"ncclCommWindowDeregister", offsetof(tsr_nccl_library, window_deregister)},
    {"ncclTeamLsa", offsetof(tsr_nccl_library, team_lsa)},
};

static tsr_nccl_library loaded;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool is_loaded;
static bool is_usable;

/* NCCL reads its environment when a communicator is first made. That two ranks may share a GPU is
 * the launcher's to decide; NCCL before 2.30 does not know the word. */
static void load(void)
{
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return;
    is_loaded = setenv("NCCL_NVLS_ENABLE", "0", 1) == 0 &&
                setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1) == 0;
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        void *function = dlsym(library, functions[i].name);
        if (function == NULL)
            return;
        memcpy((char *)&loaded + functions[i].at, &function, sizeof(function));
    }
    is_usable = is_loaded;
}

bool tsr_exchange_reaches_cards(void)
{
    (void)pthread_once(&once, load);
    return is_usable;
}

tsr_status tsr_nccl_library_open(const tsr_nccl_library **ret_library)
{
    int version = 0;

    (void)pthread_once(&once, load);
    if (!is_loaded) {
        tsr_log(TSR_LOG_ERROR,
                "NCCL is not installed here (libnccl.so.2), which moves rows "
                "between GPUs: install libnccl2 %d.%d, or start one rank",
                NCCL_MAJOR, NCCL_MINOR);
        return TSR_ERR_DEVICE;
    }
    if (!is_usable || loaded.get_version(&version) != ncclSuccess ||
        version / PER_MINOR != NCCL_VERSION_CODE / PER_MINOR) {
        tsr_log(TSR_LOG_ERROR,
                "NCCL here (%d) is not the %d.%d that this build is made for: install that one, or "
                "build with this one's header",
                version, NCCL_MAJOR, NCCL_MINOR);
        return TSR_ERR_DEVICE;
    }
    *ret_library = &loaded;
    return TSR_OK;
}
