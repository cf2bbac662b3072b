/*
 * The same products where there are tiles of pairs enough to keep the card busy: a warp takes whole
 * rows of the weights, slice by slice, gate before up, and keeps everything in registers. Warps meet
 * only when the tile of pairs changes:
 *
 *   warp 0   rows 0..15:    gate: slice 0, 1, .. | up: slice 0, 1, .. | store
 *   warp 1   rows 16..31:   gate: slice 0, 1, .. | up: slice 0, 1, .. | store
 *   ..
 */
#include "kernels/cuda/tiles_parts_cuda.cuh"

enum { WHOLE_WARPS = 8, WHOLE_THREADS = WHOLE_WARPS * TSR_CUDA_LANES, WHOLE_CTAS = 3 };

static __device__ __forceinline__ product_run run_at(const tiles_args &a, const tiles_memory *m,
                                                     tiles_item i, int32_t side, int32_t slice)
{
    const int32_t tile = i.group * a.beside + (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    product_run run = {NULL, NULL, 0};

    if (tile * TSR_CUDA_TILE < a.t.out)
        run = product_run_of(m->linear[i.index % 2][side], a.cut, tile, slice);
    return run;
}

/* What comes after a slice of a side of an item: none where the item was the last. */
static __device__ __forceinline__ product_run run_after(const tiles_args &a, const tiles_memory *m,
                                                        tiles_item i, int32_t side, int32_t slice,
                                                        bool is_last)
{
    product_run none = {NULL, NULL, 0};

    if (slice + 1 < a.cut.slices)
        return run_at(a, m, i, side, slice + 1);
    if (side + 1 < a.sides)
        return run_at(a, m, i, side + 1, 0);
    return is_last ? none : run_at(a, m, after(a, i), 0, 0);
}

/* One side of an item: its slices, added in order. */
template <tsr_weight_format FORMAT, int SPANS, bool SCALED>
static __device__ __forceinline__ void sum_side(const tiles_args &a, const tiles_memory *m,
                                                tiles_item item, int32_t side, bool is_last,
                                                const product_operand &o, product_task *task,
                                                packed_unit *ring, float total[SPANS][4])
{
    float sum[SPANS][4];

    for (int32_t slice = 0; slice < a.cut.slices; slice++) {
        task->slice = slice;
        task->next = run_after(a, m, item, side, slice, is_last);
        product_chain<FORMAT, SPANS, SCALED>(m->linear[item.index % 2][side], a.cut, o, *task, ring,
                                             sum);
        for (int j = 0; j < SPANS; j++) {
            for (int i = 0; i < 4; i++)
                total[j][i] = slice == 0 ? sum[j][i] : __fadd_rn(total[j][i], sum[j][i]);
        }
        task->run = task->next;
    }
}

/* What a lane holds of an item, to where it goes. */
template <int SPANS>
static __device__ __forceinline__ void store_lane(const tiles_args &a, const tiles_memory *m,
                                                  const tsr_cuda_tile &pairs, tiles_item item,
                                                  const float first[SPANS][4],
                                                  const float second[SPANS][4])
{
    const tsr_linear *l = m->linear[item.index % 2];
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t tile = item.group * a.beside + (int32_t)(threadIdx.x / TSR_CUDA_LANES);

#pragma unroll
    for (int n = 0; n < 4 * SPANS; n++) {
        const int32_t token = n / 4 * PRODUCT_COLUMNS + 2 * (lane % 4) + n % 2;
        const int32_t row = tile * TSR_CUDA_TILE + lane / 4 + n / 2 % 2 * 8;
        if (token >= pairs.count || row >= a.t.out)
            continue;
        int64_t to = pairs.first + token;
        float y = product_value(l[0], first[n / 4][n % 4], row, m->scale[token]);
        if (a.t.mode == TSR_CUDA_TILES_DOWN) {
            to = m->target[token];
        } else {
            const float scale = m->scale[a.t.shares ? token : PRODUCT_TOKENS + token];
            y = tsr_silu(y) * product_value(l[1], second[n / 4][n % 4], row, scale);
        }
        a.t.y[to * a.t.out + row] = y;
    }
}

template <tsr_weight_format FORMAT, int SPANS, bool SCALED>
static __global__ void __launch_bounds__(WHOLE_THREADS, WHOLE_CTAS)
    whole_kernel(const __grid_constant__ tiles_args a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(16) unsigned char rows[];
    __shared__ tiles_memory m;
    packed_unit ring[product_depth(FORMAT)];
    product_task task = {};
    tsr_cuda_tile pairs = {};
    int32_t staged = -1;
    int32_t left;

    tsr_admit_kernel();
    tsr_await_kernel();
    const bool is_faulty = tsr_is_faulty(faults);
    const int32_t tiles = count_tiles(a);
    if (is_faulty)
        return;
    tiles_item item = share_of(a, tiles, &left);
    if (left <= 0)
        return;
    fetch_linears(a, item.index, tiles, &m);
    __syncthreads();
    task.run = run_at(a, &m, item, 0, 0);
    product_begin<FORMAT>(task.run, ring);
    for (; left > 0; left--) {
        float first[SPANS][4];
        float second[SPANS][4];
        if (staged != item.index) {
            staged = item.index;
            pairs = pairs_of(a, staged);
            __syncthreads(); /* nobody looks at the tile before any more */
            fetch_linears(a, staged + 1, tiles, &m);
            stage_pairs(a, pairs, m.linear[staged % 2], rows, &m);
            __syncthreads();
        }
        task.tile = item.group * a.beside + (int32_t)(threadIdx.x / TSR_CUDA_LANES);
        sum_side<FORMAT, SPANS, SCALED>(a, &m, item, 0, left == 1, operand_of(a, pairs, 0, rows),
                                        &task, ring, first);
        if (a.sides == 2)
            sum_side<FORMAT, SPANS, SCALED>(a, &m, item, 1, left == 1,
                                            operand_of(a, pairs, 1, rows), &task, ring, second);
        store_lane<SPANS>(a, &m, pairs, item, first, second);
        item = after(a, item);
    }
}

typedef void (*whole_kernel_of)(const tiles_args a, tsr_cuda_faults faults);

template <tsr_weight_format FORMAT, bool SCALED>
static whole_kernel_of kernel_for(int32_t rows)
{
    return rows <= PRODUCT_COLUMNS ? whole_kernel<FORMAT, 1, SCALED>
                                   : whole_kernel<FORMAT, 2, SCALED>;
}

static whole_kernel_of find_kernel(tsr_weight_format format, bool scaled, int32_t rows)
{
    if (format == TSR_WEIGHT_BF16)
        return kernel_for<TSR_WEIGHT_BF16, false>(rows);
    if (format == TSR_WEIGHT_F16)
        return kernel_for<TSR_WEIGHT_F16, false>(rows);
    if (format == TSR_WEIGHT_NVFP4)
        return kernel_for<TSR_WEIGHT_NVFP4, false>(rows);
    return scaled ? kernel_for<TSR_WEIGHT_FP8, true>(rows) : kernel_for<TSR_WEIGHT_FP8, false>(rows);
}

tsr_status tsr_cuda_prepare_whole(void)
{
    static const tsr_weight_format formats[] = {TSR_WEIGHT_BF16, TSR_WEIGHT_F16, TSR_WEIGHT_NVFP4,
                                                TSR_WEIGHT_FP8};
    tsr_status st = TSR_OK;

    for (int i = 0; i < 16 && st == TSR_OK; i++) {
        const whole_kernel_of kernel =
            find_kernel(formats[i % 4], i / 4 % 2 != 0, i / 8 == 0 ? 1 : PRODUCT_TOKENS);
        st = TSR_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           TSR_CUDA_SHARED));
    }
    return st;
}

tsr_status tsr_cuda_multiply_whole(tsr_cuda_device *cuda, const tiles_args *usual,
                                   cudaStream_t stream)
{
    const int32_t row_tiles = (usual->t.out + TSR_CUDA_TILE - 1) / TSR_CUDA_TILE;
    const size_t operands = usual->sides == 2 && !usual->t.shares ? 2 : 1;
    const bool scaled = product_is_scaled(usual->t.format, usual->t.activation);
    const whole_kernel_of kernel = find_kernel(usual->t.format, scaled, usual->together);
    tsr_cuda_launch_shape at = {};
    tiles_args a = *usual;
    int resident = 1;

    a.beside = WHOLE_WARPS;
    a.groups = (row_tiles + WHOLE_WARPS - 1) / WHOLE_WARPS;
    at.threads = WHOLE_THREADS;
    at.shared = operands * (size_t)a.rows_bytes;
    at.stream = stream;
    const tsr_status st = TSR_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &resident, kernel, WHOLE_THREADS, at.shared));
    if (st != TSR_OK)
        return st;
    at.grid.x = (unsigned)(tsr_larger(resident, 1) * cuda->gemm.processors);
    return tsr_cuda_launch(at, kernel, a, cuda->faults);
}
