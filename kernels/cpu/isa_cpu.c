/*
 * The table of one instruction set.
 */
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/linear_cpu.h"
#include "kernels/cpu/ops_cpu.h"

const tsr_cpu_isa_table ISA(tsr_cpu_isa_table) = {
    .name = TSR_ISA_NAME,
    .ops =
        {
            .embed = ISA(tsr_embed_cpu),
            .norm = ISA(tsr_norm_cpu),
            .linears = ISA(tsr_linears_cpu),
            .head = ISA(tsr_head_cpu),
            .add = ISA(tsr_add_cpu),
            .rotary = ISA(tsr_rotary_cpu),
            .attention = ISA(tsr_attention_cpu),
            .router = ISA(tsr_router_cpu),
            .mlp = ISA(tsr_mlp_cpu),
            .pack = ISA(tsr_pack_cpu),
            .experts = ISA(tsr_experts_cpu),
            .combine = ISA(tsr_combine_cpu),
            .sample = ISA(tsr_sample_cpu),
        },
    .format = ISA(tsr_cpu_formats),
    .format_of = ISA(tsr_cpu_format_of),
};
