/*
 * The front doors of a device: arguments checked once, then the table. What every backend has alike
 * is done here: the rows within a block are taken, and a fault is told once.
 *
 *   tsr_device_reserve   | rows within a block (block_rows.c) | the backend's own workspace |
 */
#include "kernels/device_ops.h"

#include "runtime/base/log.h"

#include <inttypes.h>

const char *tsr_device_name(const tsr_device *device)
{
    return device->name;
}

void tsr_device_close(tsr_device *device)
{
    if (device == NULL)
        return;
    tsr_device_free(device, device->row_memory);
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
    if (memory != NULL)
        device->table->release(device, memory);
}

tsr_status tsr_device_host_alloc(tsr_device *device, size_t bytes, void **ret_memory)
{
    return device->table->host_alloc(device, bytes, ret_memory);
}

void tsr_device_host_free(tsr_device *device, void *memory)
{
    if (memory != NULL)
        device->table->host_release(device, memory);
}

int32_t tsr_device_flights(const tsr_device *device)
{
    return device->table->flights;
}

int32_t tsr_device_loaders(const tsr_device *device)
{
    return device->loaders;
}

tsr_status tsr_device_stream_open(tsr_device *device, tsr_stream *ret_stream)
{
    return device->table->stream_open(device, ret_stream);
}

void tsr_device_stream_close(tsr_device *device, tsr_stream stream)
{
    if (stream.native != NULL)
        device->table->stream_close(device, stream);
}

tsr_status tsr_device_put(tsr_device *device, void *to, const void *from, size_t bytes,
                          tsr_stream stream)
{
    return bytes == 0 ? TSR_OK : device->table->put(device, to, from, bytes, stream);
}

tsr_status tsr_device_get(tsr_device *device, void *to, const void *from, size_t bytes,
                          tsr_stream stream)
{
    return bytes == 0 ? TSR_OK : device->table->get(device, to, from, bytes, stream);
}

tsr_status tsr_device_mark_open(tsr_device *device, tsr_mark **ret_mark)
{
    return device->table->mark_open(device, ret_mark);
}

void tsr_device_mark_close(tsr_device *device, tsr_mark *mark)
{
    if (mark != NULL)
        device->table->mark_close(device, mark);
}

tsr_status tsr_device_mark(tsr_device *device, tsr_mark *mark, tsr_stream stream)
{
    return device->table->mark(device, mark, stream);
}

tsr_status tsr_device_await(tsr_device *device, tsr_mark *mark, tsr_stream stream)
{
    return device->table->await(device, mark, stream);
}

tsr_status tsr_device_passed(tsr_device *device, tsr_mark *mark, bool *ret_passed)
{
    return device->table->passed(device, mark, ret_passed);
}

tsr_status tsr_device_clock(tsr_device *device, uint64_t *at_ns, tsr_stream stream)
{
    return device->table->clock(device, at_ns, stream);
}

tsr_status tsr_device_record(tsr_device *device, tsr_stream stream)
{
    return device->table->record(device, stream);
}

tsr_status tsr_device_recorded(tsr_device *device, tsr_stream stream, tsr_recording **ret_recording)
{
    return device->table->recorded(device, stream, ret_recording);
}

tsr_status tsr_device_replay(tsr_device *device, tsr_recording *recording, tsr_stream stream)
{
    return device->table->replay(device, recording, stream);
}

void tsr_device_recording_close(tsr_device *device, tsr_recording *recording)
{
    if (recording != NULL)
        device->table->recording_close(device, recording);
}

tsr_status tsr_device_fault(tsr_device *device)
{
    const tsr_fault *fault = device->table->fault(device);

    if (fault->kind == TSR_FAULT_NONE)
        return TSR_OK;
    if (!device->fault_told)
        tsr_fault_say(fault);
    device->fault_told = true;
    return TSR_ERR_ARG;
}

uint64_t tsr_device_memory_in_use(tsr_device *device)
{
    return device->table->memory_in_use(device);
}

tsr_status tsr_device_read_bandwidth(tsr_device *device, uint64_t bytes, double *ret_bytes_per_s)
{
    return device->table->read_bandwidth(device, bytes, ret_bytes_per_s);
}

static bool sizes_are_right(const tsr_work_shape *shape)
{
    const int32_t sizes[] = {
        shape->max_tokens,
        shape->max_rows,
        shape->max_answers,
        shape->max_in,
        shape->max_intermediate,
        shape->max_experts,
        shape->max_context,
        shape->max_logit_rows,
        shape->vocab,
        shape->hidden,
        shape->q_heads,
        shape->kv_heads,
        shape->head_dim,
        shape->top_k,
    };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (sizes[i] < 0)
            return false;
    }
    return true;
}

