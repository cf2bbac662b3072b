/*
 * Inside the CPU device: quantizing rows, and linears over quantized rows.
 */
#ifndef TSR_KERNELS_CPU_LINEAR_CPU_H
#define TSR_KERNELS_CPU_LINEAR_CPU_H

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/isa.h"

/*
 * One row as it meets the weight: x * pre_quant_scale, then the values of its codes in f32, or
 * groups of codes (fp4.h) in the same room. Returns the scale that is left for the epilogue. `to`
 * may be `x`.
 */
float ISA(tsr_quantize_row)(const tsr_linear *linear, const float *x, float *to);

/* True when rows have to pass tsr_quantize_row before they meet the weight. */
bool tsr_linear_changes_rows(const tsr_linear *linear);

/* True when weight and rows meet as integers: NVFP4 both. */
bool tsr_linear_meets_fp4(const tsr_linear *linear);

/* True when both see the same quantized rows. */
bool tsr_linears_share_rows(const tsr_linear *a, const tsr_linear *b);

/* Rows to quantize: row i of `to` from row i of x. */
typedef struct tsr_quantize_rows {
    float *to;    /* [rows, linear->in] */
    float *scale; /* [rows] */
    const float *x;
    size_t x_stride; /* floats */
    const tsr_linear *linear;
    int32_t rows;
} tsr_quantize_rows;

void ISA(tsr_quantize_run)(tsr_cpu_device *cpu, const tsr_quantize_rows *q);

/* All jobs at once, spread over the threads by their cost. */
void ISA(tsr_linear_run)(tsr_cpu_device *cpu, const tsr_linear_job *jobs, int32_t count);

tsr_status ISA(tsr_linears_cpu)(tsr_device *device, const tsr_linears_args *a, tsr_stream s);
tsr_status ISA(tsr_head_cpu)(tsr_device *device, const tsr_head_args *a, tsr_stream s);

#endif
