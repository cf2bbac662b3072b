/*
 * What decode and prefill share: the job, the checks of what stands in device memory, and the steps
 * of the order that attend_cuda.h lays down, for the fragments of one warp:
 *
 *   queries   16 rows (heads, or heads of positions) on M
 *   keys      8 positions on N, dims on K
 *   values    8 dims on N, positions on K
 *
 *   lane 4 g + t holds of 16 x 8 sums: row g, columns 2 t, 2 t + 1; row g + 8, the same columns
 *
 * Tiles lie in shared memory in BF16, a position a row, 64 dims after 64 dims:
 *
 *   | row 0, dims 0 .. 63 | row 1, dims 0 .. 63 | .. | row 0, dims 64 .. 127 | ..     128 bytes each
 *
 * 16-byte pieces of these are swapped by the row's last three bits, so that eight rows are read
 * without conflicts.
 */
#ifndef TSR_KERNELS_CUDA_ATTEND_CUDA_CUH
#define TSR_KERNELS_CUDA_ATTEND_CUDA_CUH

#include "kernels/cuda/head_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"

enum {
    TSR_TILE = 64,                                 /* positions */
    TSR_SPLIT_TILES = TSR_ATTEND_SPLIT / TSR_TILE, /* tiles of a split */
    TSR_QUERY_ROWS = TSR_ATTEND_ROWS,              /* of one warp's fragments */
    TSR_PIECE = 16,                                /* bytes that are copied at once */
    TSR_LINE = 128,                                /* bytes of a row that lie together */
    TSR_STEP = 16,                                 /* dims or positions of one mma */
    TSR_BLOCK_SHIFT = 40,
};

/* One launch. Rows are f32. */
typedef struct tsr_attend_job {
    float *out;
    uint16_t *rows; /* or NULL */
    const float *q;
    const float *k;
    const float *v;
    tsr_kv_layer cache;
    const tsr_attention_sequence *sequence;
    const int32_t *blocks;
    const int32_t *position;
    tsr_turn q_turn; /* cos and sin of position 0 */
    tsr_turn k_turn;
    float *partial;   /* [slots, a split's floats] */
    int32_t *arrived; /* [sequence, kv head, tile of heads] zero between launches */
    int32_t sequences;
    int32_t tokens;
    int32_t q_heads;
    int32_t max_context;
    uint64_t blocks_per_position; /* 2^40 / block_tokens, rounded up */
    uint32_t block_pieces;        /* of one block of keys or values */
    uint32_t row_pieces;          /* of one position of a kv head */
    int32_t chunks;               /* most of one row, in decode */
    int32_t slots;                /* of one row and kv head, in decode */
    int32_t ring;                 /* slots of it, in decode */
    float score_scale;            /* of q k^T, in units of log2 */
    float value_scale;
} tsr_attend_job;

/* The kernels of one job; decode where every sequence has one row. */
tsr_status tsr_attend_rows_decode(tsr_device *device, const tsr_attend_job *job, tsr_stream s);
tsr_status tsr_attend_rows_prefill(tsr_device *device, const tsr_attend_job *job, tsr_stream s);

/* The same from a cache of F32, exactly: keys are turned already. */
tsr_status tsr_attend_rows_exact(tsr_device *device, const tsr_attend_job *job, tsr_stream s);

/* ---- launches ---- */

typedef struct tsr_launch {
    dim3 grid;
    dim3 threads;
    size_t shared_bytes;
} tsr_launch;

/* Launches a kernel that may begin before the one in front has ended; it waits for that itself. */
template <typename... args>
static tsr_status tsr_launch_behind(tsr_device *device, const tsr_launch &l, tsr_stream s,
                                    void (*kernel)(args...), args... arguments)
{
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};

    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = l.grid;
    config.blockDim = l.threads;
    config.dynamicSmemBytes = l.shared_bytes;
    config.stream = tsr_cuda_stream(device, s);
    config.attrs = &attribute;
    config.numAttrs = 1;
    tsr_status st = TSR_CUDA(cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)l.shared_bytes));
    if (st == TSR_OK)
        st = TSR_CUDA(cudaLaunchKernelEx(&config, kernel, arguments...));
    return st;
}

static inline tsr_status tsr_card_fact(tsr_device *device, cudaDeviceAttr fact, int32_t *ret_count)
{
    int count = 0;
    const tsr_status st = TSR_CUDA(cudaDeviceGetAttribute(&count, fact, tsr_cuda(device)->ordinal));

    if (st == TSR_OK)
        *ret_count = count;
    return st;
}

