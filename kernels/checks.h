/*
 * What the front doors ask of shapes: of blocks while they run (blocks.c), of experts when they are
 * made (experts.c).
 */
#ifndef TSR_KERNELS_CHECKS_H
#define TSR_KERNELS_CHECKS_H

#include "kernels/experts.h"

/* False, logged, unless `right`: "block: what is wrong". */
bool tsr_check(bool right, const char *block, const char *wrong);

/* 0 <= value <= most */
bool tsr_check_within(int32_t value, int32_t most);

/* A width: a multiple of 16, more than none. */
bool tsr_check_width(int32_t width);

bool tsr_check_float_format(tsr_weight_format format);

/* A loaded linear whose input fits the workspace. */
bool tsr_check_linear(const tsr_device *device, const tsr_linear *linear);

/* Gate, up and down against each other and the workspace, from rows of `hidden` to such rows. */
bool tsr_check_mlp(const tsr_device *device, const tsr_mlp *mlp, int32_t hidden);

/* A residual stream that fits the workspace. */
bool tsr_check_hidden(const tsr_device *device, int32_t hidden);

#endif
