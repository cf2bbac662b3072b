/*
 * The devices that tests of kernels run on, one row each, and how a test reaches their memory: by
 * put and get on a stream, as everyone does. A test never reads device memory itself.
 *
 *   host     float x[]  --sample_rows-->    | rows |  operation  | rows |   --sample_get_rows-->
 *   device                                  '------'             '------'
 *
 * Every device is held against the first: its row says how near it has to come.
 */
#ifndef TSR_TESTS_KERNELS_BACKENDS_H
#define TSR_TESTS_KERNELS_BACKENDS_H

#include "kernels/device_ops.h"

/* The CPU's instruction sets, with different thread counts; then a GPU. */
enum { SAMPLE_DEVICES = 7 };

/* The i-th, reserved for `shape`; NULL where this machine has none. Fails the test on any other
 * error. */
tsr_device *sample_device(int i, const tsr_work_shape *shape);

/* The same for tests of how much there is to do, for which a GPU has kernels of their own: under a
 * sanitizer, which does not look at bits, one CPU stands for all. Others show it their lanes in the tests of
 * shapes. */
tsr_device *sample_sized_device(int i, const tsr_work_shape *shape);

/* The CPU with the widest lanes that there are, and several threads. */
int sample_best_cpu(void);

/* The GPU, as if other ranks had kernels there too; NULL where there is none. */
tsr_device *sample_shared_device(const tsr_work_shape *shape);

/* Shapes that are enough for all tests here: of what has no heads, and of what has. */
extern const tsr_work_shape sample_shape;
extern const tsr_work_shape sample_heads_shape;

/* Closes the device and frees what was taken below. NULL is allowed. */
void sample_close(tsr_device *device);

/* Waits for everything on the stream. */
void sample_wait(tsr_device *device);

/* Device memory, zeroed. */
void *sample_room(tsr_device *device, size_t bytes);

/* Device memory with these bytes. */
void *sample_put(tsr_device *device, const void *from, size_t bytes);

/* Writes to device memory that is there. */
void sample_write(tsr_device *device, void *to, const void *from, size_t bytes);

/* Waits for everything on the stream, then reads device memory. */
void sample_get(tsr_device *device, void *to, const void *from, size_t bytes);

/* The same for activations, in the device's type. */
void *sample_rows(tsr_device *device, const float *x, size_t count);
void *sample_row_room(tsr_device *device, size_t count);
void sample_get_rows(tsr_device *device, float *to, const void *rows, size_t count);

/* Fails unless the i-th device's results are as near the expected ones as its row says. */
void sample_assert_like(int i, const float *expected, const float *got, size_t count);

/* The same where the device may have quantized what it had rounded before, so that a code tips over
 * to the next. */
void sample_assert_tipped(int i, const float *expected, const float *got, size_t count);

/* True when the i-th device gives the bits of the first. */
bool sample_is_exact(int i);

#endif
