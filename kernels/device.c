/*
 * The front doors of a device: arguments checked once, then the table.
 */
#include "kernels/device_ops.h"

#include "runtime/base/log.h"

const char *tsr_device_name(const tsr_device *device)
{
    return device->name;
}

void tsr_device_close(tsr_device *device)
{
    if (device)
        device->table->close(device);
}

size_t tsr_device_activation_bytes(const tsr_device *device)
{
    return device->table->activation_bytes;
}

tsr_status tsr_device_alloc(tsr_device *device, size_t bytes, void **ret_memory)
{
    return device->table->alloc(device, bytes, ret_memory);
}

void tsr_device_free(tsr_device *device, void *memory)
{
    device->table->release(device, memory);
}

tsr_status tsr_device_put(tsr_device *device, void *to, const void *from, size_t bytes)
{
    return device->table->put(device, to, from, bytes);
}

tsr_status tsr_device_get(tsr_device *device, void *to, const void *from, size_t bytes)
{
    return device->table->get(device, to, from, bytes);
}

tsr_status tsr_device_reserve(tsr_device *device, const tsr_work_shape *shape)
{
    const int32_t sizes[] = {
        shape->max_tokens,  shape->max_rows,         shape->max_answers,
        shape->max_in,      shape->max_intermediate, shape->max_experts,
        shape->max_context, shape->max_logit_rows,   shape->vocab,
        shape->q_heads,     shape->head_dim,
    };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (sizes[i] < 0) {
            tsr_log(TSR_LOG_ERROR, "reserve: a size of the workspace is negative");
            return TSR_ERR_ARG;
        }
    }
    if (device->reserved) {
        tsr_log(TSR_LOG_ERROR, "reserve: the workspace is taken once, before the first operation");
        return TSR_ERR_ARG;
    }
    const tsr_status st = device->table->reserve(device, shape);
    if (st == TSR_OK) {
        device->shape = *shape;
        device->reserved = true;
    }
    return st;
}

uint64_t tsr_device_linear_bytes(const tsr_device *device, tsr_weight_format format, int32_t out,
                                 int32_t in, bool bias, bool pre_quant_scale)
{
    return device->table->linear_bytes(format, out, in, bias, pre_quant_scale);
}

static bool needs_scales(tsr_weight_format format)
{
    return format == TSR_WEIGHT_FP8_CHANNEL || format == TSR_WEIGHT_FP8_BLOCK ||
           format == TSR_WEIGHT_NVFP4;
}

tsr_status tsr_device_load_linear(tsr_device *device, const tsr_linear_source *source, void *memory,
                                  tsr_linear *ret_linear)
{
    if (source->format >= TSR_WEIGHT_FORMAT_COUNT || source->activation >= TSR_ACTIVATION_COUNT ||
        source->out < 1 || source->in < 16 || source->in % 16 != 0 || !source->weight ||
        (needs_scales(source->format) && !source->scales)) {
        tsr_log(TSR_LOG_ERROR,
                "load linear: format %d, activation %d, [%d, %d]; the width must be a multiple of "
                "16 and nothing missing",
                (int)source->format, (int)source->activation, (int)source->out, (int)source->in);
        return TSR_ERR_ARG;
    }
    return device->table->load_linear(device, source, memory, ret_linear);
}
