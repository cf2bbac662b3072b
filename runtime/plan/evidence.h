/* The tensors that lie beside one weight, by what their names say they are. */
#ifndef TSR_RUNTIME_PLAN_EVIDENCE_H
#define TSR_RUNTIME_PLAN_EVIDENCE_H

#include "runtime/base/format.h"
#include "runtime/plan/tensor_index.h"

typedef struct tsr_evidence {
    const tsr_tensor *weight;
    const tsr_tensor *scale;        /* weight_scale */
    const tsr_tensor *scale_inv;    /* weight_scale_inv: the same under another name */
    const tsr_tensor *global_scale; /* weight_scale_2 */
    const tsr_tensor *input_scale;
    const tsr_tensor *pre_quant_scale;
    const tsr_tensor *bias;
    const tsr_tensor *foreign; /* weight_packed and the like: another exporter's layout */
} tsr_evidence;

/* Collects and consumes. A KV scale and a router's correction bias are left to the vectors. */
tsr_evidence tsr_evidence_gather(tsr_tensor_index *index, const char *module);

/* One value: rank 0, or [1]. */
bool tsr_tensor_is_scalar(const tsr_tensor *tensor);

bool tsr_tensor_is_vector(const tsr_tensor *tensor, int64_t elements);

bool tsr_tensor_is_matrix(const tsr_tensor *tensor, int64_t rows, int64_t columns);

/* A matrix, or written [rows, 1, columns, 1], as exporters do with the scales of blocks. */
bool tsr_tensor_is_block_grid(const tsr_tensor *tensor, int64_t rows, int64_t columns);

/* "U8 [128, 64]" */
void tsr_tensor_describe(const tsr_tensor *tensor, size_t capacity, char *ret_text);

/* What the tensors look like, "NVFP4" or "unquantized"; "no known format" otherwise. */
const char *tsr_evidence_looks_like(const tsr_evidence *evidence);

#endif