static inline bool tsr_is_hopper(tsr_device *device)
{
    int major = 0;

    return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor,
                                  tsr_cuda(device)->ordinal) == cudaSuccess &&
           major == 9;
}

/* What the kernel in front wrote may be read from here on. */
static __device__ __forceinline__ void tsr_wait_for_kernel_in_front(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The next kernel may take the places that are left. */
static __device__ __forceinline__ void tsr_let_next_kernel_begin(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* ---- faults ---- */

static __device__ __forceinline__ int32_t tsr_clamped(int64_t count)
{
    if (count < INT32_MIN)
        return INT32_MIN;
    return count > INT32_MAX ? INT32_MAX : (int32_t)count;
}

static __device__ __forceinline__ bool tsr_sequence_fits(const tsr_attend_job &a,
                                                         const tsr_attention_sequence &seq)
{
    return seq.rows >= 0 && seq.first_row >= 0 && seq.first_row <= a.tokens - seq.rows &&
           seq.first_position >= 0 && (int64_t)seq.first_position + seq.rows <= a.max_context &&
           seq.first_block >= 0;
}

/* The block of the table that holds a position: a division that is a product, exact for positions
 * below 2^23, as the product is. */
static __device__ __forceinline__ int32_t tsr_block_at(const tsr_attend_job &a, int32_t position)
{
    return (int32_t)((uint64_t)position * a.blocks_per_position >> TSR_BLOCK_SHIFT);
}

/* The first block between those of two positions (the last one's included) that is none, for a
 * whole warp; INT32_MAX: all are blocks. */
static __device__ __forceinline__ int32_t tsr_bad_block(const tsr_attend_job &a,
                                                        const tsr_attention_sequence &seq,
                                                        int32_t first, int32_t last)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t end = tsr_block_at(a, last);
    int32_t bad = INT32_MAX;

#pragma unroll 4
    for (int32_t b = tsr_block_at(a, first) + lane; b <= end; b += TSR_CUDA_LANES) {
        const int32_t block = a.blocks[seq.first_block + b];
        if (block < 0 || block >= a.cache.blocks)
            bad = min(bad, b);
    }
    return __reduce_min_sync(TSR_ALL_LANES, bad);
}

/* What is wrong with a sequence, or a fault of no kind, for a whole warp. */
static __device__ __noinline__ tsr_fault tsr_sequence_fault(const tsr_attend_job &a, int32_t s)
{
    const tsr_attention_sequence seq = a.sequence[s];
    const int64_t end = (int64_t)seq.first_position + seq.rows;
    tsr_fault fault = {TSR_FAULT_NONE, s, 0, 0, 0};

    if (!tsr_sequence_fits(a, seq)) {
        fault.kind = TSR_FAULT_SEQUENCE;
        fault.slot = tsr_clamped((int64_t)seq.first_row + seq.rows);
        fault.value = tsr_clamped(end);
        fault.limit = a.max_context;
        return fault;
    }
    if (seq.rows == 0)
        return fault;
    const int32_t bad = tsr_bad_block(a, seq, 0, (int32_t)end - 1);
    if (bad != INT32_MAX) {
        fault.kind = TSR_FAULT_BLOCK;
        fault.value = a.blocks[seq.first_block + bad];
        fault.limit = a.cache.blocks;
    }
    return fault;
}

/*
 * Leaves the fault of sequence s unless an earlier one has any, for a whole warp. So the lowest is
 * told, whichever CTA comes first. Kernels that call it may see it come while they run: they look
 * at `claimed` once for a whole CTA.
 */
static __device__ __noinline__ void tsr_leave_lowest(const tsr_attend_job &a, int32_t s,
                                                     tsr_cuda_faults faults)
{
    for (int32_t before = 0; before < s; before++) {
        if (tsr_sequence_fault(a, before).kind != TSR_FAULT_NONE)
            return;
    }
    const tsr_fault fault = tsr_sequence_fault(a, s);
    if (threadIdx.x % TSR_CUDA_LANES == 0 && fault.kind != TSR_FAULT_NONE)
        tsr_leave_fault(faults, fault);
}

/* ---- the cache ---- */

/* The element where a position of a kv head begins. */
static __device__ __forceinline__ int64_t tsr_cache_at(const tsr_attend_job &a,
                                                       const int32_t *table, int32_t position,
                                                       int32_t head)
{
    const int32_t at = tsr_block_at(a, position);
    const int32_t slot = position - at * a.cache.block_tokens;

    return (((int64_t)table[at] * a.cache.kv_heads + head) * a.cache.block_tokens + slot) *
           a.cache.head_dim;
}

static __device__ __forceinline__ uint32_t tsr_shared_at(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Copies a piece while others work, or zeros. */
static __device__ __forceinline__ void tsr_copy_piece(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? TSR_PIECE : 0)
                 : "memory");
}

