/*
 * The least that can be between GPUs, to measure an exchange by: each CTA stores a peer's packets
 * and takes those that come from it, by an epoch of its own. Nothing is counted, listed or numbered,
 * nobody can be let go, and the next kernel waits until this one has ended.
 *
 * Epochs are of the upper half, which exchanges do not come to, since the places are theirs.
 */
#include "comm/exchange_nccl_device.cuh"
#include "comm/exchange_nccl_packets.cuh"

extern "C" {
#include "comm/nccl_cuda.h"
}

#define BARE_EPOCHS 0x80000000U

static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    bare_kernel(const __grid_constant__ tsr_nccl_work w, int32_t words)
{
    uint32_t *epochs = (uint32_t *)(w.block + w.at.bare);
    /* By peer and place, so that both ends count alike with any number of CTAs. */
    const int32_t cta = (int32_t)(blockIdx.y * TSR_EXCHANGE_BARE_CTAS + blockIdx.x);
    const uint32_t epoch = BARE_EPOCHS | (epochs[cta] + 1);
    const int32_t peer = (int32_t)blockIdx.y;
    const int32_t packets = (words + TSR_NCCL_WORDS - 1) / TSR_NCCL_WORDS;
    const uint32_t *from = (const uint32_t *)(w.block + w.at.send_rows);
    uint32_t *to = (uint32_t *)(w.window + w.at.arrived_rows) + (int64_t)peer * words;
    const uint64_t area = epoch % 2 * packets_apart(w);
    unsigned char *go = w.peer[peer] + packets_at(w, w.rank) + area;
    const unsigned char *come = w.window + packets_at(w, peer) + area;

    for (int32_t n = thread_of_peer(); n < packets; n += threads_of_peer())
        post_vector(go + (int64_t)n * TSR_NCCL_PACKET_BYTES,
                    packet_of(read_words(from, words, n * TSR_NCCL_WORDS), epoch));
    for (int32_t n = thread_of_peer(); n < packets; n += threads_of_peer()) {
        tsr_nccl_vector p;
        do
            p = look_at_vector(come + (int64_t)n * TSR_NCCL_PACKET_BYTES);
        while (p.w != epoch);
        take_words(to, words, n * TSR_NCCL_WORDS, p);
    }
    __syncthreads();
    if (threadIdx.x == 0)
        epochs[cta] = (epoch & ~BARE_EPOCHS);
}

extern "C" tsr_status tsr_nccl_bare_packets(const tsr_nccl_work *work, int32_t tokens, int32_t ctas,
                                            tsr_stream stream)
{
    const int32_t words = (int32_t)((uint64_t)tokens * work->row_bytes / sizeof(int32_t));
    const dim3 grid((unsigned)ctas, (unsigned)work->ranks);

    bare_kernel<<<grid, TSR_NCCL_THREADS, 0, (cudaStream_t)stream.native>>>(*work, words);
    return TSR_NCCL_CUDA(cudaGetLastError());
}
