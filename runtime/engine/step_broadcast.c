/* A step on its way from rank 0 to all. */
#include "runtime/engine/step_broadcast.h"

static tsr_status broadcast_rest(tsr_comm *comm, unsigned char *buffer, size_t bytes)
{
    if (bytes <= TSR_STEP_FIRST_BYTES)
        return TSR_OK;
    return tsr_comm_broadcast(comm, 0, buffer + TSR_STEP_FIRST_BYTES, bytes - TSR_STEP_FIRST_BYTES);
}

tsr_status tsr_step_send(tsr_comm *comm, void *buffer, size_t bytes)
{
    const tsr_status st = tsr_comm_broadcast(comm, 0, buffer, TSR_STEP_FIRST_BYTES);
    return st == TSR_OK ? broadcast_rest(comm, buffer, bytes) : st;
}

tsr_status tsr_step_receive(tsr_comm *comm, const tsr_step_bounds *bounds, void *buffer,
                            size_t capacity, size_t *ret_bytes)
{
    size_t bytes = 0;

    tsr_status st = tsr_comm_broadcast(comm, 0, buffer, TSR_STEP_FIRST_BYTES);
    if (st == TSR_OK)
        st = tsr_step_plan_announced(buffer, capacity, bounds, &bytes);
    if (st == TSR_OK)
        st = broadcast_rest(comm, buffer, bytes);
    if (st == TSR_OK)
        *ret_bytes = bytes;
    return st;
}