static tsr_status reserve_rows(tsr_device *device, const tsr_work_shape *shape)
{
    const size_t activation = device->table->activation_bytes;
    const uint64_t bytes = tsr_block_rows_bytes(shape, activation);
    const tsr_status st = tsr_device_alloc(device, (size_t)bytes, &device->row_memory);

    if (st != TSR_OK)
        tsr_log(TSR_LOG_ERROR, "no memory for %" PRIu64 " bytes of rows within a block", bytes);
    else
        tsr_block_rows_layout(shape, activation, device->row_memory, &device->rows);
    return st;
}

tsr_status tsr_device_reserve(tsr_device *device, const tsr_work_shape *shape)
{
    if (!sizes_are_right(shape)) {
        tsr_log(TSR_LOG_ERROR, "reserve: a size of the workspace is negative");
        return TSR_ERR_ARG;
    }
    if (device->reserved) {
        tsr_log(TSR_LOG_ERROR, "reserve: the workspace is taken once, before the first block");
        return TSR_ERR_ARG;
    }
    tsr_status st = reserve_rows(device, shape);
    if (st != TSR_OK)
        return st;
    st = device->table->reserve(device, shape);
    if (st != TSR_OK) {
        tsr_device_free(device, device->row_memory);
        device->row_memory = NULL;
        return st;
    }
    device->shape = *shape;
    device->reserved = true;
    return TSR_OK;
}

uint64_t tsr_device_linear_bytes(const tsr_device *device, tsr_weight_format format, int32_t out,
                                 int32_t in, bool bias, bool pre_quant_scale)
{
    return device->table->linear_bytes(format, out, in, bias, pre_quant_scale);
}

tsr_status tsr_device_place_linear(tsr_device *device, const tsr_linear_spec *spec, void *memory,
                                   tsr_linear *ret_linear)
{
    if (spec->format >= TSR_WEIGHT_FORMAT_COUNT || spec->activation >= TSR_ACTIVATION_COUNT ||
        spec->out < 1 || spec->in < 16 || spec->in % 16 != 0) {
        tsr_log(TSR_LOG_ERROR,
                "place linear: format %d, activation %d, [%d, %d]; the width must be a multiple of "
                "16",
                (int)spec->format, (int)spec->activation, (int)spec->out, (int)spec->in);
        return TSR_ERR_ARG;
    }
    return device->table->place_linear(device, spec, memory, ret_linear);
}

int32_t tsr_device_row_step(const tsr_device *device, tsr_weight_format format)
{
    return device->table->row_step(format);
}

/* All rows of a part, 0 where the linear has no such part. */
static int32_t rows_of(const tsr_linear *linear, tsr_linear_part part)
{
    switch (part) {
    case TSR_LINEAR_SCALES:
        return linear->scales != NULL
                   ? tsr_scale_shape_of(linear->format, linear->out, linear->in).rows
                   : 0;
    case TSR_LINEAR_BIAS:
        return linear->bias != NULL ? linear->out : 0;
    case TSR_LINEAR_PRE_QUANT_SCALE:
        return linear->pre_quant_scale != NULL ? linear->in : 0;
    case TSR_LINEAR_WEIGHT:
        return linear->out;
    case TSR_LINEAR_PARTS:
        break;
    }
    return 0;
}

tsr_status tsr_device_load_rows(tsr_device *device, const tsr_linear *linear, void *memory,
                                const tsr_linear_rows *rows, tsr_stream stream)
{
    const int32_t all = rows_of(linear, rows->part);
    const int32_t step =
        rows->part == TSR_LINEAR_WEIGHT ? device->table->row_step(linear->format) : 1;
    const bool there = rows->first >= 0 && rows->count >= 1 && rows->count <= all &&
                       rows->first <= all - rows->count;
    const bool whole = there && rows->first % step == 0 &&
                       (rows->count % step == 0 || rows->first + rows->count == all);

    if (!whole || rows->bytes == NULL) {
        tsr_log(TSR_LOG_ERROR, "load rows: part %d, rows %d + %d of %d, in steps of %d",
                (int)rows->part, (int)rows->first, (int)rows->count, (int)all, (int)step);
        return TSR_ERR_ARG;
    }
    return device->table->load_rows(device, linear, memory, rows, stream);
}
