/*
 * The experts of few pairs in one kernel, whose CTAs all run at once: they find the pairs for themselves,
 * share gate, up and down of all of them out (flow_cuda.cuh), and give each other the values between as
 * packets (packets_cuda.cuh). Some warps make operand rows, a segment ahead of those that multiply:
 *
 *   makers    rows of segment 0 | of segment 1 | ..        full ->
 *   others            segment 0 | segment 1 | ..           empty ->        rings: weights of what comes next
 */
#include "kernels/cuda/experts/flow_cuda.cuh"
#include "kernels/cuda/experts/tiles_cuda.cuh"

/* What a CTA has before the kernel in front has ended. */
static __device__ __forceinline__ void begin(const flow_args &a, flow_memory *m,
                                             packet_expert *experts, int32_t *local_of)
{
    uint32_t *asks = (uint32_t *)(void *)((unsigned char *)experts + a.room.asks - a.room.experts);

    packet_tables(a.pairs, a.mlps, experts, local_of);
    for (int32_t i = (int32_t)threadIdx.x; i < a.pairs.local * FLOW_WORDS; i += FLOW_THREADS)
        asks[i] = 0;
    if (threadIdx.x == 0) {
        for (int i = 0; i < FLOW_BUFFERS; i++) {
            barrier_open(async_address(&m->full[i]), FLOW_MAKERS);
            barrier_open(async_address(&m->empty[i]), FLOW_WARPS);
        }
    }
    __syncthreads();
}

static __device__ __forceinline__ flow_place place_of(const flow_args &a)
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    flow_place p;

    p.up_team = warp / a.product[0].cut.slices;
    p.up_slice = warp - p.up_team * a.product[0].cut.slices;
    p.down_team = warp / a.product[1].cut.slices;
    p.down_slice = warp - p.down_team * a.product[1].cut.slices;
    return p;
}

template <tsr_weight_format FORMAT>
static __global__ void __launch_bounds__(FLOW_THREADS, 1)
    flow_kernel(const __grid_constant__ flow_args a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(128) unsigned char memory[];
    __shared__ __align__(16) flow_memory m;
    packet_expert *experts = (packet_expert *)(void *)(memory + a.room.experts);
    int32_t *local_of = (int32_t *)(void *)(memory + a.room.local_of);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);

    begin(a, &m, experts, local_of);
    tsr_await_kernel();
    tsr_admit_kernel();
    if (!flow_look(a, local_of, &m, faults)) {
        if (threadIdx.x == 0)
            packet_number_seen(a.number);
        return;
    }
    const int32_t tiles = flow_tiles(a, &m, (uint32_t *)(void *)(memory + a.room.asks));
    if (warp == FLOW_WARPS)
        flow_segments(a, tiles, &m);
    __syncthreads();
    if (warp >= FLOW_WARPS) {
        flow_row row;
        flow_fetch(a, &m, 0, &row);
        __syncthreads(); /* its loads are in front of the first orders */
        flow_make_rows(a, &m, &row, memory, faults);
        if (threadIdx.x == FLOW_THREADS - 1)
            packet_number_seen(a.number);
        return;
    }
    __syncthreads();
    flow_warp w = {};
    w.m = &m;
    w.experts = experts;
    w.place = place_of(a);
    w.ring = async_address(memory) + (uint32_t)(warp * stream_depth(FORMAT) * stream_place(FORMAT));
    w.next.segment = -1;
    flow_multiply<FORMAT>(a, &w, memory);
}

typedef void (*flow_kernel_of)(const flow_args a, tsr_cuda_faults faults);

static flow_kernel_of kernel_for(tsr_weight_format format)
{
    return format == TSR_WEIGHT_NVFP4 ? flow_kernel<TSR_WEIGHT_NVFP4> : flow_kernel<TSR_WEIGHT_FP8>;
}

/* Bytes that a CTA can have beside what every CTA of the kernel has. */
static size_t most_room(const tsr_gemm_card *card)
{
    return card->shared - tsr_aligned(sizeof(flow_memory), 1024);
}

tsr_status tsr_cuda_prepare_flow(const tsr_gemm_card *card)
{
    const size_t most = most_room(card);
    const tsr_status st = packet_prepare((const void *)kernel_for(TSR_WEIGHT_NVFP4), most);

    return st == TSR_OK ? packet_prepare((const void *)kernel_for(TSR_WEIGHT_FP8), most) : st;
}

