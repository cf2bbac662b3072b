/*
 * The CPU device from inside: its team of threads, its workspace, and the table of one instruction
 * set.
 */
#ifndef TSR_KERNELS_CPU_DEVICE_CPU_H
#define TSR_KERNELS_CPU_DEVICE_CPU_H

#include "kernels/cpu/threads_cpu.h"
#include "kernels/device_ops.h"

/* Heads that attend together, positions of keys or values decoded together, and the most rows an
 * operation takes through its stages at once. */
enum { TSR_CPU_HEADS = 8, TSR_CPU_POSITIONS = 16, TSR_CPU_CHUNK = 512 };

/* Rows of a weight that are decoded together. */
enum { TSR_CPU_TILE = 4 };

typedef struct tsr_cpu_format tsr_cpu_format;

/* What is compiled once per instruction set. */
typedef struct tsr_cpu_isa_table {
    const char *name;
    tsr_op_table ops;
    const tsr_cpu_format *const *format; /* [TSR_WEIGHT_FORMAT_COUNT] */
    const tsr_cpu_format *(*format_of)(const tsr_linear *linear);
} tsr_cpu_isa_table;

extern const tsr_cpu_isa_table tsr_cpu_isa_table_plain;
#ifdef TSR_X86
extern const tsr_cpu_isa_table tsr_cpu_isa_table_avx2;
extern const tsr_cpu_isa_table tsr_cpu_isa_table_avx512;
#endif

/* One linear over rows that have been quantized already. */
typedef struct tsr_linear_job {
    float *y; /* row t of the answer at y + row_of[t] * y_stride, or + t * y_stride */
    const tsr_linear *linear;
    const float *x;        /* [tokens, in] */
    const float *scale;    /* [tokens] scale of each row, or NULL: all 1 */
    const int32_t *row_of; /* [tokens] or NULL */
    size_t y_stride;       /* floats */
    int32_t tokens;
} tsr_linear_job;

/* Rows of an expert MLP that share one expert. */
typedef struct tsr_mlp_group {
    const tsr_mlp *mlp;
    int32_t first; /* within the chunk */
    int32_t count;
} tsr_mlp_group;

/*
 * Workspace, laid out once by tsr_cpu_work_layout. C is `chunk`.
 */
typedef struct tsr_cpu_work {
    int32_t chunk;
    float *rows[2];        /* [C, max_in] quantized inputs */
    float *scale[2];       /* [C] their scales */
    float *gate;           /* [C, max_intermediate] */
    float *up;             /* [C, max_intermediate] */
    float *logits;         /* [C, max_experts] of the router */
    int32_t *source;       /* [max_answers] row of each pair, by expert */
    int32_t *target;       /* [max_answers] answer of each pair */
    int32_t *expert_first; /* [max_experts + 1] */
    tsr_mlp_group *group;  /* [min(C, max_experts)] */
    tsr_linear_job *job;   /* [2 * min(C, max_experts) + TSR_MAX_LINEARS] */
    unsigned char *thread; /* [threads, thread_bytes] */
    size_t thread_bytes;
    int32_t score_stride; /* floats per head of attention scores */
} tsr_cpu_work;

struct tsr_mark {
    char nothing; /* a CPU has none to keep */
};

typedef struct tsr_cpu_device {
    tsr_device base;
    tsr_mark mark;
    tsr_fault fault; /* the first that a block found */
    const tsr_cpu_isa_table *isa;
    tsr_threads *threads;
    void *memory; /* behind `work` */
    tsr_cpu_work work;
} tsr_cpu_device;

static inline tsr_cpu_device *tsr_cpu(tsr_device *device)
{
    return (tsr_cpu_device *)device;
}

/* Thread `thread`'s own memory. */
static inline float *tsr_cpu_thread_work(const tsr_cpu_work *work, int32_t thread)
{
    return (float *)(void *)(work->thread + (size_t)thread * work->thread_bytes);
}

/* Where everything lies in `memory` (NULL: only counted). Returns the bytes. */
uint64_t tsr_cpu_work_layout(const tsr_work_shape *shape, int32_t threads, unsigned char *memory,
                             tsr_cpu_work *ret_work);

#endif
