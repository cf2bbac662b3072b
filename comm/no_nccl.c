/* The exchange between GPUs of a build that has none. */
#include "comm/exchange_nccl.h"

#include "runtime/base/log.h"

#include <inttypes.h>

bool tsr_exchange_reaches_cards(void)
{
    return false;
}

tsr_status tsr_exchange_copy_plainly(tsr_exchange *exchange, int32_t tokens, tsr_stream stream)
{
    (void)exchange;
    (void)tokens;
    (void)stream;
    return TSR_ERR_ARG;
}

tsr_status tsr_exchange_bare_packets(tsr_exchange *exchange, int32_t tokens, int32_t ctas,
                                     tsr_stream stream)
{
    (void)ctas;
    return tsr_exchange_copy_plainly(exchange, tokens, stream);
}

tsr_status tsr_exchange_echo(tsr_exchange *exchange, const tsr_exchange_coming *coming,
                             tsr_stream stream)
{
    (void)coming;
    return tsr_exchange_copy_plainly(exchange, 0, stream);
}

tsr_status tsr_exchange_nccl_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                  tsr_exchange **ret_exchange)
{
    (void)shape;
    (void)ret_exchange;
    tsr_log(TSR_LOG_ERROR,
            "exchange: %" PRId32 " ranks, whose rows lie in the memory of GPUs: this build has no "
            "NCCL to move them; build with -DTSR_NCCL=ON where libnccl-dev is installed",
            comm->size);
    return TSR_ERR_DEVICE;
}
