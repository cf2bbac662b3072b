/*
 * The private table behind device.h and ops.h. Every entry is required; the front doors have
 * checked the arguments against the shapes before they come here, except for what stands in device
 * memory.
 */
#ifndef TSR_KERNELS_DEVICE_OPS_H
#define TSR_KERNELS_DEVICE_OPS_H

#include "kernels/ops.h"

/* What a block found wrong. */
typedef enum tsr_fault_kind {
    TSR_FAULT_NONE,
    TSR_FAULT_TOKEN,   /* embed: row `row` reads id `value`, there are `limit` */
    TSR_FAULT_ROWS,    /* experts: `value` rows have arrived, `limit` were reserved */
    TSR_FAULT_EXPERT,  /* experts: slot `slot` of row `row` asks for expert `value`, not here */
    TSR_FAULT_ANSWERS, /* experts: slot `slot` of row `row` is one answer more than `limit` */
} tsr_fault_kind;

/* The first one. Kinds that have no use for a field leave it 0. */
typedef struct tsr_fault {
    int32_t kind; /* tsr_fault_kind */
    int32_t row;
    int32_t slot;
    int32_t value;
    int32_t limit;
} tsr_fault;

/* Memory, streams and loading. */
typedef struct tsr_device_table {
    size_t activation_bytes;
    int32_t flights;
    void (*close)(tsr_device *device);
    tsr_status (*alloc)(tsr_device *device, size_t bytes, void **ret_memory);
    void (*release)(tsr_device *device, void *memory);
    tsr_status (*host_alloc)(tsr_device *device, size_t bytes, void **ret_memory);
    void (*host_release)(tsr_device *device, void *memory);
    tsr_status (*stream_open)(tsr_device *device, tsr_stream *ret_stream);
    void (*stream_close)(tsr_device *device, tsr_stream stream);
    tsr_status (*put)(tsr_device *device, void *to, const void *from, size_t bytes, tsr_stream s);
    tsr_status (*get)(tsr_device *device, void *to, const void *from, size_t bytes, tsr_stream s);
    tsr_status (*mark_open)(tsr_device *device, tsr_mark **ret_mark);
    void (*mark_close)(tsr_device *device, tsr_mark *mark);
    tsr_status (*mark)(tsr_device *device, tsr_mark *mark, tsr_stream s);
    tsr_status (*passed)(tsr_device *device, tsr_mark *mark, bool *ret_passed);
    tsr_status (*record)(tsr_device *device, tsr_stream s);
    tsr_status (*recorded)(tsr_device *device, tsr_stream s, tsr_recording **ret_recording);
    tsr_status (*replay)(tsr_device *device, tsr_recording *recording, tsr_stream s);
    void (*recording_close)(tsr_device *device, tsr_recording *recording);
    const tsr_fault *(*fault)(tsr_device *device); /* as far as the host can see by now */
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
    bool fault_told;
    char name[64];
};

#endif
