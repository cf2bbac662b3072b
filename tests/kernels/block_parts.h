/* The attention block by the operations that it is made of. */
#ifndef TSR_TESTS_KERNELS_BLOCK_PARTS_H
#define TSR_TESTS_KERNELS_BLOCK_PARTS_H

#include "kernels/blocks.h"

/* What tsr_block_attention does with it; b->x gets the result. */
void attend_by_parts(tsr_device *device, const tsr_attention_block *b);

#endif
