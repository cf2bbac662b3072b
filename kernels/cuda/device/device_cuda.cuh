/*
 * The CUDA device from inside: its stream, its workspace, its fault, and the one macro that vendor
 * calls go through.
 *
 *   device memory   | claimed |   the first kernel that finds a fault takes it; others then return
 *   host, mapped    | fault   |   what it found, for the host to see while work goes on
 */
#ifndef TSR_KERNELS_CUDA_DEVICE_DEVICE_CUDA_CUH
#define TSR_KERNELS_CUDA_DEVICE_DEVICE_CUDA_CUH

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include "kernels/compose.h"
#include "kernels/cuda/device/work_cuda.h"
#include "kernels/device_ops.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"
}

#include <cudaTypedefs.h>
#include <cuda_runtime.h>

/* Evaluates to a tsr_status; logs what failed. */
#define TSR_CUDA(call) tsr_cuda_status((call), #call, __FILE__, __LINE__)
tsr_status tsr_cuda_status(cudaError_t error, const char *call, const char *file, int line);

/* Whether the launch before it was taken. */
#define TSR_CUDA_LAUNCHED() TSR_CUDA(cudaGetLastError())

/* Threads of a CTA of every kernel that works on rows. */
enum { TSR_CUDA_THREADS = 256 };

/* The widest head that attention and rotation hold. */
enum { TSR_CUDA_HEAD_DIM = 256 };

/* Most dynamic shared memory that a kernel asks for, bytes. */
enum { TSR_CUDA_SHARED = 200 * 1024 };

/* CTAs of a cluster that every card has. */
enum { TSR_CUDA_CLUSTER = 8 };

/* Most tokens, rows and sequences of one launch: a dimension of a grid. */
enum { TSR_CUDA_GRID = 65535 };

/* Where a kernel leaves what it found wrong. */
typedef struct tsr_cuda_faults {
    int32_t *claimed; /* device memory */
    tsr_fault *seen;  /* the host's, as the device sees it */
} tsr_cuda_faults;

/* What launches are shaped by. */
typedef struct tsr_gemm_card {
    int32_t processors;
    int32_t tokens;    /* that a tile of a product of many rows has at most */
    size_t shared;     /* bytes a CTA can have */
    size_t shared_all; /* bytes of a processor */
    /* Clusters of each size that it holds at once, of one CTA a processor and of two. */
    int32_t clusters[2][TSR_CUDA_CLUSTER + 1];
    PFN_cuTensorMapEncodeTiled_v12000 encode;
} tsr_gemm_card;

typedef struct tsr_cuda_device {
    tsr_device base; /* first member */
    int32_t ordinal;
    bool alone; /* nobody else has kernels on this GPU: CTAs of one can wait for each other */
    tsr_gemm_card gemm;
    cudaStream_t stream; /* of whoever names none */
    tsr_fault *fault;    /* pinned and mapped: as the host sees it */
    tsr_cuda_faults faults;
    unsigned char *memory; /* behind `work` */
    tsr_cuda_work work;
    bool sends; /* the last experts send their answers (combine_cuda.cu) */
    bool waits; /* the last combine waits for answers of other ranks */
} tsr_cuda_device;

static inline tsr_cuda_device *tsr_cuda(tsr_device *device)
{
    return (tsr_cuda_device *)(void *)device;
}

static inline cudaStream_t tsr_cuda_stream(tsr_device *device, tsr_stream s)
{
    return s.native != NULL ? (cudaStream_t)s.native : tsr_cuda(device)->stream;
}

static inline unsigned tsr_cuda_ceil(int64_t count, int64_t by)
{
    return (unsigned)((count + by - 1) / by);
}

/* Where a kernel goes. */
typedef struct tsr_cuda_launch_shape {
    dim3 grid;
    unsigned threads;
    size_t shared; /* dynamic shared memory, bytes */
    cudaStream_t stream;
    unsigned cluster; /* CTAs of a cluster, along x; 0: none */
} tsr_cuda_launch_shape;

/*
 * Launches a kernel that may begin before the one in front of it has ended: it calls
 * tsr_await_kernel before it reads what that one wrote, or writes anything. Every kernel of ours
 * does, so that one that has ended has seen all before it end.
 */
