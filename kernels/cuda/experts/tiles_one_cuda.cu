/*
 * The experts of a single row in one kernel. What counts is how soon memory is at work, and that it stays
 * so: each warp orders its weights of gate and up, and behind them, into the same ring, some of down's,
 * before any operand is there.
 *
 *   grid    slot 0: share | share | ..     slot 1: share | share | ..      of the slot's expert
 *   warps   gate and up of tile 0: slice 0, 1, .. | of tile 1: ..          then
 *           down of tile 0: slice 0, 1, .. | of tile 1: ..                 by whatever warps there are
 *   ring of a warp   | quarter of its slice of gate, up | .. | .. | .. |    then parts of down where these were
 *
 * Who chooses tells the row and its experts while it still works (told_cuda.cuh), and what is told is taken:
 * whether it was right one warp finds when that kernel has ended, before anything is handed on.
 *
 * CTAs of a slot give each other what gate and up become (packets_cuda.cuh). None waits for one that has no
 * room: there are at most as many as processors, and who comes after begins when all are there.
 */
#include "kernels/cuda/experts/one_cuda.cuh"

/* What gate and up of the CTA's share become, for the others of the slot. */
static __device__ __forceinline__ void leave_wide(const one_args &a, const one_ends &e,
                                                  const one_memory &m, const one_sums *sums)
{
    if (e.row < 0)
        return;
    const float gate = value_of(a.up, e, 0, m.scale[0], sums);
    const float times = value_of(a.up, e, 1, m.scale[0], sums);
    packet_send(a.wide + (int64_t)blockIdx.y * a.up.out + e.row, __fmul_rn(tsr_silu(gate), times),
                m.number);
}

/* The CTA's share of the answer, to where it belongs and to who combines it. */
static __device__ __forceinline__ void leave_answer(const one_args &a, const one_ends &e,
                                                    const one_memory &m, const one_sums *sums)
{
    if (e.row < 0)
        return;
    const float y = value_of(a.down, e, 0, m.scale[1], sums);
    if (a.sent != NULL && m.answer < a.pairs.slots)
        packet_send(a.sent + (int64_t)m.answer * a.down.out + e.row, y, m.number);
    tsr_cuda_row(a.pairs.into, a.y, m.answer, a.down.out)[e.row] = y;
}

/* As many orders as there are places for. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ one_orders order_first(const one_args &a, const packet_expert &e,
                                                         const one_part &up, uint32_t base)
{
    const one_orders o = orders_of<FORMAT>(a, e, up, base);

    order_up<FORMAT, 0>(o);
    copies_end();
    order_up<FORMAT, 1>(o);
    copies_end();
    order_up<FORMAT, 2>(o);
    copies_end();
    if (one_places(FORMAT) > 3) {
        order_up<FORMAT, 3>(o);
        copies_end();
    }
    if (FORMAT == TSR_WEIGHT_NVFP4)
        order_down_scales(a, e, base);
    return o;
}

/* A warp's sums of gate and up. Returns what becomes of a thread's. */
template <tsr_weight_format FORMAT, known_rows ROWS>
static __device__ __forceinline__ one_ends widen(const one_args &a, unsigned char *memory,
                                                 int32_t expert, one_kept *kept, one_memory *m)
{
    const uint32_t base = async_address(memory);
    const packet_expert &e =
        ((const packet_expert *)(const void *)(memory + a.room.experts))[expert];
    const one_part up = part_of(a.up);
    one_sums *sums = (one_sums *)(void *)(memory + a.room.sums) + threadIdx.x / TSR_CUDA_LANES;
    float sum[2][1][4] = {};

    const one_orders o = order_first<FORMAT>(a, e, up, base);
    make_row<0, ROWS>(a.up, e, kept, memory + a.room.row, m);
    const one_ends ends = ends_of<0, 2>(a.up, e);
    __syncthreads();
    multiply_up<FORMAT>(a, o, base, operand_at(a.up, up, memory + a.room.row), sum);
    keep_sums(sum[0][0], (*sums)[0]);
    keep_sums(sum[1][0], (*sums)[1]);
    return ends;
}

