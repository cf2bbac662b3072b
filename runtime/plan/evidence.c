/*
 * Tensors are told apart by their names; what is in them is for prove.c to judge.
 *
 *   ...up_proj.weight          -> weight        consumed
 *   ...up_proj.weight_scale_2  -> global_scale  consumed
 *   ...up_proj.qweight         -> foreign       consumed: whose layout it is, for a message
 *   ...up_proj.zeros           -> no slot       left over, and refused as that
 *
 * What the tensors look like is only ever said in a message: a format is not guessed from them.
 */
#include "runtime/plan/evidence.h"

#include <stdio.h>
#include <string.h>

typedef struct slot {
    const char *suffix;
    size_t offset; /* of the pointer in tsr_evidence */
} slot;

#define SLOT(suffix, field)                                                                        \
    {                                                                                              \
        suffix, offsetof(tsr_evidence, field)                                                      \
    }

static const slot slots[] = {
    SLOT("weight", weight),
    SLOT("weight_scale", scale),
    SLOT("weight_scale_inv", scale_inv),
    SLOT("weight_scale_2", global_scale),
    SLOT("input_scale", input_scale),
    SLOT("pre_quant_scale", pre_quant_scale),
    SLOT("bias", bias),
    SLOT("weight_packed", foreign),
    SLOT("weight_global_scale", foreign),
    SLOT("input_global_scale", foreign),
    SLOT("qweight", foreign),
};

tsr_evidence tsr_evidence_gather(tsr_tensor_index *index, const char *module)
{
    tsr_evidence evidence = {0};
    size_t count, first = tsr_tensor_index_module(index, module, &count);
    const size_t prefix = strlen(module) + 1;

    for (size_t i = first; i < first + count; i++) {
        const tsr_tensor *tensor = &index->checkpoint->tensors[i];
        for (size_t s = 0; s < sizeof(slots) / sizeof(slots[0]); s++) {
            if (strcmp(tensor->name + prefix, slots[s].suffix) != 0)
                continue;
            *(const tsr_tensor **)((char *)&evidence + slots[s].offset) = tensor;
            tsr_tensor_index_consume(index, tensor);
        }
    }
    return evidence;
}

bool tsr_tensor_is_scalar(const tsr_tensor *t)
{
    return t->rank == 0 || (t->rank == 1 && t->shape[0] == 1);
}

bool tsr_tensor_is_vector(const tsr_tensor *t, int64_t elements)
{
    return t->rank == 1 && t->shape[0] == elements;
}

bool tsr_tensor_is_matrix(const tsr_tensor *t, int64_t rows, int64_t columns)
{
    return t->rank == 2 && t->shape[0] == rows && t->shape[1] == columns;
}

bool tsr_tensor_is_block_grid(const tsr_tensor *t, int64_t rows, int64_t columns)
{
    return tsr_tensor_is_matrix(t, rows, columns) ||
           (t->rank == 4 && t->shape[0] == rows && t->shape[1] == 1 && t->shape[2] == columns &&
            t->shape[3] == 1);
}

void tsr_tensor_describe(const tsr_tensor *t, size_t capacity, char *ret_text)
{
    int at = snprintf(ret_text, capacity, "%s [", tsr_dtype_name(t->dtype));

    for (int32_t i = 0; i < t->rank && at >= 0 && (size_t)at < capacity; i++)
        at += snprintf(ret_text + at, capacity - (size_t)at, i == 0 ? "%lld" : ", %lld",
                       (long long)t->shape[i]);
    if (at >= 0 && (size_t)at < capacity)
        (void)snprintf(ret_text + at, capacity - (size_t)at, "]");
}

static bool scales_look_like(const tsr_format_row *row, const tsr_tensor *scale)
{
    const bool scalar = tsr_tensor_is_scalar(scale);

    if (row->scales == TSR_SCALES_TENSOR)
        return scalar;
    if (row->scales == TSR_SCALES_CHANNEL)
        return !scalar && scale->rank == 1;
    return scale->rank > 1;
}

/* Layouts that are told apart by their types and not served. */
static const char *foreign_layout(const tsr_tensor *weight, const tsr_tensor *scale)
{
    const bool powers_of_two = scale->dtype == TSR_DTYPE_U8 || scale->dtype == TSR_DTYPE_F8_E8M0;

    if (weight->dtype == TSR_DTYPE_U8)
        return powers_of_two ? "MXFP4, whose E8M0 scales are not served" : "4-bit integers";
    if (weight->dtype == TSR_DTYPE_I8)
        return "INT8";
    if (weight->dtype == TSR_DTYPE_F8_E4M3 && powers_of_two)
        return "FP8 with E8M0 scales (MXFP8, ue8m0), which are not served";
    return "no known format";
}

const char *tsr_evidence_looks_like(const tsr_evidence *e)
{
    const tsr_tensor *scale = e->scale != NULL ? e->scale : e->scale_inv;

    if (e->weight == NULL)
        return "no known format";
    if (scale == NULL)
        return tsr_dtype_is_plain(e->weight->dtype) ? "unquantized"
                                                    : "a quantized weight without scales";
    for (int f = 0; f < TSR_WEIGHT_FORMAT_COUNT; f++) {
        const tsr_format_row *row = tsr_format_row_of((tsr_weight_format)f);
        if (row->scales != TSR_SCALES_NONE && row->weight_dtype == e->weight->dtype &&
            tsr_scale_dtype_fits((tsr_weight_format)f, scale->dtype) &&
            scales_look_like(row, scale))
            return row->looks_like;
    }
    return foreign_layout(e->weight, scale);
}