template <typename... parameters, typename... arguments>
static inline tsr_status tsr_cuda_launch(const tsr_cuda_launch_shape &at,
                                         void (*kernel)(parameters...), arguments... args)
{
    cudaLaunchAttribute attribute[2] = {};
    cudaLaunchConfig_t config = {};

    attribute[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute[0].val.programmaticStreamSerializationAllowed = 1;
    attribute[1].id = cudaLaunchAttributeClusterDimension;
    attribute[1].val.clusterDim.x = at.cluster;
    attribute[1].val.clusterDim.y = 1;
    attribute[1].val.clusterDim.z = 1;
    config.gridDim = at.grid;
    config.blockDim = dim3(at.threads);
    config.dynamicSmemBytes = at.shared;
    config.stream = at.stream;
    config.attrs = attribute;
    config.numAttrs = at.cluster > 0 ? 2 : 1;
    return TSR_CUDA(cudaLaunchKernelEx(&config, kernel, parameters(args)...));
}

static __device__ __forceinline__ void tsr_await_kernel(void)
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

/* The next kernel may begin once all CTAs have said so; it awaits the end of this one itself. */
static __device__ __forceinline__ void tsr_admit_kernel(void)
{
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

/* Streams, marks and recordings (stream_cuda.cu). */
tsr_status tsr_stream_open_cuda(tsr_device *device, tsr_stream *ret_stream);
void tsr_stream_close_cuda(tsr_device *device, tsr_stream s);
tsr_status tsr_put_cuda(tsr_device *device, void *to, const void *from, size_t bytes, tsr_stream s);
tsr_status tsr_get_cuda(tsr_device *device, void *to, const void *from, size_t bytes, tsr_stream s);
tsr_status tsr_mark_open_cuda(tsr_device *device, tsr_mark **ret_mark);
void tsr_mark_close_cuda(tsr_device *device, tsr_mark *mark);
tsr_status tsr_mark_cuda(tsr_device *device, tsr_mark *mark, tsr_stream s);
tsr_status tsr_await_cuda(tsr_device *device, tsr_mark *mark, tsr_stream s);
tsr_status tsr_passed_cuda(tsr_device *device, tsr_mark *mark, bool *ret_passed);
tsr_status tsr_clock_cuda(tsr_device *device, uint64_t *at_ns, tsr_stream s);
tsr_status tsr_record_cuda(tsr_device *device, tsr_stream s);
tsr_status tsr_recorded_cuda(tsr_device *device, tsr_stream s, tsr_recording **ret_recording);
tsr_status tsr_replay_cuda(tsr_device *device, tsr_recording *recording, tsr_stream s);
void tsr_recording_close_cuda(tsr_device *device, tsr_recording *recording);

/* What the memory gives (bandwidth_cuda.cu). */
tsr_status tsr_read_bandwidth_cuda(tsr_device *device, uint64_t bytes, double *ret_bytes_per_s);

/* The operations, one file each; device_cuda.cu puts them in the table. */
tsr_status tsr_embed_cuda(tsr_device *device, const tsr_embed_block *b, tsr_stream s);
tsr_status tsr_norm_cuda(tsr_device *device, const tsr_norm_args *a, tsr_stream s);
tsr_status tsr_linears_cuda(tsr_device *device, const tsr_linears_args *a, tsr_stream s);
tsr_status tsr_head_cuda(tsr_device *device, const tsr_head_args *a, tsr_stream s);
tsr_status tsr_add_cuda(tsr_device *device, const tsr_add_args *a, tsr_stream s);
tsr_status tsr_rotary_cuda(tsr_device *device, const tsr_rotary_args *a, tsr_stream s);
tsr_status tsr_attention_cuda(tsr_device *device, const tsr_attention_args *a, tsr_stream s);
tsr_status tsr_router_cuda(tsr_device *device, const tsr_router_args *a, tsr_stream s);
tsr_status tsr_mlp_cuda(tsr_device *device, const tsr_mlp_args *a, tsr_stream s);
tsr_status tsr_pack_cuda(tsr_device *device, const tsr_pack_args *a, tsr_stream s);
tsr_status tsr_experts_cuda(tsr_device *device, const tsr_experts_block *b, tsr_stream s);
tsr_status tsr_combine_cuda(tsr_device *device, const tsr_combine_block *b, tsr_stream s);
tsr_status tsr_cuda_prepare_sample(void); /* once, before the first */
tsr_status tsr_sample_cuda(tsr_device *device, const tsr_sample_args *a, tsr_stream s);

#endif
