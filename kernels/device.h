/*
 * A device: memory, streams, weights in the layout its kernels want, and workspace. It computes on
 * one processor and never sees a rank.
 *
 * Work goes on a stream and is done there in order; the call that put it there may return before.
 * A host learns that work is done by a mark behind it:
 *
 *   host    put  block ... block  get  mark        passed? no   passed? yes: read what get brought
 *   stream     | put | block ... block | get | mark -------------^
 *
 * A device that computes only while it is called (a CPU) has done the work when the call returns;
 * whoever waits for a mark is then right at once.
 *
 * One device is used by one thread at a time. Everything is allocated before the first block;
 * blocks (blocks.h) allocate nothing.
 */
#ifndef TSR_KERNELS_DEVICE_H
#define TSR_KERNELS_DEVICE_H

#include "runtime/base/format.h"
#include "runtime/base/status.h"
#include "runtime/base/stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tsr_device tsr_device;

/* Instruction sets of the CPU device. All give the same bits; `plain` is the definition. */
typedef enum tsr_cpu_isa {
    TSR_CPU_AUTO, /* the best this processor has */
    TSR_CPU_PLAIN,
    TSR_CPU_AVX2, /* with FMA and F16C */
    TSR_CPU_AVX512,
} tsr_cpu_isa;

/*
 *   threads  worker threads, the caller included; >= 1. The bits do not depend on it.
 *
 * TSR_ERR_DEVICE  the processor lacks `isa`
 * TSR_ERR_ARG, TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_device_open_cpu(int32_t threads, tsr_cpu_isa isa,
                                            tsr_device **ret_device);

/* GPUs that this build can see; 0, silently, where it has no CUDA or the machine no driver. */
int32_t tsr_cuda_cards(void);

/* "NVIDIA H200": what tsr_device_open_cuda would open. Cut to `capacity`. TSR_ERR_DEVICE, logged */
TSR_MUST_USE tsr_status tsr_cuda_card_name(int32_t ordinal, size_t capacity, char *ret_name);

/* What tells that GPU from every other, in whatever process. TSR_ERR_DEVICE, logged */
enum { TSR_CARD_ID_BYTES = 16 };
TSR_MUST_USE tsr_status tsr_cuda_card_id(int32_t ordinal, unsigned char ret_id[TSR_CARD_ID_BYTES]);

/* Where it is plugged in: "0000:17:00.0". TSR_ERR_DEVICE, logged */
enum { TSR_CARD_BUS_BYTES = 24 };
TSR_MUST_USE tsr_status tsr_cuda_card_bus(int32_t ordinal, char ret_bus[TSR_CARD_BUS_BYTES]);

/*
 *   ordinal  of the GPU among those that are visible; the calling thread's from now on
 *   alone    no other rank has kernels there, so that parts of one may wait for each other
 *
 * TSR_ERR_DEVICE  this build has no CUDA, the machine no such GPU or too old a driver
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_device_open_cuda(int32_t ordinal, bool alone, tsr_device **ret_device);

/* "cpu avx512, 2 threads": for the path report. Valid as long as the device. */
const char *tsr_device_name(const tsr_device *device);

/* NULL is allowed. */
void tsr_device_close(tsr_device *device);

/* Bytes of one element of a row of activations: f32 on both. The plan counts with them. */
enum { TSR_CPU_ACTIVATION_BYTES = 4, TSR_CUDA_ACTIVATION_BYTES = 4 };
size_t tsr_device_activation_bytes(const tsr_device *device);

/* Memory of the device, zeroed, aligned to 64 bytes; free before the device is closed. */
TSR_MUST_USE tsr_status tsr_device_alloc(tsr_device *device, size_t bytes, void **ret_memory);
void tsr_device_free(tsr_device *device, void *memory);

/* Bytes of the device's memory that are taken, by whomever, driver and libraries included; 0 where
 * it is the host's. */
uint64_t tsr_device_memory_in_use(tsr_device *device);

/*
 * Host memory that the device reads and writes on a stream while the host goes on (pinned, where
 * that matters); zeroed, aligned to 64 bytes. What put and get are given lies in it, and a block may
 * write its results there. Free before the device is closed.
 */
TSR_MUST_USE tsr_status tsr_device_host_alloc(tsr_device *device, size_t bytes, void **ret_memory);
void tsr_device_host_free(tsr_device *device, void *memory);

/*
 * Steps that are worth having under way at once: 2 where the device computes by itself, so that the
 * next step waits on it when one is done; 1 where it computes only while it is called.
 */
int32_t tsr_device_flights(const tsr_device *device);

/*
 * Threads that may lay rows out at once (tsr_device_load_rows, of parts that do not overlap) and put,
 * where the device does it while it is called; 0 where it does it on a stream.
 */
