/*
 * Shapes against each other and the reserved workspace; before it is reserved nothing fits.
 */
#include "kernels/checks.h"

#include "kernels/device_ops.h"
#include "runtime/base/log.h"

bool tsr_check(bool right, const char *block, const char *wrong)
{
    if (!right)
        tsr_log(TSR_LOG_ERROR, "%s: %s", block, wrong);
    return right;
}

bool tsr_check_within(int32_t value, int32_t most)
{
    return value >= 0 && value <= most;
}

bool tsr_check_width(int32_t width)
{
    return width > 0 && width % 16 == 0;
}

bool tsr_check_float_format(tsr_weight_format format)
{
    return tsr_format_row_of(format)->scales == TSR_SCALES_NONE;
}

bool tsr_check_linear(const tsr_device *device, const tsr_linear *linear)
{
    return linear != NULL && linear->weight != NULL && linear->out > 0 &&
           tsr_check_width(linear->in) && linear->in <= device->shape.max_in;
}

bool tsr_check_mlp(const tsr_device *device, const tsr_mlp *mlp, int32_t hidden)
{
    return tsr_check_linear(device, &mlp->gate) && tsr_check_linear(device, &mlp->up) &&
           tsr_check_linear(device, &mlp->down) && mlp->gate.in == hidden && mlp->up.in == hidden &&
           mlp->down.out == hidden && mlp->up.out == mlp->gate.out &&
           mlp->down.in == mlp->gate.out && mlp->down.in <= device->shape.max_intermediate;
}

bool tsr_check_hidden(const tsr_device *device, int32_t hidden)
{
    return tsr_check_width(hidden) && hidden <= device->shape.hidden;
}
