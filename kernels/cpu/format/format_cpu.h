/*
 * How the CPU keeps and reads one weight format. One file per format in this folder, one row in
 * format_table.c.
 */
#ifndef TSR_KERNELS_CPU_FORMAT_FORMAT_CPU_H
#define TSR_KERNELS_CPU_FORMAT_FORMAT_CPU_H

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/isa.h"

struct tsr_cpu_format {
    /* A weight is its decoded value * unit * scale of its row; unit is a power of two. */
    float unit;

    /* Bytes in memory, before alignment: tsr_weight_bytes and tsr_scale_bytes where they are kept
     * as the file has them. */
    uint64_t (*weight_bytes)(tsr_weight_format format, int32_t out, int32_t in);
    uint64_t (*scale_bytes)(tsr_weight_format format, int32_t out, int32_t in);

    /* Rows of W that are loaded together. */
    int32_t row_step;

    /* Rows of W that are computed together, and tokens up to which `stream` does it. */
    int32_t tile;
    int32_t stream_most;

    /* Rows of W, and of its scales (never called where there is no array of them), from the
     * checkpoint's layout to ours, which begins at `to`. TSR_ERR_CHECKPOINT: NaN or infinity. */
    tsr_status (*load)(const tsr_linear *linear, const tsr_linear_rows *rows, void *to);
    tsr_status (*load_scales)(const tsr_linear *linear, const tsr_linear_rows *rows, void *to);

    /* Rows first .. first + rows of W in f32, exactly, row after row of `in`; all of one tile. NULL
     * where every number of tokens is streamed. */
    void (*decode)(const tsr_linear *linear, int32_t first, int32_t rows, float *to);

    /* dots[t * tile + r] = dot of row first + r and x[t], r < rows, t < tokens, reading the
     * weight once: for few tokens. All rows of one tile. */
    void (*stream)(const tsr_linear_job *job, int32_t first, int32_t rows, float *dots);

    /* What the epilogue multiplies the dot of row `row` by, `unit` left out. */
    float (*row_scale)(const tsr_linear *linear, int32_t row);
};

extern const tsr_cpu_format ISA(tsr_cpu_format_f32);
extern const tsr_cpu_format ISA(tsr_cpu_format_f16);
extern const tsr_cpu_format ISA(tsr_cpu_format_bf16);
extern const tsr_cpu_format ISA(tsr_cpu_format_fp8);
extern const tsr_cpu_format ISA(tsr_cpu_format_fp8_channel);
extern const tsr_cpu_format ISA(tsr_cpu_format_fp8_block);
extern const tsr_cpu_format ISA(tsr_cpu_format_nvfp4);

extern const tsr_cpu_format *const ISA(tsr_cpu_formats)[TSR_WEIGHT_FORMAT_COUNT];

/* Weights that meet rows in integers: what the table's row is replaced by. */
extern const tsr_cpu_format ISA(tsr_cpu_format_nvfp4_fp4);

/* How a linear is kept and computed: the table's row of its format, but for what its rows allow. */
const tsr_cpu_format *ISA(tsr_cpu_format_of)(const tsr_linear *linear);

/* load_scales of formats that keep f32 scales as the file has them. */
tsr_status ISA(tsr_cpu_load_f32_scales)(const tsr_linear *linear, const tsr_linear_rows *rows,
                                        void *to);

/* load of formats that keep E4M3 codes in tiles. */
tsr_status ISA(tsr_cpu_load_e4m3)(const tsr_linear *linear, const tsr_linear_rows *rows, void *to);

/* Any byte that is the code of an E4M3 NaN. */
bool ISA(tsr_cpu_has_e4m3_nan)(const uint8_t *codes, uint64_t count);

/* Any value that is NaN or infinite. */
bool ISA(tsr_cpu_has_nonfinite)(const float *x, uint64_t count);

#endif
