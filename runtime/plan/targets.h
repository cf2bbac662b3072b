/*
 * What a device can do and what it takes: a row for each, always compiled, so that a plan for one
 * can be made where there is none. Weights are exact; workspace of a GPU is an estimate.
 */
#ifndef TSR_RUNTIME_PLAN_TARGETS_H
#define TSR_RUNTIME_PLAN_TARGETS_H

#include "kernels/device.h"
#include "runtime/plan/plan_build.h"

struct tsr_target {
    const char *name;
    bool host;               /* this machine's memory, divided among the ranks on it */
    bool exact_workspace;    /* false: the figure is an estimate */
    bool fp8;                /* computes with FP8 activations */
    bool fp4;                /* computes with FP4 activations */
    uint64_t memory_bytes;   /* usable by one rank; host: 0 */
    uint64_t reserve_bytes;  /* taken by driver, libraries and graphs */
    size_t activation_bytes; /* of one element of a row */
    int32_t flights;         /* steps under way at once, as tsr_device_flights */
    tsr_kv_format plain_kv;  /* keys and values where nothing is declared */
    int32_t max_num_seqs;    /* defaults */
    int32_t max_batched_tokens;
    uint64_t (*linear_bytes)(tsr_weight_format format, int32_t out, int32_t in, bool bias,
                             bool pre_quant_scale);
    uint64_t (*work_bytes)(const tsr_work_shape *shape, int32_t threads);
};

/* True when the target computes with such activations. */
bool tsr_target_can(const tsr_target *target, tsr_activation activation);

/* "h200 has no FP4 tensor cores" */
void tsr_target_lack(const tsr_target *target, tsr_activation activation, size_t capacity,
                     char *ret_text);

/* Cores of this machine for each of its ranks, at least 1. */
int32_t tsr_target_threads(int32_t ranks);

#endif
