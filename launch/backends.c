/*
 * The one table of backends. Planning finds its target here, a job its device; a new backend is a
 * row in front of those it is better than.
 */
#include "launch/backends.h"

#include <string.h>

static tsr_cpu_isa isa_of(const char *name)
{
    if (strcmp(name, "plain") == 0)
        return TSR_CPU_PLAIN;
    if (strcmp(name, "avx2") == 0)
        return TSR_CPU_AVX2;
    return strcmp(name, "avx512") == 0 ? TSR_CPU_AVX512 : TSR_CPU_AUTO;
}

static tsr_status open_cpu(const tsr_config *config, int32_t threads, tsr_device **ret_device)
{
    return tsr_device_open_cpu(threads, isa_of(config->cpu_isa), ret_device);
}

/* Best first. */
static const tsr_backend backends[] = {
    {.name = "cpu", .target = "cpu", .open = open_cpu},
};
enum { BACKENDS = sizeof(backends) / sizeof(backends[0]) };

const tsr_backend *tsr_backend_find(const char *name)
{
    if (strcmp(name, "auto") == 0)
        return &backends[0];
    for (size_t i = 0; i < BACKENDS; i++) {
        if (strcmp(name, backends[i].name) == 0)
            return &backends[i];
    }
    return NULL;
}

const char *tsr_backend_choice(size_t index)
{
    if (index == 0)
        return "auto";
    return index <= BACKENDS ? backends[index - 1].name : NULL;
}