int32_t tsr_device_loaders(const tsr_device *device);

/* A stream of the device's own. Work on two streams has no order. TSR_ERR_DEVICE, TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_device_stream_open(tsr_device *device, tsr_stream *ret_stream);

/* What is still on it is lost. A zeroed stream is allowed. */
void tsr_device_stream_close(tsr_device *device, tsr_stream stream);

/* Host to device and back, in the order of the stream: the host's side stays untouched until the
 * stream has passed. */
TSR_MUST_USE tsr_status tsr_device_put(tsr_device *device, void *to, const void *from, size_t bytes,
                                       tsr_stream stream);
TSR_MUST_USE tsr_status tsr_device_get(tsr_device *device, void *to, const void *from, size_t bytes,
                                       tsr_stream stream);

/* A place on a stream. One mark is used again and again. */
typedef struct tsr_mark tsr_mark;

TSR_MUST_USE tsr_status tsr_device_mark_open(tsr_device *device, tsr_mark **ret_mark);
void tsr_device_mark_close(tsr_device *device, tsr_mark *mark); /* NULL is allowed */

/* Puts the mark behind everything that is on the stream now. */
TSR_MUST_USE tsr_status tsr_device_mark(tsr_device *device, tsr_mark *mark, tsr_stream stream);

/* Lets what is put on the stream from now on wait until another has passed the mark, as it is now. */
TSR_MUST_USE tsr_status tsr_device_await(tsr_device *device, tsr_mark *mark, tsr_stream stream);

/* Whether the stream has passed the mark. Never waits. TSR_ERR_DEVICE, logged: it never will */
TSR_MUST_USE tsr_status tsr_device_passed(tsr_device *device, tsr_mark *mark, bool *ret_passed);

/*
 * Writes the device's clock to its memory, when everything in front of it on the stream is done:
 * nanoseconds since some start. For who measures.
 */
TSR_MUST_USE tsr_status tsr_device_clock(tsr_device *device, uint64_t *at_ns, tsr_stream stream);

/*
 * Everything that is put on a stream between two calls, to be put there again as one piece: same
 * arguments, same addresses, other contents. A device that gains nothing by it (a CPU) does the
 * work meanwhile and gives no recording; one that records does nothing yet.
 *
 *   ret_recording  NULL: the work was done as usual
 */
typedef struct tsr_recording tsr_recording;

TSR_MUST_USE tsr_status tsr_device_record(tsr_device *device, tsr_stream stream);
TSR_MUST_USE tsr_status tsr_device_recorded(tsr_device *device, tsr_stream stream,
                                            tsr_recording **ret_recording);
TSR_MUST_USE tsr_status tsr_device_replay(tsr_device *device, tsr_recording *recording,
                                          tsr_stream stream);
void tsr_device_recording_close(tsr_device *device, tsr_recording *recording);

/*
 * What a block found wrong in device memory, where no front door can look: a block that finds such
 * a thing leaves it here, the first of all blocks, and does nothing. Whoever has seen a mark passed
 * asks; a device with a fault is only good for closing.
 *
 * TSR_ERR_ARG, logged the first time: a block found a fault
 */
TSR_MUST_USE tsr_status tsr_device_fault(tsr_device *device);

/*
 * How fast the device reads its own memory, in bytes a second: the median of several passes over
 * random bytes, in order, by everything that computes on it. What a step that reads weights can be
 * held against. Nothing else is under way.
 *
 *   bytes  that a pass reads, more than any cache holds; a quarter of what is free where that is
 *          less
 *
 * TSR_ERR_MEMORY, TSR_ERR_DEVICE
 */
TSR_MUST_USE tsr_status tsr_device_read_bandwidth(tsr_device *device, uint64_t bytes,
                                                  double *ret_bytes_per_s);

/* The largest of everything that one block will see; workspace is sized by it. */
typedef struct tsr_work_shape {
    int32_t max_tokens;       /* T of one block */
    int32_t max_rows;         /* arrived rows of one experts block */
    int32_t max_answers;      /* (row, slot) pairs of one experts block */
    int32_t max_in;           /* widest input of a linear */
    int32_t max_intermediate; /* widest I of an MLP */
    int32_t max_experts;      /* E */
    int32_t max_context;      /* longest sequence */
    int32_t max_logit_rows;   /* rows of logits, and samples, of one predict block */
    int32_t vocab;            /* V */
    int32_t hidden;           /* H */
    int32_t q_heads;
    int32_t kv_heads;
    int32_t head_dim;
    int32_t top_k; /* K */
} tsr_work_shape;

/* Bytes of the rows that stand between the steps of one block (queries, keys, values, what is
 * normed and what is added): the same on every device, beside its own workspace. The plan counts
 * with it. A multiple of 64. */
uint64_t tsr_block_rows_bytes(const tsr_work_shape *shape, size_t activation_bytes);

