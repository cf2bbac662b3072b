/*
 * What the kernels that take rows of any number share: who takes which rows, how queries come in, and
 * the steps of a warp with 16 query rows and a tile of 64 positions. CTAs are of eight warps.
 *
 *   query rows   | p: head 0 1 2 .. | p + 1: head 0 1 2 .. | ..     of one sequence and kv head
 *   spans        |      span 0      |      span 1      | ..         those with the longest way first
 */
#ifndef TSR_KERNELS_CUDA_ATTENTION_ATTEND_SPAN_CUDA_CUH
#define TSR_KERNELS_CUDA_ATTENTION_ATTEND_SPAN_CUDA_CUH

#include "kernels/cuda/attention/attend_sums_cuda.cuh"

enum {
    WARPS = 8, /* that attend */
    THREADS = WARPS * TSR_CUDA_LANES,
    MOST_WARPS = 12, /* of a CTA */
};

/* A CTA's query rows. */
typedef struct span {
    const int32_t *table;
    int32_t first_row; /* of the sequence in the step */
    int32_t first_position;
    int32_t kv_head;
    int32_t shared;    /* query heads of the kv head */
    int32_t first;     /* query row of the sequence */
    int32_t end;       /* of its query rows */
    int32_t tiles;     /* of positions */
    int32_t positions; /* of the sequence, from the first on */
} span;

/* What a CTA needs in shared memory to find its span. */
typedef struct span_search {
    int32_t sequence;
    int32_t span; /* of the sequence */
    int32_t sum[MOST_WARPS];
} span_search;

/* Spans of the n-th sequence from the last. */
static __device__ __forceinline__ int32_t spans_of(const tsr_attend_job &a, int32_t n, int32_t rows)
{
    return n < a.sequences ? (a.sequence[a.sequences - 1 - n].rows * a.shared + rows - 1) / rows
                           : 0;
}

/* Sum over the CTA of what the threads up to this one have; *ret_all of all threads. */
template <int COUNT>
static __device__ int32_t sum_up_to(int32_t x, int32_t sum[MOST_WARPS], int32_t *ret_all)
{
    const int32_t lane = (int32_t)threadIdx.x % TSR_CUDA_LANES;
    const int32_t warp = (int32_t)threadIdx.x / TSR_CUDA_LANES;
    int32_t before = 0;
    int32_t all = 0;

#pragma unroll
    for (int apart = 1; apart < TSR_CUDA_LANES; apart *= 2) {
        const int32_t other = __shfl_up_sync(TSR_ALL_LANES, x, (unsigned)apart);
        x += lane >= apart ? other : 0;
    }
    __syncthreads();
    if (lane == TSR_CUDA_LANES - 1)
        sum[warp] = x;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < COUNT / TSR_CUDA_LANES; w++) {
        before += w < warp ? sum[w] : 0;
        all += sum[w];
    }
    *ret_all = all;
    return before + x;
}

/* The span of a CTA of COUNT threads, counted from the last one of all sequences; false: there is
 * none. */
template <int COUNT>
static __device__ bool find_span(const tsr_attend_job &a, int32_t index, int32_t rows,
                                 span_search *search, span *ret_span)
{
    int32_t before = 0;

    for (int32_t n = 0; before <= index; n += COUNT) {
        if (n >= a.sequences)
            return false;
        const int32_t mine = spans_of(a, n + (int32_t)threadIdx.x, rows);
        int32_t here;
        const int32_t end = before + sum_up_to<COUNT>(mine, search->sum, &here);
        if (index < end && index >= end - mine) {
            search->sequence = a.sequences - 1 - n - (int32_t)threadIdx.x;
            search->span = end - 1 - index;
        }
        before += here;
    }
    __syncthreads();
    const tsr_attention_sequence seq = a.sequence[search->sequence];
    ret_span->table = a.blocks + seq.first_block;
    ret_span->first_row = seq.first_row;
    ret_span->first_position = seq.first_position;
    ret_span->first = search->span * rows;
    ret_span->end = seq.rows * ret_span->shared;
    ret_span->positions = seq.first_position + seq.rows;
    const int32_t last = min(ret_span->first + rows, ret_span->end) - 1;
    ret_span->tiles = (seq.first_position + last / ret_span->shared) / TSR_TILE + 1;
    return true;
}

/* One of a span's query rows. */
typedef struct query_row {
    int32_t n; /* of the sequence */
    int32_t row;
    int32_t head;
} query_row;

/* The last stands for those behind it. */
static __device__ __forceinline__ query_row query_of(const span &c, int32_t n)
{
    query_row q;

    q.n = min(c.first + n, c.end - 1);
    q.row = q.n / c.shared;
    q.head = q.n % c.shared;
    return q;
}

static __device__ __forceinline__ void step_on(const span &c, query_row *q)
{
    if (q->n + 1 >= c.end)
        return;
    q->n++;
    q->head++;
    if (q->head < c.shared)
        return;
    q->head = 0;
    q->row++;
}

static __device__ __forceinline__ const float *query_at(const tsr_attend_job &a, const span &c,
                                                        const query_row &q)
{
    const int64_t at = (int64_t)(c.first_row + q.row) * a.q_heads + c.kv_head * c.shared + q.head;

    return a.q + at * a.cache.head_dim;
}

