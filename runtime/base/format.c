#include "runtime/base/format.h"

static const char *const weight_names[TSR_WEIGHT_FORMAT_COUNT] = {
    "f32", "f16", "bf16", "fp8", "fp8-channel", "fp8-block", "nvfp4",
};
static const char *const activation_names[TSR_ACTIVATION_COUNT] = {
    "none", "fp8", "fp8-token", "fp8-group", "nvfp4",
};
static const char *const kv_names[TSR_KV_FORMAT_COUNT] = {"f32", "bf16", "fp8"};
static const int32_t kv_bytes[TSR_KV_FORMAT_COUNT] = {4, 2, 1};

const char *tsr_weight_format_name(tsr_weight_format format)
{
    return format < TSR_WEIGHT_FORMAT_COUNT ? weight_names[format] : "?";
}

const char *tsr_activation_name(tsr_activation activation)
{
    return activation < TSR_ACTIVATION_COUNT ? activation_names[activation] : "?";
}

const char *tsr_kv_format_name(tsr_kv_format format)
{
    return format < TSR_KV_FORMAT_COUNT ? kv_names[format] : "?";
}

int32_t tsr_kv_format_bytes(tsr_kv_format format)
{
    return format < TSR_KV_FORMAT_COUNT ? kv_bytes[format] : 0;
}
