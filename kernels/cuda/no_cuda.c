/* The CUDA device of a build that has none. */
#include "kernels/device.h"

#include "runtime/base/log.h"

int32_t tsr_cuda_cards(void)
{
    return 0;
}

static tsr_status refuse(void)
{
    tsr_log(TSR_LOG_ERROR, "this build has no CUDA: build with -DTSR_CUDA=ON where a CUDA toolkit "
                           "of 12.8 or newer is installed");
    return TSR_ERR_DEVICE;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): written where there is CUDA */
tsr_status tsr_cuda_card_name(int32_t ordinal, size_t capacity, char *ret_name)
{
    (void)ordinal;
    (void)capacity;
    (void)ret_name;
    return refuse();
}

/* NOLINTNEXTLINE(readability-non-const-parameter): written where there is CUDA */
tsr_status tsr_cuda_card_id(int32_t ordinal, unsigned char ret_id[TSR_CARD_ID_BYTES])
{
    (void)ordinal;
    (void)ret_id;
    return refuse();
}

/* NOLINTNEXTLINE(readability-non-const-parameter): written where there is CUDA */
tsr_status tsr_cuda_card_bus(int32_t ordinal, char ret_bus[TSR_CARD_BUS_BYTES])
{
    (void)ordinal;
    (void)ret_bus;
    return refuse();
}

tsr_status tsr_device_open_cuda(int32_t ordinal, bool alone, tsr_device **ret_device)
{
    (void)ordinal;
    (void)alone;
    (void)ret_device;
    return refuse();
}
