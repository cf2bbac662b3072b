/*
 * The private tables behind device.h and blocks.h. Every entry is required; the front doors have
 * checked the arguments against the shapes before they come here, except for what stands in device
 * memory.
 *
 *   device.h   device.c   table     memory, streams, loading
 *   blocks.h   blocks.c   blocks    a kernel of its own for each block, or what compose.c makes
 *                                   of the small operations
 *              compose.c  ops       the small operations (ops.h)
 */
#ifndef TSR_KERNELS_DEVICE_OPS_H
#define TSR_KERNELS_DEVICE_OPS_H

#include "kernels/ops.h"

/* What a block found wrong. */
typedef enum tsr_fault_kind {
    TSR_FAULT_NONE,
    TSR_FAULT_TOKEN,     /* embed: row `row` reads id `value`, there are `limit` */
    TSR_FAULT_PLACE,     /* embed: row `row` is at slot `slot`, position `value` of no text */
    TSR_FAULT_SEQUENCE,  /* attention: sequence `row` reaches to row `slot` of the step or to
                            position `value` of `limit` */
    TSR_FAULT_BLOCK,     /* attention: sequence `row` holds block `value` of `limit` */
    TSR_FAULT_ROWS,      /* experts: `value` rows have arrived, `limit` were reserved */
    TSR_FAULT_EXPERT,    /* experts: slot `slot` of row `row` asks for expert `value`, not here */
    TSR_FAULT_ANSWERS,   /* experts: slot `slot` of row `row` is one answer more than `limit` */
    TSR_FAULT_WIDE,      /* experts: values of slot `slot` were awaited for `limit` seconds */
    TSR_FAULT_X_ROW,     /* predict: logit row `row` is of row `value`, `limit` were reserved */
    TSR_FAULT_LOGIT_ROW, /* predict: sample `row` is of logit row `value` of `limit` */
    TSR_FAULT_SLOT,      /* predict: sample `row` goes to slot `value` of `limit` */
    TSR_FAULT_TOP,       /* predict: sample `row` tells of ids up to `value` of `limit` */
    TSR_FAULT_MASK,      /* predict: sample `row` is held to mask `value` of `limit` */
} tsr_fault_kind;

/* The first one. Kinds that have no use for a field leave it 0. */
typedef struct tsr_fault {
    int32_t kind; /* tsr_fault_kind */
    int32_t row;
    int32_t slot;
    int32_t value;
    int32_t limit;
} tsr_fault;

/* Rows between the operations of one block, of activations unless they say otherwise; T is
 * max_tokens, R max_logit_rows. */
typedef struct tsr_block_rows {
    void *normed;    /* [max(T, R), H] */
    void *delta;     /* [T, H] what the block adds to x */
    void *q;         /* [T, q_heads * D] */
    void *k;         /* [T, kv_heads * D] */
    void *v;         /* [T, kv_heads * D] */
    void *attended;  /* [T, q_heads * D] */
    int32_t *expert; /* [T, K] */
} tsr_block_rows;

/* Where they lie in `memory` (NULL: only counted). Returns the bytes. */
uint64_t tsr_block_rows_layout(const tsr_work_shape *shape, size_t activation_bytes,
                               unsigned char *memory, tsr_block_rows *ret_rows);

/* Logs what a fault means; its kind is not TSR_FAULT_NONE. */
void tsr_fault_say(const tsr_fault *fault);

