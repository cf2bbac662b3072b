/* Each call of comm's is one of the device's. */
#include "launch/job/exchange_memory.h"

static tsr_status alloc(void *context, size_t bytes, void **ret_memory)
{
    return tsr_device_alloc(context, bytes, ret_memory);
}

static void release(void *context, void *memory)
{
    tsr_device_free(context, memory);
}

static tsr_status host_alloc(void *context, size_t bytes, void **ret_memory)
{
    return tsr_device_host_alloc(context, bytes, ret_memory);
}

static void host_release(void *context, void *memory)
{
    tsr_device_host_free(context, memory);
}

static tsr_status put(void *context, void *to, const void *from, size_t bytes, tsr_stream stream)
{
    return tsr_device_put(context, to, from, bytes, stream);
}

tsr_exchange_memory tsr_exchange_memory_of(tsr_device *device)
{
    return (tsr_exchange_memory){
        .context = device,
        .alloc = alloc,
        .release = release,
        .host_alloc = host_alloc,
        .host_release = host_release,
        .put = put,
    };
}

tsr_exchange_memory tsr_exchange_memory_on_card(tsr_device *device, int32_t card, bool may_share)
{
    tsr_exchange_memory memory = tsr_exchange_memory_of(device);

    memory.is_cuda = true;
    memory.card = card;
    memory.may_share_card = may_share;
    return memory;
}
