/*
 * Inside the CPU device: the gated MLP over rows grouped by their weights.
 */
#ifndef TSR_KERNELS_CPU_MLP_CPU_H
#define TSR_KERNELS_CPU_MLP_CPU_H

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/isa.h"

/*
 * out[target[i]] = mlp of i's group (x[source[i]]) for i < rows; rows <= the workspace's chunk.
 * Without source and target, row i answers row i.
 */
typedef struct tsr_mlp_rows {
    float *out;
    const float *x;
    const int32_t *source; /* [rows] or NULL */
    const int32_t *target; /* [rows] or NULL */
    const tsr_mlp_group *group;
    size_t out_stride; /* floats */
    size_t x_stride;   /* floats */
    int32_t groups;
    int32_t rows; /* the sum of the groups' counts, which follow each other */
} tsr_mlp_rows;

void ISA(tsr_mlp_run)(tsr_cpu_device *cpu, const tsr_mlp_rows *m);

#endif