/* Memory, streams and loading. */
typedef struct tsr_device_table {
    size_t activation_bytes;
    int32_t flights;
    void (*close)(tsr_device *device);
    tsr_status (*alloc)(tsr_device *device, size_t bytes, void **ret_memory);
    void (*release)(tsr_device *device, void *memory);
    uint64_t (*memory_in_use)(tsr_device *device);
    tsr_status (*host_alloc)(tsr_device *device, size_t bytes, void **ret_memory);
    void (*host_release)(tsr_device *device, void *memory);
    tsr_status (*stream_open)(tsr_device *device, tsr_stream *ret_stream);
    void (*stream_close)(tsr_device *device, tsr_stream stream);
    tsr_status (*put)(tsr_device *device, void *to, const void *from, size_t bytes, tsr_stream s);
    tsr_status (*get)(tsr_device *device, void *to, const void *from, size_t bytes, tsr_stream s);
    tsr_status (*mark_open)(tsr_device *device, tsr_mark **ret_mark);
    void (*mark_close)(tsr_device *device, tsr_mark *mark);
    tsr_status (*mark)(tsr_device *device, tsr_mark *mark, tsr_stream s);
    tsr_status (*await)(tsr_device *device, tsr_mark *mark, tsr_stream s);
    tsr_status (*passed)(tsr_device *device, tsr_mark *mark, bool *ret_passed);
    tsr_status (*clock)(tsr_device *device, uint64_t *at_ns, tsr_stream s);
    tsr_status (*record)(tsr_device *device, tsr_stream s);
    tsr_status (*recorded)(tsr_device *device, tsr_stream s, tsr_recording **ret_recording);
    tsr_status (*replay)(tsr_device *device, tsr_recording *recording, tsr_stream s);
    void (*recording_close)(tsr_device *device, tsr_recording *recording);
    const tsr_fault *(*fault)(tsr_device *device); /* as far as the host can see by now */
    tsr_status (*read_bandwidth)(tsr_device *device, uint64_t bytes, double *ret_bytes_per_s);
    tsr_status (*reserve)(tsr_device *device, const tsr_work_shape *shape);
    uint64_t (*linear_bytes)(tsr_weight_format format, int32_t out, int32_t in, bool bias,
                             bool pre_quant_scale);
    tsr_status (*place_linear)(tsr_device *device, const tsr_linear_spec *spec, void *memory,
                               tsr_linear *ret_linear);
    int32_t (*row_step)(tsr_weight_format format);
    tsr_status (*load_rows)(tsr_device *device, const tsr_linear *linear, void *memory,
                            const tsr_linear_rows *rows, tsr_stream s);
} tsr_device_table;

/* Blocks. */
typedef struct tsr_block_table {
    tsr_status (*embed)(tsr_device *device, const tsr_embed_block *b, tsr_stream s);
    tsr_status (*attention)(tsr_device *device, const tsr_attention_block *b, tsr_stream s);
    tsr_status (*mlp)(tsr_device *device, const tsr_mlp_block *b, tsr_stream s);
    tsr_status (*choose)(tsr_device *device, const tsr_choose_block *b, tsr_stream s);
    tsr_status (*shared)(tsr_device *device, const tsr_shared_block *b, tsr_stream s);
    tsr_status (*experts)(tsr_device *device, const tsr_experts_block *b, tsr_stream s);
    tsr_status (*combine)(tsr_device *device, const tsr_combine_block *b, tsr_stream s);
    tsr_status (*predict)(tsr_device *device, const tsr_predict_block *b, tsr_stream s);
} tsr_block_table;

/* Small operations. */
typedef struct tsr_op_table {
    tsr_status (*embed)(tsr_device *device, const tsr_embed_block *a, tsr_stream s);
    tsr_status (*norm)(tsr_device *device, const tsr_norm_args *a, tsr_stream s);
    tsr_status (*linears)(tsr_device *device, const tsr_linears_args *a, tsr_stream s);
    tsr_status (*head)(tsr_device *device, const tsr_head_args *a, tsr_stream s);
    tsr_status (*add)(tsr_device *device, const tsr_add_args *a, tsr_stream s);
    tsr_status (*rotary)(tsr_device *device, const tsr_rotary_args *a, tsr_stream s);
    tsr_status (*attention)(tsr_device *device, const tsr_attention_args *a, tsr_stream s);
    tsr_status (*router)(tsr_device *device, const tsr_router_args *a, tsr_stream s);
    tsr_status (*mlp)(tsr_device *device, const tsr_mlp_args *a, tsr_stream s);
    tsr_status (*pack)(tsr_device *device, const tsr_pack_args *a, tsr_stream s);
    tsr_status (*experts)(tsr_device *device, const tsr_experts_block *a, tsr_stream s);
    tsr_status (*combine)(tsr_device *device, const tsr_combine_block *a, tsr_stream s);
    tsr_status (*sample)(tsr_device *device, const tsr_sample_args *a, tsr_stream s);
} tsr_op_table;

/* First member of every backend's own struct. */
struct tsr_device {
    const tsr_device_table *table;
    const tsr_block_table *blocks;
    const tsr_op_table *ops;
    tsr_work_shape shape; /* as reserved; all zero before */
    tsr_block_rows rows;
    void *row_memory; /* behind `rows` */
    int32_t loaders;  /* as tsr_device_loaders has it */
    bool reserved;
    bool fault_told;
    char name[64];
};

/* A fault that the host can see by now: a block does nothing any more. */
static inline bool tsr_device_is_faulty(tsr_device *device)
{
    return device->table->fault(device)->kind != TSR_FAULT_NONE;
}

#endif
