/* The CPU device's streams: all work is done when its call returns, so there is one order, the
 * caller's, every mark has been passed, and nothing is recorded. */
#ifndef TSR_KERNELS_CPU_STREAM_CPU_H
#define TSR_KERNELS_CPU_STREAM_CPU_H

#include "kernels/cpu/device_cpu.h"

tsr_status tsr_stream_open_cpu(tsr_device *device, tsr_stream *ret_stream);
void tsr_stream_close_cpu(tsr_device *device, tsr_stream s);
tsr_status tsr_mark_open_cpu(tsr_device *device, tsr_mark **ret_mark);
void tsr_mark_close_cpu(tsr_device *device, tsr_mark *mark);
tsr_status tsr_mark_cpu(tsr_device *device, tsr_mark *mark, tsr_stream s);
tsr_status tsr_await_cpu(tsr_device *device, tsr_mark *mark, tsr_stream s);
tsr_status tsr_passed_cpu(tsr_device *device, tsr_mark *mark, bool *ret_passed);
tsr_status tsr_clock_cpu(tsr_device *device, uint64_t *at_ns, tsr_stream s);
tsr_status tsr_record_cpu(tsr_device *device, tsr_stream s);
tsr_status tsr_recorded_cpu(tsr_device *device, tsr_stream s, tsr_recording **ret_recording);
tsr_status tsr_replay_cpu(tsr_device *device, tsr_recording *recording, tsr_stream s);
void tsr_recording_close_cpu(tsr_device *device, tsr_recording *recording);

/* What a block leaves; the first stays. Called by the thread that runs the block. */
void tsr_set_fault_cpu(tsr_cpu_device *cpu, tsr_fault fault);
const tsr_fault *tsr_fault_cpu(tsr_device *device);

#endif
