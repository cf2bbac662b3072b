/*
 * The private table behind device.h and ops.h. Every entry is required; the front doors have
 * checked the arguments against the shapes before they come here, except for what stands in device
 * memory.
 */
#ifndef TSR_KERNELS_DEVICE_OPS_H
#define TSR_KERNELS_DEVICE_OPS_H

#include "kernels/ops.h"

/* Memory and loading. */
typedef struct tsr_device_table {
    size_t activation_bytes;
    void (*close)(tsr_device *device);
    tsr_status (*alloc)(tsr_device *device, size_t bytes, void **ret_memory);
    void (*release)(tsr_device *device, void *memory);
    tsr_status (*put)(tsr_device *device, void *to, const void *from, size_t bytes);
    tsr_status (*get)(tsr_device *device, void *to, const void *from, size_t bytes);
    tsr_status (*reserve)(tsr_device *device, const tsr_work_shape *shape);
    uint64_t (*linear_bytes)(tsr_weight_format format, int32_t out, int32_t in, bool bias,
                             bool pre_quant_scale);
    tsr_status (*load_linear)(tsr_device *device, const tsr_linear_source *source, void *memory,
                              tsr_linear *ret_linear);
} tsr_device_table;

/* Math. */
typedef struct tsr_op_table {
    tsr_status (*embed)(tsr_device *device, const tsr_embed_args *a, tsr_stream s);
    tsr_status (*norm)(tsr_device *device, const tsr_norm_args *a, tsr_stream s);
    tsr_status (*linears)(tsr_device *device, const tsr_linears_args *a, tsr_stream s);
    tsr_status (*head)(tsr_device *device, const tsr_head_args *a, tsr_stream s);
    tsr_status (*add)(tsr_device *device, const tsr_add_args *a, tsr_stream s);
    tsr_status (*rotary)(tsr_device *device, const tsr_rotary_args *a, tsr_stream s);
    tsr_status (*attention)(tsr_device *device, const tsr_attention_args *a, tsr_stream s);
    tsr_status (*router)(tsr_device *device, const tsr_router_args *a, tsr_stream s);
    tsr_status (*mlp)(tsr_device *device, const tsr_mlp_args *a, tsr_stream s);
    tsr_status (*pack)(tsr_device *device, const tsr_pack_args *a, tsr_stream s);
    tsr_status (*expert_mlp)(tsr_device *device, const tsr_expert_mlp_args *a, tsr_stream s);
    tsr_status (*combine)(tsr_device *device, const tsr_combine_args *a, tsr_stream s);
    tsr_status (*sample)(tsr_device *device, const tsr_sample_args *a, tsr_stream s);
} tsr_op_table;

/* First member of every backend's own struct. */
struct tsr_device {
    const tsr_device_table *table;
    const tsr_op_table *ops;
    tsr_work_shape shape; /* as reserved; all zero before */
    bool reserved;
    char name[64];
};

#endif