template <tsr_weight_format FORMAT, known_rows ROWS>
static __global__ void __launch_bounds__(ONE_THREADS, ONE_CTAS)
    one_kernel(const __grid_constant__ one_args a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(128) unsigned char memory[];
    __shared__ one_memory m;
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    one_sums *sums = (one_sums *)(void *)(memory + a.room.sums);
    int32_t *local_of = (int32_t *)(void *)(memory + a.room.local_of);
    packet_expert *experts = (packet_expert *)(void *)(memory + a.room.experts);
    float of_down[1][4] = {};
    int32_t expert = -1;
    one_ends ends;
    one_kept kept;

    packet_tables(a.pairs, a.mlps, experts, local_of);
    if (threadIdx.x < 2)
        m.peak[threadIdx.x] = 0;
    __syncthreads();
    /* With what is told, then, if that was not right, with what is there. */
    if (a.told != NULL && find_told(a, local_of, &m, &kept))
        expert = m.told;
#pragma unroll 1
    for (bool knows = false;; knows = true) {
        if (expert >= 0) {
            ends = widen<FORMAT, ROWS>(a, memory, expert, &kept, &m);
        } else {
            tsr_await_kernel();
            keep_row(a, &kept);
        }
        if (!knows && warp == ONE_WARPS - 1) /* which most often has no gate and up */
            find_asked(a, local_of, expert, &m, faults);
        __syncthreads();
        if (knows || m.right || m.expert < 0)
            break;
        copies_wait<0>(); /* they go where others will go */
        if (expert >= 0)
            keep_row(a, &kept);
        expert = m.expert;
    }
    if (m.expert < 0) {
        copies_wait<0>();
        return;
    }
    leave_wide(a, ends, m, sums);
    tsr_admit_kernel();
    const packet_expert &e = experts[expert];
    const one_part down = part_of(a.down);
    ends = ends_of<2, 1>(a.down, e);
    fetch_wide(a, m.number, &kept, faults);
    make_row<1, ROWS>(a.down, e, &kept, memory + a.room.wide, &m);
    copies_wait<0>();
    __syncthreads();
    multiply_down<FORMAT>(a, down, async_address(memory),
                          operand_at(a.down, down, memory + a.room.wide), of_down);
    keep_sums(of_down[0], sums[warp][0]);
    __syncthreads();
    leave_answer(a, ends, m, sums);
}

typedef void (*one_kernel_of)(const one_args a, tsr_cuda_faults faults);

static one_kernel_of kernel_for(tsr_weight_format format, known_rows rows)
{
    if (format == TSR_WEIGHT_NVFP4)
        return rows == PLAIN_ROWS ? one_kernel<TSR_WEIGHT_NVFP4, PLAIN_ROWS>
                                  : one_kernel<TSR_WEIGHT_NVFP4, ANY_ROWS>;
    return rows == PLAIN_ROWS ? one_kernel<TSR_WEIGHT_FP8, PLAIN_ROWS>
           : rows == FP8_ROWS ? one_kernel<TSR_WEIGHT_FP8, FP8_ROWS>
                              : one_kernel<TSR_WEIGHT_FP8, ANY_ROWS>;
}

static known_rows rows_of(const one_args *a)
{
    return a->up.kind.activation == a->down.kind.activation ? known_rows_of(a->up.kind.activation)
                                                            : ANY_ROWS;
}

/* Bytes that a CTA can have beside what every CTA of the kernel has. */
static size_t most_room(const tsr_gemm_card *card)
{
    return card->shared - tsr_aligned(sizeof(one_memory), 1024);
}

tsr_status tsr_cuda_prepare_one(const tsr_gemm_card *card)
{
    const size_t most = most_room(card);
    tsr_status st = TSR_OK;

    for (int rows = ANY_ROWS; rows <= FP8_ROWS && st == TSR_OK; rows++) {
        st = packet_prepare((const void *)kernel_for(TSR_WEIGHT_NVFP4, (known_rows)rows), most);
        if (st == TSR_OK)
            st = packet_prepare((const void *)kernel_for(TSR_WEIGHT_FP8, (known_rows)rows), most);
    }
    return st;
}

static one_product product_of(const tsr_cuda_tiles *t, int32_t ctas)
{
    one_product p = {};

    p.cut = product_cut_of(t->format, t->in);
    p.kind.format = t->format;
    p.kind.activation = t->activation;
    p.out = t->out;
    p.in = t->in;
    p.tiles = (int32_t)tsr_cuda_ceil(tsr_cuda_ceil(t->out, TSR_CUDA_TILE), ctas);
    p.of_slices = (1 << 16) / p.cut.slices + 1;
    return p;
}