static __device__ __forceinline__ void tsr_copies_end(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int PENDING> static __device__ __forceinline__ void tsr_copies_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* Bytes of an element, of a row and of a tile as the cache holds them. */
template <int DIM, bool FP8> struct tsr_stored {
    static constexpr int element = FP8 ? 1 : 2;
    static constexpr int row = DIM * element;
    static constexpr int tile = TSR_TILE * row;
    static constexpr int pieces = row / TSR_PIECE;
};

/* Where a piece of a row of BF16 lies in a matrix of ROWS rows. */
template <int ROWS> static __device__ __forceinline__ uint32_t tsr_piece_at(int row, int piece)
{
    return (uint32_t)((piece / 8 * ROWS + row) * TSR_LINE + (piece % 8 ^ row % 8) * TSR_PIECE);
}

/* The same in tiles as they are stored, one behind the other; FP8 lies as it comes. */
template <int DIM, bool FP8>
static __device__ __forceinline__ uint32_t tsr_stored_at(int row, int piece)
{
    return FP8 ? (uint32_t)(row * DIM + piece * TSR_PIECE)
               : (uint32_t)(row / TSR_TILE * tsr_stored<DIM, FP8>::tile) +
                     tsr_piece_at<TSR_TILE>(row % TSR_TILE, piece);
}

/*
 * How the THREADS of a CTA copy COUNT positions: a warp takes whole rows, a piece a lane, and each lane knows
 * where one of the warp's rows lies. The block table is read ahead.
 *
 *   copy i of a warp   rows base + 0 .. ROWS - 1, base = ROWS warp + i apart
 *   lane j knows       the row of copy j / ROWS, j % ROWS
 */
template <int DIM, bool FP8, int COUNT, int THREADS> struct tsr_copying {
    typedef tsr_stored<DIM, FP8> stored;
    static constexpr int rows = TSR_CUDA_LANES / stored::pieces;
    static constexpr int apart = THREADS / stored::pieces;
    static constexpr int copies = COUNT / apart;
};

/* A sequence's keys and values of one kv head. */
typedef struct tsr_tile_source {
    const int32_t *table;
    int32_t end;    /* positions from here on are zeros */
    uint32_t head;  /* pieces before the kv head in a block */
    uint32_t block; /* of this lane's row of the next rows */
    uint32_t at;    /* pieces before this lane's row of these; TSR_NOWHERE: zeros */
} tsr_tile_source;

#define TSR_NOWHERE 0xffffffffU

template <int DIM, bool FP8, int COUNT, int THREADS>
static __device__ __forceinline__ int32_t tsr_lane_row(void)
{
    typedef tsr_copying<DIM, FP8, COUNT, THREADS> copying;
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    const int lane = (int)threadIdx.x % TSR_CUDA_LANES;

    return copying::rows * warp + lane % copying::rows + lane / copying::rows * copying::apart;
}

/* Reads the block table for the rows from position `first` on. */
template <int DIM, bool FP8, int COUNT, int THREADS>
static __device__ __forceinline__ void tsr_look_up(const tsr_attend_job &a, tsr_tile_source *s,
                                                   int32_t first)
{
    const int32_t position = first + tsr_lane_row<DIM, FP8, COUNT, THREADS>();

    if (position < s->end)
        s->block = (uint32_t)s->table[tsr_block_at(a, position)];
}

/* Turns what was read for the rows from `first` on into where they lie. */
template <int DIM, bool FP8, int COUNT, int THREADS>
static __device__ __forceinline__ void tsr_find_rows(const tsr_attend_job &a, tsr_tile_source *s,
                                                     int32_t first)
{
    const int32_t position = first + tsr_lane_row<DIM, FP8, COUNT, THREADS>();
    const int32_t slot = position - tsr_block_at(a, position) * a.cache.block_tokens;

    s->at = s->block * a.block_pieces + s->head + (uint32_t)slot * a.row_pieces;
    if (position >= s->end)
        s->at = TSR_NOWHERE;
}

/* Pieces are counted in 32 bits: keys or values of a layer are less than 64 GiB. */
template <int DIM, bool FP8, int COUNT, int THREADS>
static __device__ __forceinline__ void
tsr_fetch_rows(const tsr_attend_job &a, const tsr_tile_source &s, const void *memory, uint32_t to)
{
    typedef tsr_copying<DIM, FP8, COUNT, THREADS> copying;
    typedef tsr_stored<DIM, FP8> stored;
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    const int lane = (int)threadIdx.x % TSR_CUDA_LANES;
    const int piece = lane % stored::pieces;
    const int row = copying::rows * warp + lane / stored::pieces;
    const unsigned char *from = (const unsigned char *)memory + piece * TSR_PIECE;
    const bool used = (uint32_t)piece < a.row_pieces;

#pragma unroll
    for (int i = 0; i < copying::copies; i++) {
        const uint32_t at =
            __shfl_sync(TSR_ALL_LANES, s.at, i * copying::rows + lane / stored::pieces);
        const bool there = used && at != TSR_NOWHERE;
        tsr_copy_piece(to + tsr_stored_at<DIM, FP8>(row + i * copying::apart, piece),
                       there ? from + (uint64_t)at * TSR_PIECE : from, there);
    }
}

/* Codes to BF16, which is exact. By all THREADS of the CTA. */
template <int DIM, int COUNT, int THREADS>
static __device__ __forceinline__ void tsr_widen_rows(const unsigned char *from, unsigned char *to)
{
    constexpr int pieces = DIM / TSR_PIECE;

#pragma unroll
    for (int i = 0; i < COUNT * pieces / THREADS; i++) {
        const int at = (int)threadIdx.x + i * THREADS;
        const int row = at / pieces;
        const int piece = at % pieces;
        const uint4 codes = *(const uint4 *)(from + at * TSR_PIECE);
        const uint32_t word[4] = {codes.x, codes.y, codes.z, codes.w};
        uint32_t wide[8];
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const float2 v = tsr_from_e4m3_pair(word[n / 2] >> 16 * (n % 2));
            wide[n] = tsr_to_bf16_pair(v.x, v.y);
        }
        *(uint4 *)(to + tsr_stored_at<DIM, false>(row, 2 * piece)) =
            make_uint4(wide[0], wide[1], wide[2], wide[3]);
        *(uint4 *)(to + tsr_stored_at<DIM, false>(row, 2 * piece + 1)) =
            make_uint4(wide[4], wide[5], wide[6], wide[7]);
    }
}

