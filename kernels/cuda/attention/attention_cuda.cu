/*
 * Attention by what the host knows of a step: one row of each sequence, or rows of any number; over a
 * cache in BF16 or FP8, or exactly over F32. Faults are looked for by a warp for each sequence: over
 * F32 by a kernel of its own.
 */
#include "kernels/cuda/attention/attend_cuda.cuh"

#include "kernels/cuda/attention/attend_cuda.h"
#include "kernels/cuda/operands/attend_left_cuda.cuh"

#include <math.h>

static __global__ void check_kernel(const __grid_constant__ tsr_attend_job a,
                                    tsr_cuda_faults faults)
{
    tsr_admit_kernel();
    tsr_await_kernel();
    tsr_check_sequence(a, (int32_t)(blockIdx.x * TSR_CUDA_WARPS + threadIdx.x / TSR_CUDA_LANES),
                       faults);
}

static tsr_status check(tsr_device *device, const tsr_attend_job *job, tsr_stream s)
{
    const tsr_cuda_launch_shape at = {dim3(tsr_cuda_ceil(job->sequences, TSR_CUDA_WARPS)),
                                      TSR_CUDA_THREADS, 0, tsr_cuda_stream(device, s), 0};

    return tsr_launch_behind(at, check_kernel, *job, tsr_cuda(device)->faults);
}

static void turn_by(const tsr_rotary_args *r, tsr_attend_job *job)
{
    tsr_turn turn = {};

    turn.cos = r->cos;
    turn.sin = r->sin;
    turn.dim = r->head_dim;
    turn.share = 1.0F / (float)r->head_dim;
    turn.half = r->rotary_dim / 2;
    turn.eps = r->eps;
    turn.norm = r->q_norm;
    job->q_turn = turn;
    turn.norm = r->k_norm;
    job->k_turn = turn;
}

static tsr_attend_job job_of(tsr_device *device, const tsr_attention_args *a)
{
    static const float log2_of_e = 1.44269504F;
    const bool scaled = a->cache->format == TSR_KV_FP8;
    tsr_attend_job job = {};

    job.out = (float *)a->out;
    job.rows = a->rows;
    job.q = (const float *)a->q;
    job.k = (const float *)a->k;
    job.v = (const float *)a->v;
    job.cache = *a->cache;
    job.sequence = a->sequence;
    job.blocks = a->blocks;
    job.q_turn.dim = job.k_turn.dim = a->cache->head_dim;
    job.partial = tsr_cuda(device)->work.attend_partial;
    job.arrived = tsr_cuda(device)->work.attend_arrived;
    job.sequences = a->sequences;
    job.tokens = a->tokens;
    job.q_heads = a->q_heads;
    job.shared = a->q_heads / a->cache->kv_heads;
    job.max_context = device->shape.max_context;
    job.blocks_per_position = ((1ULL << TSR_BLOCK_SHIFT) + (uint64_t)a->cache->block_tokens - 1) /
                              (uint64_t)a->cache->block_tokens;
    job.row_pieces = (uint32_t)(a->cache->head_dim * (scaled ? 1 : 2) / TSR_PIECE);
    job.block_pieces = (uint32_t)(a->cache->kv_heads * a->cache->block_tokens) * job.row_pieces;
    job.score_scale =
        (scaled ? a->cache->key_scale : 1.0F) / sqrtf((float)a->cache->head_dim) * log2_of_e;
    job.value_scale = scaled ? a->cache->value_scale : 1.0F;
    return job;
}

tsr_status tsr_attend_cuda(tsr_device *device, const tsr_rotary_args *r,
                           const tsr_attention_args *a, tsr_stream s)
{
    tsr_attend_job job = job_of(device, a);
    tsr_status st = TSR_OK;

    if (a->tokens == 0 || a->sequences == 0)
        return TSR_OK;
    if (a->cache->format != TSR_KV_F32) {
        if (r != NULL)
            turn_by(r, &job);
        if (a->tokens != a->sequences)
            return tsr_attend_rows_prefill(device, &job, s);
        return tsr_attend_takes_splits(device, &job) ? tsr_attend_rows_splits(device, &job, s)
                                                     : tsr_attend_rows_decode(device, &job, s);
    }
    if (r != NULL)
        st = tsr_rotary_cuda(device, r, s);
    if (st == TSR_OK)
        st = check(device, &job, s);
    if (st == TSR_OK)
        st = tsr_attend_rows_exact(device, &job, s);
    return st;
}

tsr_status tsr_attend_leaving_cuda(tsr_device *device, const tsr_rotary_args *r,
                                   const tsr_attention_args *a, tsr_stream s,
                                   tsr_cuda_splits *ret_left)
{
    tsr_attend_job job = job_of(device, a);
    tsr_cuda_splits left = {};

    turn_by(r, &job);
    job.leaves = true;
    const tsr_status st = tsr_attend_rows_decode(device, &job, s);
    if (st != TSR_OK)
        return st;
    left.sums = job.partial;
    left.sequence = job.sequence;
    left.places = job.slots;
    left.chunks = job.chunks;
    left.kv_heads = job.cache.kv_heads;
    left.shared = job.shared;
    left.head_dim = job.cache.head_dim;
    left.width = left.head_dim <= 64 ? 64 : left.head_dim <= 128 ? 128 : 256;
    left.value_scale = job.value_scale;
    *ret_left = left;
    return TSR_OK;
}

tsr_status tsr_attention_cuda(tsr_device *device, const tsr_attention_args *a, tsr_stream s)
{
    return tsr_attend_cuda(device, NULL, a, s);
}
