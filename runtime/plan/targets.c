/*
 * A row for each device, compiled everywhere, so that a plan for eight H200s is made on a laptop.
 * What a board keeps to itself is an estimate, and is called that.
 */
#include "runtime/plan/targets.h"

#include "runtime/base/machine.h"
#include "runtime/base/sizes.h"

#include <stdio.h>
#include <string.h>

#define GIB (UINT64_C(1) << 30)

/* What is alike for all of them. */
#define GPU                                                                                        \
    .reserve_bytes = 3 * GIB / 2, .activation_bytes = TSR_CUDA_ACTIVATION_BYTES, .flights = 2,     \
    .plain_kv = TSR_KV_BF16, .max_num_seqs = 256, .max_batched_tokens = 8192,                      \
    .linear_bytes = tsr_cuda_linear_bytes, .work_bytes = tsr_cuda_workspace_bytes

/* GPU memory: nine tenths of what the board has. */
static const tsr_target targets[] = {
    {.name = "cpu",
     .host = true,
     .exact_workspace = true,
     .fp8 = true,
     .fp4 = true,
     .activation_bytes = TSR_CPU_ACTIVATION_BYTES,
     .flights = 1,
     .plain_kv = TSR_KV_F32,
     .max_num_seqs = 64,
     .max_batched_tokens = 512,
     .linear_bytes = tsr_cpu_linear_bytes,
     .work_bytes = tsr_cpu_workspace_bytes},
    {.name = "h100", .fp8 = true, .memory_bytes = UINT64_C(72000000000), GPU},
    {.name = "h200", .fp8 = true, .memory_bytes = UINT64_C(126900000000), GPU},
    {.name = "b200", .fp8 = true, .fp4 = true, .memory_bytes = UINT64_C(162000000000), GPU},
};

enum { TARGETS = sizeof(targets) / sizeof(targets[0]) };

const char *tsr_target_choice(size_t index)
{
    return index < TARGETS ? targets[index].name : NULL;
}

const tsr_target *tsr_target_find(const char *name)
{
    for (size_t i = 0; i < TARGETS; i++)
        if (strcmp(name, targets[i].name) == 0)
            return &targets[i];
    return NULL;
}

const char *tsr_target_name(const tsr_target *target)
{
    return target->name;
}

bool tsr_target_can(const tsr_target *target, tsr_activation activation)
{
    if (activation == TSR_ACTIVATION_NONE)
        return true;
    return activation == TSR_ACTIVATION_NVFP4 ? target->fp4 : target->fp8;
}

void tsr_target_lack(const tsr_target *target, tsr_activation activation, size_t capacity,
                     char *ret_text)
{
    (void)snprintf(ret_text, capacity, "%s has no %s tensor cores", target->name,
                   activation == TSR_ACTIVATION_NVFP4 ? "FP4" : "FP8");
}

int32_t tsr_target_threads(int32_t ranks)
{
    const tsr_machine_cpus cpus = tsr_machine_cpus_read("");
    return tsr_machine_threads(&cpus, ranks);
}

void tsr_plan_request_count_memory(tsr_plan_request *request)
{
    if (request->memory_bytes > 0)
        return;
    request->memory_bytes = request->target->memory_bytes;
    request->memory_is_shared = request->target->host;
    if (!request->target->host)
        return;
    request->memory_bytes = tsr_machine_memory("") / (uint64_t)tsr_larger(request->ranks, 1);
}