/* Four dims of a key or value as the cache stores them. */
static __device__ __forceinline__ uint2 tsr_bf16_span(float4 x)
{
    return make_uint2(tsr_to_bf16_pair(x.x, x.y), tsr_to_bf16_pair(x.z, x.w));
}

static __device__ __forceinline__ uint32_t tsr_e4m3_span(float4 x, float scale)
{
    return (uint32_t)tsr_to_e4m3(x.x / scale) | (uint32_t)tsr_to_e4m3(x.y / scale) << 8 |
           (uint32_t)tsr_to_e4m3(x.z / scale) << 16 | (uint32_t)tsr_to_e4m3(x.w / scale) << 24;
}

/* ---- tensor cores ---- */

static __device__ __forceinline__ void tsr_load_matrices(uint32_t to[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

static __device__ __forceinline__ void tsr_load_turned_matrices(uint32_t to[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

/* sum += a b */
static __device__ __forceinline__ void tsr_mma(float sum[4], const uint32_t a[4], uint32_t b0,
                                               uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Rows first .. first + 15 of a matrix of ROWS, columns of step `step`: the A operand. */
template <int ROWS>
static __device__ __forceinline__ void tsr_load_rows(uint32_t to[4], uint32_t matrix, int first,
                                                     int step)
{
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);

    tsr_load_matrices(to, matrix + tsr_piece_at<ROWS>(first + lane % 16, 2 * step + lane / 16));
}

/* Keys `first` .. first + 15 of a tile, dims of step `step`: two B operands. */
static __device__ __forceinline__ void tsr_load_keys(uint32_t to[4], uint32_t tile, int first,
                                                     int step)
{
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);

    tsr_load_matrices(to, tile + tsr_piece_at<TSR_TILE>(first + lane / 16 * 8 + lane % 8,
                                                        2 * step + lane / 8 % 2));
}

/* Values of positions 16 step .. of a tile, dims 8 piece .. 8 piece + 15: two B operands. */
static __device__ __forceinline__ void tsr_load_values(uint32_t to[4], uint32_t tile, int step,
                                                       int piece)
{
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);

    tsr_load_turned_matrices(
        to, tile + tsr_piece_at<TSR_TILE>(TSR_STEP * step + lane % 16, piece + lane / 16));
}

/* Values of positions 32 steps .. of a tile, 8 dims: the B operands of two steps. */
static __device__ __forceinline__ void tsr_load_values_of_two(uint32_t to[4], uint32_t tile,
                                                              int steps, int piece)
{
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);

    tsr_load_turned_matrices(to, tile + tsr_piece_at<TSR_TILE>(2 * TSR_STEP * steps + lane, piece));
}

/* ---- the order of sums ---- */

/* A lane's rows, g and g + 8, of PIECES pieces of 8 dims. */
template <int PIECES> struct tsr_sums {
    float value[PIECES][4];
    float weight[4]; /* every column is the sum of weights */
    float most[2];   /* largest score, in units of log2 */
};

static __device__ __forceinline__ float tsr_exp2(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

template <int PIECES> static __device__ __forceinline__ void tsr_sums_clear(tsr_sums<PIECES> *s)
{
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++)
            s->value[i][n] = 0.0F;
    }
#pragma unroll
    for (int n = 0; n < 4; n++)
        s->weight[n] = 0.0F;
    s->most[0] = s->most[1] = -INFINITY;
}

