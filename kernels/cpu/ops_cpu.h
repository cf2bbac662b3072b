/*
 * The remaining operations of the CPU device, one file each; isa_cpu.c puts them in the table.
 */
#ifndef TSR_KERNELS_CPU_OPS_CPU_H
#define TSR_KERNELS_CPU_OPS_CPU_H

#include "kernels/cpu/isa.h"
#include "kernels/ops.h"

tsr_status ISA(tsr_embed_cpu)(tsr_device *device, const tsr_embed_block *b, tsr_stream s);
tsr_status ISA(tsr_norm_cpu)(tsr_device *device, const tsr_norm_args *a, tsr_stream s);
tsr_status ISA(tsr_add_cpu)(tsr_device *device, const tsr_add_args *a, tsr_stream s);
tsr_status ISA(tsr_rotary_cpu)(tsr_device *device, const tsr_rotary_args *a, tsr_stream s);
tsr_status ISA(tsr_attention_cpu)(tsr_device *device, const tsr_attention_args *a, tsr_stream s);
tsr_status ISA(tsr_router_cpu)(tsr_device *device, const tsr_router_args *a, tsr_stream s);
tsr_status ISA(tsr_mlp_cpu)(tsr_device *device, const tsr_mlp_args *a, tsr_stream s);
tsr_status ISA(tsr_pack_cpu)(tsr_device *device, const tsr_pack_args *a, tsr_stream s);
tsr_status ISA(tsr_experts_cpu)(tsr_device *device, const tsr_experts_block *b, tsr_stream s);
tsr_status ISA(tsr_combine_cpu)(tsr_device *device, const tsr_combine_block *a, tsr_stream s);
tsr_status ISA(tsr_sample_cpu)(tsr_device *device, const tsr_sample_args *a, tsr_stream s);

/* out = x / sqrt(mean(x^2) + eps) * weight over `count` elements, a multiple of 16. */
void ISA(tsr_norm_row)(float *out, const float *x, const float *weight, int32_t count, float eps);

#endif