/* Puts the n-th of a span's query rows down, in matrices of ROWS rows. */
template <int DIM, int ROWS, int SPANS>
static __device__ __forceinline__ void put_query(const tsr_head<SPANS> &head, int n,
                                                 unsigned char *query)
{
    unsigned char *matrix = query + n / ROWS * (ROWS * DIM * 2);

#pragma unroll
    for (int i = 0; i < SPANS; i++) {
        const int d = TSR_TURN_SPAN * ((int)threadIdx.x % TSR_CUDA_LANES) + TSR_TURN_DIMS * i;
        if (d < DIM)
            *(uint2 *)(matrix + tsr_piece_at<ROWS>(n % ROWS, d / 8) + d % 8 * 2) =
                tsr_bf16_span(head.span[i]);
    }
}

/* Turns the query rows of the span from `first` on, COUNT of them. Many heads come before the first
 * of them is turned, where none needs the room. */
template <int DIM, int ROWS, int COUNT>
static __device__ __forceinline__ void bring_queries(const tsr_attend_job &a, const span &c,
                                                     int first, float *room, unsigned char *query)
{
    enum { SPANS = (DIM + TSR_TURN_DIMS - 1) / TSR_TURN_DIMS, AT_ONCE = COUNT / SPANS };
    tsr_head<SPANS> head[AT_ONCE];
    int32_t position[AT_ONCE];
    query_row q = query_of(c, first);
    int n = first;

#pragma unroll 1
    for (; tsr_turns_in_lanes(a.q_turn) && n < first + COUNT; n += AT_ONCE) {
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            head[i] = tsr_load_head<SPANS>(query_at(a, c, q), a.cache.head_dim);
            position[i] = c.first_position + q.row;
            step_on(c, &q);
        }
        if (a.q_turn.norm != NULL) {
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                tsr_norm_head(a.q_turn, &head[i]);
        }
        if (a.q_turn.half > 0) {
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                tsr_turn_spans(tsr_turn_at(a.q_turn, position[i]), &head[i].span[0]);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            put_query<DIM, ROWS>(head[i], n + i, query);
    }
#pragma unroll 1
    for (; n < first + COUNT; n++) {
        head[0] = tsr_load_head<SPANS>(query_at(a, c, q), a.cache.head_dim);
        tsr_turn_head(tsr_turn_at(a.q_turn, c.first_position + q.row), &head[0], room);
        put_query<DIM, ROWS>(head[0], n, query);
        step_on(c, &q);
    }
}

/* Positions that a row does not see count for nothing; `sees` is the last that it does. */
static __device__ __forceinline__ void mask(float s[TSR_TILE / 8][4], int32_t first,
                                            const int32_t sees[2])
{
    const int32_t column = first + 2 * (int32_t)(threadIdx.x % 4);

#pragma unroll
    for (int i = 0; i < TSR_TILE / 8; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++) {
            if (column + 8 * i + n % 2 > sees[n / 2])
                s[i][n] = -INFINITY;
        }
    }
}

static __device__ __forceinline__ void find_peak(const float s[TSR_TILE / 8][4], float ret_peak[2])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float most = fmaxf(s[0][2 * r], s[0][2 * r + 1]);
#pragma unroll
        for (int i = 1; i < TSR_TILE / 8; i++)
            most = fmaxf(most, fmaxf(s[i][2 * r], s[i][2 * r + 1]));
        most = fmaxf(most, __shfl_xor_sync(TSR_ALL_LANES, most, 1));
        ret_peak[r] = fmaxf(most, __shfl_xor_sync(TSR_ALL_LANES, most, 2));
    }
}

/* Scores to the A operand of the values. */
static __device__ __forceinline__ void weigh(const float s[TSR_TILE / 8][4], float scale,
                                             const float base[2],
                                             uint32_t ret_weight[TSR_TILE / TSR_STEP][4])
{
#pragma unroll
    for (int i = 0; i < TSR_TILE / 8; i++) {
#pragma unroll
        for (int r = 0; r < 2; r++)
            ret_weight[i / 2][i % 2 * 2 + r] =
                tsr_to_bf16_pair(tsr_weight_of(s[i][2 * r], scale, base[r]),
                                 tsr_weight_of(s[i][2 * r + 1], scale, base[r]));
    }
}

template <int PIECES>
static __device__ __forceinline__ void finish(const tsr_attend_job &a, const span &c,
                                              const int32_t query[2], int32_t first_dim,
                                              const tsr_sums<PIECES> &sums)
{
    const int32_t column = 2 * (int32_t)(threadIdx.x % 4);

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float share = a.value_scale / sums.weight[2 * r];
        if (query[r] >= c.end)
            continue;
        const tsr_result to =
            tsr_result_at(a, c.first_row + query[r] / c.shared,
                          c.kv_head * c.shared + query[r] % c.shared, first_dim + column);
#pragma unroll
        for (int i = 0; i < PIECES; i++)
            tsr_put_pair(to, 8 * i, sums.value[i][2 * r] * share, sums.value[i][2 * r + 1] * share);
    }
}

#endif