/* What a tile's largest raw scores do to a split. */
typedef struct tsr_rise {
    float most[2];   /* the split's from now on */
    float base[2];   /* what weights are relative to: most, or 0 where nothing is seen yet */
    float shrink[2]; /* what was added up before is worth */
} tsr_rise;

static __device__ __forceinline__ tsr_rise tsr_rise_of(const float most[2], const float peak[2],
                                                       float scale)
{
    tsr_rise rise;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        rise.most[r] = fmaxf(most[r], peak[r] * scale);
        rise.base[r] = rise.most[r] == -INFINITY ? 0.0F : rise.most[r];
        rise.shrink[r] = tsr_exp2(most[r] - rise.base[r]);
    }
    return rise;
}

template <int PIECES>
static __device__ __forceinline__ void tsr_sums_rise(tsr_sums<PIECES> *s, const tsr_rise &rise)
{
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++)
            s->value[i][n] *= rise.shrink[n / 2];
    }
#pragma unroll
    for (int n = 0; n < 4; n++)
        s->weight[n] *= rise.shrink[n / 2];
    s->most[0] = rise.most[0];
    s->most[1] = rise.most[1];
}

static __device__ __forceinline__ float tsr_weight_of(float score, float scale, float base)
{
    return tsr_exp2(fmaf(score, scale, -base));
}

/* Adds a split's sums to those of the splits before it. A row that saw nothing changes nothing. */
template <int PIECES>
static __device__ __forceinline__ void tsr_sums_add(tsr_sums<PIECES> *to,
                                                    const tsr_sums<PIECES> &split)
{
    float keep[2];
    float take[2];

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float most = fmaxf(to->most[r], split.most[r]);
        const float base = most == -INFINITY ? 0.0F : most;
        keep[r] = tsr_exp2(to->most[r] - base);
        take[r] = tsr_exp2(split.most[r] - base);
        to->most[r] = most;
    }
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++)
            to->value[i][n] =
                fmaf(split.value[i][n], take[n / 2], __fmul_rn(to->value[i][n], keep[n / 2]));
    }
#pragma unroll
    for (int n = 0; n < 4; n++)
        to->weight[n] = fmaf(split.weight[n], take[n / 2], __fmul_rn(to->weight[n], keep[n / 2]));
}

/* ---- results ---- */

/* Columns of a row of BF16 operands. */
static __device__ __forceinline__ int64_t tsr_operand_width(const tsr_attend_job &a)
{
    return (a.q_heads * a.cache.head_dim + 63) / 64 * 64;
}

/* Two neighbouring dims of a head of a row. */
static __device__ __forceinline__ void
tsr_put_pair(const tsr_attend_job &a, int32_t row, int32_t head, int32_t dim, float low, float high)
{
    const int32_t at = head * a.cache.head_dim + dim;

    if (dim >= a.cache.head_dim)
        return;
    *(float2 *)(a.out + (int64_t)row * a.q_heads * a.cache.head_dim + at) = make_float2(low, high);
    if (a.rows != NULL)
        *(uint32_t *)(a.rows + row * tsr_operand_width(a) + at) = tsr_to_bf16_pair(low, high);
}

/* The zeros behind the last head of a row of operands, by a warp. */
static __device__ __forceinline__ void tsr_put_zeros(const tsr_attend_job &a, int32_t row)
{
    const int32_t used = a.q_heads * a.cache.head_dim;
    const int32_t at = used + 2 * (int32_t)(threadIdx.x % TSR_CUDA_LANES);

    if (a.rows != NULL && at < tsr_operand_width(a))
        *(uint32_t *)(a.rows + row * tsr_operand_width(a) + at) = 0;
}

#endif
