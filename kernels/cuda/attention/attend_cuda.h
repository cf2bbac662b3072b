/*
 * Attention from the projections' rows on: heads turned, keys and values put into the cache, every
 * position attending; in decode with one kernel.
 *
 * One order of sums wherever a row is computed, so that its bits depend on its own sequence alone:
 *
 *   positions  | 0 .. 63 | 64 .. 127 | 128 .. 191 | 192 .. 255 | ..     tiles
 *              |       split 0       |        split 1          | ..
 *
 *   a tile    scores: k16 steps of the tensor cores over the dims, ascending; times the scale
 *   a split   its tiles, ascending: the least multiple of 8 that no score so far is above, weights
 *             2^(score - multiple) rounded to BF16, k16 steps over the positions into sums in f32; the
 *             sum of the weights is that of a value which is one everywhere
 *   the row   its splits, ascending, added up relative to the largest multiple so far; divided at last
 */
#ifndef TSR_KERNELS_CUDA_ATTENTION_ATTEND_CUDA_H
#define TSR_KERNELS_CUDA_ATTENTION_ATTEND_CUDA_H

#include "kernels/ops.h"

/* Turns heads by r, then attends by a: r's q and k are a's. r may be NULL: they are turned already.
 * Where r is given, q and k are left undefined. */
tsr_status tsr_attend_cuda(tsr_device *device, const tsr_rotary_args *r,
                           const tsr_attention_args *a, tsr_stream s);

#endif
