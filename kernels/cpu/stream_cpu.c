/*
 * Streams, marks, recordings and faults of a device that computes while it is called. Nothing is
 * ever under way: there is one order, the caller's; a mark has been passed when it is set; and a
 * recording would gain nothing.
 */
#include "kernels/cpu/stream_cpu.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"

tsr_status tsr_stream_open_cpu(tsr_device *device, tsr_stream *ret_stream)
{
    (void)device;
    *ret_stream = (tsr_stream){0};
    return TSR_OK;
}

void tsr_stream_close_cpu(tsr_device *device, tsr_stream s)
{
    (void)device;
    (void)s;
}

tsr_status tsr_mark_open_cpu(tsr_device *device, tsr_mark **ret_mark)
{
    *ret_mark = &tsr_cpu(device)->mark; /* all are alike */
    return TSR_OK;
}

void tsr_mark_close_cpu(tsr_device *device, tsr_mark *mark)
{
    (void)device;
    (void)mark;
}

tsr_status tsr_mark_cpu(tsr_device *device, tsr_mark *mark, tsr_stream s)
{
    (void)device;
    (void)mark;
    (void)s;
    return TSR_OK;
}

tsr_status tsr_await_cpu(tsr_device *device, tsr_mark *mark, tsr_stream s)
{
    (void)device;
    (void)mark;
    (void)s;
    return TSR_OK;
}

tsr_status tsr_passed_cpu(tsr_device *device, tsr_mark *mark, bool *ret_passed)
{
    (void)device;
    (void)mark;
    *ret_passed = true;
    return TSR_OK;
}

tsr_status tsr_clock_cpu(tsr_device *device, uint64_t *at_ns, tsr_stream s)
{
    (void)device;
    (void)s;
    *at_ns = (uint64_t)tsr_clock_ns();
    return TSR_OK;
}

tsr_status tsr_record_cpu(tsr_device *device, tsr_stream s)
{
    (void)device;
    (void)s;
    return TSR_OK;
}

tsr_status tsr_recorded_cpu(tsr_device *device, tsr_stream s, tsr_recording **ret_recording)
{
    (void)device;
    (void)s;
    *ret_recording = NULL;
    return TSR_OK;
}

tsr_status tsr_replay_cpu(tsr_device *device, tsr_recording *recording, tsr_stream s)
{
    (void)device;
    (void)recording;
    (void)s;
    tsr_log(TSR_LOG_ERROR, "replay: a cpu device has given no recording");
    return TSR_ERR_INTERNAL;
}

void tsr_recording_close_cpu(tsr_device *device, tsr_recording *recording)
{
    (void)device;
    (void)recording;
}

void tsr_set_fault_cpu(tsr_cpu_device *cpu, tsr_fault fault)
{
    if (cpu->fault.kind == TSR_FAULT_NONE)
        cpu->fault = fault;
}

const tsr_fault *tsr_fault_cpu(tsr_device *device)
{
    return &tsr_cpu(device)->fault;
}
