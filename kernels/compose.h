/* The blocks, each made of the small operations of its device: what a backend's block table names
 * where it has no kernel for a whole block. */
#ifndef TSR_KERNELS_COMPOSE_H
#define TSR_KERNELS_COMPOSE_H

#include "kernels/blocks.h"

tsr_status tsr_compose_embed(tsr_device *device, const tsr_embed_block *b, tsr_stream s);
tsr_status tsr_compose_attention(tsr_device *device, const tsr_attention_block *b, tsr_stream s);
tsr_status tsr_compose_mlp(tsr_device *device, const tsr_mlp_block *b, tsr_stream s);
tsr_status tsr_compose_choose(tsr_device *device, const tsr_choose_block *b, tsr_stream s);
tsr_status tsr_compose_shared(tsr_device *device, const tsr_shared_block *b, tsr_stream s);
tsr_status tsr_compose_experts(tsr_device *device, const tsr_experts_block *b, tsr_stream s);
tsr_status tsr_compose_combine(tsr_device *device, const tsr_combine_block *b, tsr_stream s);
tsr_status tsr_compose_predict(tsr_device *device, const tsr_predict_block *b, tsr_stream s);

#endif
