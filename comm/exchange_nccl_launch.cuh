/* How kernels of the exchange between GPUs are launched, and by how many CTAs. */
#ifndef TSR_COMM_EXCHANGE_NCCL_LAUNCH_CUH
#define TSR_COMM_EXCHANGE_NCCL_LAUNCH_CUH

#include "comm/exchange_nccl_device.cuh"

extern "C" {
#include "comm/nccl_cuda.h"
}

/* Most CTAs of anything where ranks share a GPU, on which all wait at once. */
enum { TSR_NCCL_SHARED_CTAS = 16 };

static cudaStream_t native(tsr_stream stream)
{
    return (cudaStream_t)stream.native;
}

/* Launches a kernel that begins with await_kernel, and may come before that. Not where ranks share a
 * GPU: one that has come to wait keeps the kernels of other streams from coming. */
template <typename... arguments>
static tsr_status launch(tsr_stream stream, dim3 grid, int threads,
                         void (*kernel)(tsr_nccl_work, arguments...), const tsr_nccl_work &work,
                         arguments... args)
{
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};

    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)threads);
    config.stream = native(stream);
    config.attrs = &attribute;
    config.numAttrs = work.alone != 0 ? 1 : 0;
    return TSR_NCCL_CUDA(cudaLaunchKernelEx(&config, kernel, work, args...));
}

static uint64_t within(uint64_t wanted, uint64_t least, uint64_t most)
{
    return wanted < least ? least : wanted < most ? wanted : most;
}

/* So many, or what is left to a rank that shares its GPU. */
static uint64_t allowed(const tsr_nccl_work *work, uint64_t ctas)
{
    return work->alone != 0 ? ctas : within(ctas, 1, TSR_NCCL_SHARED_CTAS);
}

/* CTAs of each peer, of so many that would have work, between one and those of all peers together. */
static unsigned ctas_of_peer(const tsr_nccl_work *work, uint64_t wanted, uint64_t most)
{
    return (unsigned)within(wanted, 1, within(most / (uint64_t)work->ranks, 1, most));
}

#endif
