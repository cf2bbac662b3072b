/*
 * A Qwen3-MoE model with 128x128 FP8 blocks, written down as directly as possible and computed in
 * double: the measure for a form that no exported model at hand has.
 */
#ifndef TSR_TESTS_MODEL_DEFINITION_H
#define TSR_TESTS_MODEL_DEFINITION_H

#include "tests/model/safetensors_edit.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct definition {
    edit_list tensors;
    int layers;
    int hidden;
    int q_heads;
    int kv_heads;
    int head_dim;
    int experts;
    int top_k;
    int vocab;
    double eps;
    double theta;
    bool group_activations; /* inputs of FP8 linears are E4M3 over groups of 128 */
} definition;

/* Logits [count, vocab] of a sequence; the caller frees them. */
float *definition_logits(const definition *d, const int32_t *tokens, int count);

#endif
