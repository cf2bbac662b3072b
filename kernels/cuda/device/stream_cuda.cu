/*
 * Streams, copies, marks and recordings: CUDA streams, events without timing, and graphs.
 *
 *   record --> capture begins --> blocks are noted, not run --> recorded: a graph, made executable
 *   replay --> the graph, as one piece, behind what is on the stream
 */
#include "kernels/cuda/device/device_cuda.cuh"

#include <stdlib.h>

struct tsr_mark {
    cudaEvent_t event;
};

struct tsr_recording {
    cudaGraphExec_t graph;
};

tsr_status tsr_stream_open_cuda(tsr_device *device, tsr_stream *ret_stream)
{
    cudaStream_t stream = NULL;

    (void)device;
    const tsr_status st = TSR_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    if (st == TSR_OK)
        ret_stream->native = stream;
    return st;
}

void tsr_stream_close_cuda(tsr_device *device, tsr_stream s)
{
    (void)device;
    /* What is still on it must not run on while its memory is freed. */
    (void)TSR_CUDA(cudaStreamSynchronize((cudaStream_t)s.native));
    (void)TSR_CUDA(cudaStreamDestroy((cudaStream_t)s.native));
}

tsr_status tsr_put_cuda(tsr_device *device, void *to, const void *from, size_t bytes, tsr_stream s)
{
    return TSR_CUDA(
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, tsr_cuda_stream(device, s)));
}

tsr_status tsr_get_cuda(tsr_device *device, void *to, const void *from, size_t bytes, tsr_stream s)
{
    return TSR_CUDA(
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, tsr_cuda_stream(device, s)));
}

tsr_status tsr_mark_open_cuda(tsr_device *device, tsr_mark **ret_mark)
{
    tsr_mark *mark = (tsr_mark *)calloc(1, sizeof(*mark));

    (void)device;
    if (mark == NULL)
        return TSR_ERR_MEMORY;
    const tsr_status st = TSR_CUDA(cudaEventCreateWithFlags(&mark->event, cudaEventDisableTiming));
    if (st != TSR_OK) {
        free(mark);
        return st;
    }
    *ret_mark = mark;
    return TSR_OK;
}

void tsr_mark_close_cuda(tsr_device *device, tsr_mark *mark)
{
    (void)device;
    (void)TSR_CUDA(cudaEventDestroy(mark->event));
    free(mark);
}

tsr_status tsr_mark_cuda(tsr_device *device, tsr_mark *mark, tsr_stream s)
{
    return TSR_CUDA(cudaEventRecord(mark->event, tsr_cuda_stream(device, s)));
}

tsr_status tsr_await_cuda(tsr_device *device, tsr_mark *mark, tsr_stream s)
{
    return TSR_CUDA(cudaStreamWaitEvent(tsr_cuda_stream(device, s), mark->event, 0));
}

tsr_status tsr_passed_cuda(tsr_device *device, tsr_mark *mark, bool *ret_passed)
{
    const cudaError_t error = cudaEventQuery(mark->event);

    (void)device;
    if (error == cudaErrorNotReady) {
        *ret_passed = false;
        return TSR_OK;
    }
    const tsr_status st = TSR_CUDA(error);
    if (st == TSR_OK)
        *ret_passed = true;
    return st;
}

static __global__ void clock_kernel(uint64_t *at_ns)
{
    uint64_t now;

    tsr_admit_kernel();
    tsr_await_kernel();
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    *at_ns = now;
}

tsr_status tsr_clock_cuda(tsr_device *device, uint64_t *at_ns, tsr_stream s)
{
    const tsr_cuda_launch_shape at = {dim3(1), 1, 0, tsr_cuda_stream(device, s), 0};

    return tsr_cuda_launch(at, clock_kernel, at_ns);
}

tsr_status tsr_record_cuda(tsr_device *device, tsr_stream s)
{
    return TSR_CUDA(
        cudaStreamBeginCapture(tsr_cuda_stream(device, s), cudaStreamCaptureModeThreadLocal));
}

tsr_status tsr_recorded_cuda(tsr_device *device, tsr_stream s, tsr_recording **ret_recording)
{
    cudaGraph_t graph = NULL;
    tsr_recording *recording = (tsr_recording *)calloc(1, sizeof(*recording));
    tsr_status st = TSR_CUDA(cudaStreamEndCapture(tsr_cuda_stream(device, s), &graph));

    if (st == TSR_OK && recording == NULL)
        st = TSR_ERR_MEMORY;
    if (st == TSR_OK)
        st = TSR_CUDA(cudaGraphInstantiate(&recording->graph, graph, 0));
    if (graph != NULL)
        (void)TSR_CUDA(cudaGraphDestroy(graph));
    if (st != TSR_OK) {
        free(recording);
        return st;
    }
    *ret_recording = recording;
    return TSR_OK;
}

tsr_status tsr_replay_cuda(tsr_device *device, tsr_recording *recording, tsr_stream s)
{
    return TSR_CUDA(cudaGraphLaunch(recording->graph, tsr_cuda_stream(device, s)));
}

void tsr_recording_close_cuda(tsr_device *device, tsr_recording *recording)
{
    (void)device;
    (void)TSR_CUDA(cudaGraphExecDestroy(recording->graph));
    free(recording);
}