static one_room room_of(const one_args &a, int32_t warps)
{
    const tsr_weight_format format =
        a.up.kind.format == TSR_WEIGHT_NVFP4 ? TSR_WEIGHT_NVFP4 : TSR_WEIGHT_FP8;
    const size_t down_scales = (size_t)a.down.tiles * a.down.cut.tile_units * PACKED_SCALES;
    one_room r = {};

    r.ring_bytes = one_places(format) * one_place(format) * PACKED_UNIT;
    (void)packet_room(&r.end, (size_t)warps * r.ring_bytes);
    r.scales = packet_room(&r.end, (size_t)warps * one_scales_bytes(format));
    r.down_scales = packet_room(&r.end, format == TSR_WEIGHT_NVFP4 ? down_scales : 0);
    r.row = packet_room(&r.end, (size_t)a.up.cut.padded * sizeof(uint16_t));
    r.wide = packet_room(&r.end, (size_t)a.down.cut.padded * sizeof(uint16_t));
    r.sums = packet_room(&r.end, ONE_WARPS * sizeof(one_sums));
    r.experts = packet_room(&r.end, (size_t)a.pairs.local * sizeof(packet_expert));
    r.local_of = packet_room(&r.end, (size_t)a.pairs.experts * sizeof(int32_t));
    return r;
}

/* False: it cannot be done in so many CTAs a slot. */
static bool cut_one(const tsr_cuda_device *cuda, const tsr_cuda_tiles *up,
                    const tsr_cuda_tiles *down, int32_t ctas, one_args *ret_args)
{
    const bool nvfp4 = up->format == TSR_WEIGHT_NVFP4;
    const int32_t each = one_down_units(nvfp4 ? TSR_WEIGHT_NVFP4 : TSR_WEIGHT_FP8);
    one_args a = {};

    a.pairs = down->pairs;
    a.mlps = up->mlps;
    a.x = up->x;
    a.y = down->y;
    a.wide = cuda->work.packets;
    a.number = cuda->work.launch;
    a.late = nvfp4 ? 1 : 2;
    a.up = product_of(up, ctas);
    a.down = product_of(down, ctas);
    const int32_t warps = a.up.tiles * a.up.cut.slices;
    a.room = room_of(a, warps);
    *ret_args = a;
    return warps <= ONE_WARPS && a.down.tiles * a.down.cut.slices <= ONE_WARPS &&
           a.down.tiles * a.down.cut.tile_units <= warps * each &&
           (size_t)a.room.end <= most_room(&cuda->gemm);
}

/* As many CTAs a slot as run at once and have room for what they hold; of these no more than are needed
 * so that none has more tiles. 0: it cannot be done. */
static int32_t find_cut(const tsr_cuda_device *cuda, const tsr_cuda_tiles *up,
                        const tsr_cuda_tiles *down, one_args *ret_args)
{
    const int32_t most = cuda->gemm.processors / up->pairs.slots;

    for (int32_t ctas = most; ctas > 0; ctas--) {
        const int32_t tiles = (int32_t)tsr_cuda_ceil(up->out, TSR_CUDA_TILE);
        const int32_t least = (int32_t)tsr_cuda_ceil(tiles, tsr_cuda_ceil(tiles, ctas));
        if (cut_one(cuda, up, down, least, ret_args))
            return least;
        if (cut_one(cuda, up, down, ctas, ret_args))
            return ctas;
    }
    return 0;
}

static bool is_taken(const tsr_cuda_tiles *t)
{
    return packet_takes(t) && t->in <= ONE_KEPT * ONE_THREADS * 4;
}

bool tsr_cuda_takes_one(const tsr_cuda_device *cuda, const tsr_cuda_tiles *up,
                        const tsr_cuda_tiles *down)
{
    one_args unused;

    return cuda->alone && up->pairs.max_rows == 1 && up->pairs.slots <= TSR_CUDA_LANES &&
           up->pairs.slots <= up->pairs.max_answers && up->shares && up->format == down->format &&
           is_taken(up) && is_taken(down) && find_cut(cuda, up, down, &unused) > 0;
}

tsr_status tsr_cuda_multiply_one(tsr_cuda_device *cuda, const tsr_cuda_tiles *up,
                                 const tsr_cuda_tiles *down, cudaStream_t stream)
{
    one_args a = {};
    const int32_t ctas = find_cut(cuda, up, down, &a);
    tsr_cuda_launch_shape at = {};

    at.grid = dim3((unsigned)ctas, (unsigned)up->pairs.slots);
    at.threads = ONE_THREADS;
    at.shared = (size_t)a.room.end;
    at.stream = stream;
    a.told = up->chosen ? cuda->work.told : NULL;
    a.sent = up->chosen ? cuda->work.sent : NULL;
    cuda->sends = up->chosen;
    return tsr_cuda_launch(at, kernel_for(up->format, rows_of(&a)), a, cuda->faults);
}
