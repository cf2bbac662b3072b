/* The one table of declared algorithms. */
#include "runtime/plan/algos.h"

#include <stddef.h>
#include <strings.h>

static const tsr_algo_row rows[TSR_ALGO_COUNT] = {
    [TSR_ALGO_NONE] = {.name = "none", .alias = "NO_QUANT", .format = TSR_WEIGHT_BF16},
    [TSR_ALGO_FP8] = {.name = "FP8",
                      .format = TSR_WEIGHT_FP8,
                      .activation = TSR_ACTIVATION_FP8,
                      .may_have_input_scale = true},
    [TSR_ALGO_FP8_PER_CHANNEL_PER_TOKEN] = {.name = "FP8_PER_CHANNEL_PER_TOKEN",
                                            .format = TSR_WEIGHT_FP8_CHANNEL,
                                            .activation = TSR_ACTIVATION_FP8_TOKEN},
    [TSR_ALGO_FP8_BLOCK_SCALES] = {.name = "FP8_BLOCK_SCALES",
                                   .format = TSR_WEIGHT_FP8_BLOCK,
                                   .activation = TSR_ACTIVATION_FP8_GROUP,
                                   .group_size = 128},
    /* The name declares weights only, unlike FP8_BLOCK_SCALES. */
    [TSR_ALGO_FP8_PB_WO] = {.name = "FP8_PB_WO", .format = TSR_WEIGHT_FP8_BLOCK, .group_size = 128},
    [TSR_ALGO_NVFP4] = {.name = "NVFP4",
                        .format = TSR_WEIGHT_NVFP4,
                        .activation = TSR_ACTIVATION_NVFP4,
                        .group_size = 16,
                        .may_have_input_scale = true},
    /* The stored tensors may come from a calibrated NVFP4 model, with an input_scale nobody
     * uses. */
    [TSR_ALGO_W4A16_NVFP4] = {.name = "W4A16_NVFP4",
                              .format = TSR_WEIGHT_NVFP4,
                              .group_size = 16,
                              .may_have_input_scale = true},
    [TSR_ALGO_NVFP4_AWQ] = {.name = "NVFP4_AWQ",
                            .format = TSR_WEIGHT_NVFP4,
                            .activation = TSR_ACTIVATION_NVFP4,
                            .group_size = 16,
                            .may_have_input_scale = true,
                            .may_have_pre_quant_scale = true},
};

/* What exporters write and nobody here computes: refused by name, so that the message can say that
 * the name is right and the format is what is missing. */
static const char *const known[] = {
    "NVFP4_SVD",
    "NVFP4_SVDQUANT",
    "W4A8_NVFP4_FP8",
    "W4A8_MXFP4_FP8",
    "W4A8_MXFP4_MXFP8",
    "W4A16_MXFP4",
    "MXFP4",
    "MXFP8",
    "FP8_PB_REAL",
    "W4A16_AWQ",
    "W4A8_AWQ",
    "W4A16_GPTQ",
    "W8A16",
    "W8A16_GPTQ",
    "INT4_AWQ",
    "INT8",
    "INT8_SQ",
    "INT8_WO",
    "W8A8_SQ_PER_CHANNEL",
    "W8A8_SQ_PER_TENSOR_PLUGIN",
    "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN",
    "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN",
    "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN",
    "W4A8_QSERVE_PER_GROUP",
    "W4A8_QSERVE_PER_CHANNEL",
};

const tsr_algo_row *tsr_algo_row_of(tsr_algo algo)
{
    return &rows[(unsigned)algo < TSR_ALGO_COUNT ? algo : TSR_ALGO_NONE];
}

const char *tsr_algo_name(tsr_algo algo)
{
    return (unsigned)algo < TSR_ALGO_COUNT ? rows[algo].name : "unknown";
}

bool tsr_algo_find(const char *name, tsr_algo *ret_algo)
{
    for (int i = 0; i < TSR_ALGO_COUNT; i++) {
        if (strcasecmp(name, rows[i].name) == 0 ||
            (rows[i].alias != NULL && strcasecmp(name, rows[i].alias) == 0)) {
            *ret_algo = (tsr_algo)i;
            return true;
        }
    }
    return false;
}

bool tsr_algo_is_known(const char *name)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcasecmp(name, known[i]) == 0)
            return true;
    return false;
}

bool tsr_activation_is_static(tsr_activation activation)
{
    return activation == TSR_ACTIVATION_FP8 || activation == TSR_ACTIVATION_NVFP4;
}