static flow_product product_of(const tsr_cuda_tiles *t)
{
    const bool down = t->mode == TSR_CUDA_TILES_DOWN;
    flow_product p = {};

    p.cut = product_cut_of(t->format, t->in);
    p.kind.format = t->format;
    p.kind.activation = t->activation;
    p.out = t->out;
    p.in = t->in;
    p.tiles = (int32_t)tsr_cuda_ceil(t->out, TSR_CUDA_TILE);
    p.items = down ? (p.tiles + STREAM_SIDES - 1) / STREAM_SIDES : p.tiles;
    p.blocks = p.cut.padded / STREAM_BLOCK;
    p.slice_blocks = tsr_smaller(p.cut.columns / STREAM_BLOCK, p.blocks);
    p.teams = FLOW_WARPS / p.cut.slices;
    return p;
}

static flow_room room_of(const flow_args &a)
{
    const bool nvfp4 = a.product[0].kind.format == TSR_WEIGHT_NVFP4;
    const tsr_weight_format format = nvfp4 ? TSR_WEIGHT_NVFP4 : TSR_WEIGHT_FP8;
    const int32_t columns = tsr_larger(a.product[0].cut.padded, a.product[1].cut.padded);
    flow_room r = {};

    r.end = FLOW_WARPS * stream_depth(format) * stream_place(format);
    r.row_bytes = (columns + PRODUCT_PAD) * (int32_t)sizeof(uint16_t);
    r.rows = packet_room(&r.end, (size_t)FLOW_BUFFERS * FLOW_TOGETHER * (size_t)r.row_bytes);
    r.sums = packet_room(&r.end, 2 * FLOW_WARPS * STREAM_SIDES * sizeof(flow_sums));
    r.experts = packet_room(&r.end, (size_t)a.pairs.local * sizeof(packet_expert));
    r.local_of = packet_room(&r.end, (size_t)a.pairs.experts * sizeof(int32_t));
    r.asks = packet_room(&r.end, (size_t)a.pairs.local * FLOW_WORDS * sizeof(uint32_t));
    return r;
}

static flow_args args_of(const tsr_cuda_device *cuda, const tsr_cuda_tiles *up,
                         const tsr_cuda_tiles *down)
{
    flow_args a = {};

    a.pairs = down->pairs;
    a.mlps = up->mlps;
    a.x = up->x;
    a.x_stride = up->x_stride;
    a.y = down->y;
    a.wide = cuda->work.packets;
    a.number = cuda->work.launch;
    a.product[0] = product_of(up);
    a.product[1] = product_of(down);
    a.room = room_of(a);
    a.slots = a.pairs.max_rows * a.pairs.slots;
    a.of_slots = (1 << 16) / a.pairs.slots + 1;
    return a;
}

static bool is_taken(const tsr_cuda_tiles *t)
{
    return packet_takes(t) && tsr_slices_of(t->in) <= FLOW_WARPS &&
           t->in <= 4 * TSR_CUDA_LANES *
                        (t->mode == TSR_CUDA_TILES_DOWN ? FLOW_PACKED_FOURS : FLOW_FOURS);
}

/* Named barriers of all teams that have more than one warp. */
static int32_t barriers_of(const flow_args &a)
{
    int32_t barriers = 0;

    for (int down = 0; down < 2; down++)
        barriers += a.product[down].cut.slices > 1 ? a.product[down].teams : 0;
    return barriers;
}

bool tsr_cuda_takes_flow(const tsr_cuda_device *cuda, const tsr_cuda_tiles *up,
                         const tsr_cuda_tiles *down)
{
    const int64_t slots = (int64_t)up->pairs.max_rows * up->pairs.slots;

    if (!cuda->alone || slots > FLOW_SLOTS || slots > up->pairs.max_answers ||
        slots > TSR_PACKET_SLOTS || !up->shares || up->format != down->format || !is_taken(up) ||
        !is_taken(down))
        return false;
    const flow_args a = args_of(cuda, up, down);
    const int32_t segments = FLOW_PHASES * (a.slots / cuda->gemm.processors + 2);
    return (size_t)a.room.end <= most_room(&cuda->gemm) && segments <= FLOW_SEGMENTS &&
           barriers_of(a) <= FLOW_TEAM_BARRIERS;
}

tsr_status tsr_cuda_multiply_flow(tsr_cuda_device *cuda, const tsr_cuda_tiles *up,
                                  const tsr_cuda_tiles *down, cudaStream_t stream)
{
    const flow_args a = args_of(cuda, up, down);
    tsr_cuda_launch_shape at = {};

    at.grid.x = (unsigned)cuda->gemm.processors;
    at.threads = FLOW_THREADS;
    at.shared = (size_t)a.room.end;
    at.stream = stream;
    return tsr_cuda_launch(at, kernel_for(up->format), a, cuda->faults);
}
