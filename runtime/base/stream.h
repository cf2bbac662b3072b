/* Where work is ordered. A CPU has one order, the caller's own, and `native` is NULL; on a GPU it
 * is a CUDA stream. */
#ifndef TSR_RUNTIME_BASE_STREAM_H
#define TSR_RUNTIME_BASE_STREAM_H

typedef struct tsr_stream {
    void *native;
} tsr_stream;

#endif
