/* Inside the CPU device: placing linears and loading their rows, as device.h has it. */
#ifndef TSR_KERNELS_CPU_LOAD_CPU_H
#define TSR_KERNELS_CPU_LOAD_CPU_H

#include "kernels/cpu/device_cpu.h"

tsr_status tsr_place_linear_cpu(tsr_device *device, const tsr_linear_spec *spec, void *memory,
                                tsr_linear *ret_linear);
int32_t tsr_row_step_cpu(tsr_weight_format format);
tsr_status tsr_load_rows_cpu(tsr_device *device, const tsr_linear *linear, void *memory,
                             const tsr_linear_rows *rows, tsr_stream s);

#endif