/* Bytes of workspace the CPU device takes for this shape with that many threads, beside those rows;
 * the plan counts with it. */
uint64_t tsr_cpu_workspace_bytes(const tsr_work_shape *shape, int32_t threads);

/* The same of the CUDA device, in every build; `threads` is not looked at. */
uint64_t tsr_cuda_workspace_bytes(const tsr_work_shape *shape, int32_t threads);

/* Takes the workspace and the rows. Once, before the first block and before tsr_experts_make.
 * TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_device_reserve(tsr_device *device, const tsr_work_shape *shape);

/*
 * One linear y = x W^T on a device. A view: the memory behind it belongs to whoever loaded it.
 *
 *   y[t, o] = (sum over i of x'[t, i] * value(o, i)) * scale of t * scale of o  + bias[o]
 *
 * x' is x * pre_quant_scale, then quantized by `activation`; global scales are applied in the fp32
 * epilogue. `in` is a multiple of 16.
 */
typedef struct tsr_linear {
    tsr_weight_format format;
    tsr_activation activation;
    int32_t out;
    int32_t in;
    const void *weight;           /* the device's own layout of [out, in] */
    const void *scales;           /* per channel, block or group; NULL where the format has none */
    const float *bias;            /* [out] f32, or NULL */
    const float *pre_quant_scale; /* [in] f32, or NULL */
    float weight_scale;           /* FP8 and NVFP4: the scale of the whole tensor; else 1 */
    float input_scale;            /* static activation scale; 1 where the activation has none */
} tsr_linear;

/* What is known of a linear before any of it is loaded. */
typedef struct tsr_linear_spec {
    tsr_weight_format format;
    tsr_activation activation;
    int32_t out;
    int32_t in;
    bool bias;
    bool pre_quant_scale;
    float weight_scale; /* as in tsr_linear */
    float input_scale;
} tsr_linear_spec;

/* Device bytes that a linear takes, alignment included; exact, and what the plan counts. */
uint64_t tsr_cpu_linear_bytes(tsr_weight_format format, int32_t out, int32_t in, bool bias,
                              bool pre_quant_scale);

uint64_t tsr_cuda_linear_bytes(tsr_weight_format format, int32_t out, int32_t in, bool bias,
                               bool pre_quant_scale);

/* The same, of an open device. */
uint64_t tsr_device_linear_bytes(const tsr_device *device, tsr_weight_format format, int32_t out,
                                 int32_t in, bool bias, bool pre_quant_scale);

/*
 * Describes a linear that will lie in `memory` (tsr_device_linear_bytes bytes of the device, aligned
 * to 64). Nothing is written: each part follows by tsr_device_load_rows.
 *
 * TSR_ERR_CHECKPOINT, silently  a scale is NaN or infinite
 * TSR_ERR_ARG
 */
TSR_MUST_USE tsr_status tsr_device_place_linear(tsr_device *device, const tsr_linear_spec *spec,
                                                void *memory, tsr_linear *ret_linear);

/* What is loaded into a linear, each on its own: scales before the weight, but in any order where
 * tsr_device_loaders lets several threads do it. */
typedef enum tsr_linear_part {
    TSR_LINEAR_SCALES,          /* rows of tsr_scale_shape_of; f32, or codes of their type */
    TSR_LINEAR_BIAS,            /* [out] f32 */
    TSR_LINEAR_PRE_QUANT_SCALE, /* [in] f32 */
    TSR_LINEAR_WEIGHT,          /* rows of W as stored (format.h) */
    TSR_LINEAR_PARTS
} tsr_linear_part;

/*
 * Consecutive rows of one part, in host memory of the device, aligned to their elements:
 *
 *   rows 0 .. | first .. first + count | .. out
 *
 * Those of a weight come in multiples of tsr_device_row_step, but for the last.
 */
typedef struct tsr_linear_rows {
    tsr_linear_part part;
    int32_t first;
    int32_t count;
    const void *bytes; /* of row `first`; row after row */
} tsr_linear_rows;

/* Rows of a weight that the device lays out together: 1, or as many as share a tile or a scale. */
int32_t tsr_device_row_step(const tsr_device *device, tsr_weight_format format);

/*
 * Lays rows out where `linear` was placed, in `memory`. Ordered on the stream as put is: the bytes
 * stay untouched until it has passed.
 *
 * TSR_ERR_CHECKPOINT, silently  a value is NaN or infinite: looked for on the host, so that the
 *                               caller knows whose it is
 * TSR_ERR_ARG                   rows that are not there, or not whole steps
 */
TSR_MUST_USE tsr_status tsr_device_load_rows(tsr_device *device, const tsr_linear *linear,
                                             void *memory, const tsr_linear_rows *rows,
                                             tsr_stream stream);

#endif
