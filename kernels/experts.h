/*
 * The routed experts of one layer as one object. The host sees what a backend chooses its kernels
 * by; what kernels read lies in device memory.
 *
 *   host     tsr_experts  shape | precision of gate, up, down | router | table --.
 *   device                                     | mlps [local] | local_of [E] | tag_of [E] |
 *
 * Ids are those of the whole layer, 0..E-1; this device holds `local` of them. A tag is whatever
 * the caller wants to find beside a row for each expert it chose.
 */
#ifndef TSR_KERNELS_EXPERTS_H
#define TSR_KERNELS_EXPERTS_H

#include "kernels/device.h"
#include "runtime/base/model_facts.h"

#include <stdbool.h>

/* down(silu(gate(x)) * up(x)) */
typedef struct tsr_mlp {
    tsr_linear gate; /* [I, H] */
    tsr_linear up;   /* [I, H] */
    tsr_linear down; /* [H, I] */
} tsr_mlp;

/* How logits become choices; blocks.h has the formulas. */
typedef struct tsr_router {
    const tsr_linear *gate; /* [E, H], unquantized */
    const float *bias;      /* [E] added to the choice, or NULL; device memory */
    tsr_router_kind kind;
    int32_t top_k; /* K */
    int32_t groups;
    int32_t top_groups;
    bool normalise;
    float routed_scale;
} tsr_router;

/* What one linear of all experts has in common. */
typedef struct tsr_linear_kind {
    tsr_weight_format format;
    tsr_activation activation;
} tsr_linear_kind;

typedef struct tsr_experts {
    tsr_router router;
    size_t row_bytes;               /* of a packed row */
    int32_t experts;                /* E */
    int32_t local;                  /* experts on this device */
    int32_t top_k;                  /* K */
    int32_t hidden;                 /* H */
    int32_t intermediate;           /* I; 0 without local experts, as are the next three */
    tsr_linear_kind gate, up, down; /* of every local expert */
    bool gate_is_up;                /* each expert's gate and up quantize their input alike */
    bool gates_alike;               /* and all experts by the next two */
    float gate_input_scale;
    const float *gate_pre_quant_scale;
    const tsr_mlp *mlps;     /* [local], in device memory, as are the next two */
    const int32_t *local_of; /* [E] id -> index into mlps, -1: not here */
    const int32_t *tag_of;   /* [E] */
} tsr_experts;

/* What an object is made of, in host memory; no longer needed afterwards. */
typedef struct tsr_experts_source {
    tsr_router router;
    const tsr_mlp *mlps;     /* [local] loaded linears */
    const int32_t *local_of; /* [E] */
    const int32_t *tag_of;   /* [E] */
    int32_t experts;         /* E */
    int32_t local;
    int32_t hidden; /* H */
} tsr_experts_source;

/* Device bytes of the tables: what the plan counts. A multiple of 64. */
uint64_t tsr_experts_bytes(int32_t experts, int32_t local);

/*
 * Builds the tables in `image`, puts them into `memory` and describes them. The linears behind them
 * stay where they are.
 *
 *   image   tsr_experts_bytes bytes of tsr_device_host_alloc, untouched until the stream has passed
 *   memory  as many of the device, aligned to 64
 *
 * TSR_ERR_ARG, logged: experts that do not fit each other, the router or the workspace
 */
TSR_MUST_USE tsr_status tsr_experts_make(tsr_device *device, const tsr_experts_source *source,
                                         void *image, void *memory, tsr_stream stream,
                                         tsr_experts *ret_experts);

/*
 * Rows as they travel: the activations of a token, then the ids it chose, then padding to a
 * multiple of 16 bytes.
 *
 *   | norm(x[t]) : H * activation bytes | expert[t] : K * 4 bytes | padding |
 */
size_t tsr_packed_row_bytes(size_t activation_bytes, int32_t hidden, int32_t top_k);

#endif
