/*
 * Parts of the kernel that has gate, up and down of few pairs at once (tiles_flow_cuda.cu): what its warps
 * order, make and multiply, one segment of the CTA's share (flow_share_cuda.cuh) after the other.
 */
#ifndef TSR_KERNELS_CUDA_EXPERTS_FLOW_CUDA_CUH
#define TSR_KERNELS_CUDA_EXPERTS_FLOW_CUDA_CUH

#include "kernels/cuda/experts/flow_share_cuda.cuh"

/* ---- orders ---- */

typedef struct flow_warp {
    flow_memory *m;
    const packet_expert *experts;
    flow_place place;
    uint32_t ring;
    uint32_t ordered; /* blocks that go together */
    uint32_t read;
    /* What is ordered next; addresses are the lane's. */
    flow_item next;
    const unsigned char *codes[STREAM_SIDES];
    const unsigned char *scales;
    int32_t left; /* blocks of the item */
} flow_warp;

/* To the next item that is the warp's. False: there is none. */
static __device__ __forceinline__ bool flow_advance(const flow_args &a, const flow_warp *w,
                                                    flow_item *i)
{
    if (i->segment >= 0 && i->segment < w->m->segments) {
        const flow_segment &s = w->m->segment[i->segment];
        i->item += a.product[s.down].teams;
        if (i->item < s.count)
            return true;
    }
    for (i->segment++; i->segment < w->m->segments; i->segment++) {
        const flow_segment &s = w->m->segment[i->segment];
        i->item = flow_first(a, w->place, s);
        if (i->item < s.count)
            return true;
    }
    return false;
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void flow_aim(const flow_args &a, flow_warp *w)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const flow_segment &s = w->m->segment[w->next.segment];
    const flow_product &p = a.product[s.down];
    const packet_expert &e = w->experts[w->m->tile[s.tile].expert];
    const int32_t item = s.first + w->next.item;
    const int32_t first = flow_slice_of(w->place, s.down) * p.slice_blocks;

#pragma unroll
    for (int side = 0; side < STREAM_SIDES; side++) {
        const int32_t linear = s.down != 0 ? 2 : side;
        const int32_t tile = s.down != 0 ? min(STREAM_SIDES * item + side, p.tiles - 1) : item;
        const int64_t block = (int64_t)tile * p.blocks + first;
        w->codes[side] = e.codes[linear] + block * stream_codes(FORMAT) + lane * 16;
        if (FORMAT == TSR_WEIGHT_NVFP4 && lane / 8 == side)
            w->scales = e.scales[linear] + block * stream_scales(FORMAT) + lane % 8 * 16;
    }
    w->left = min(p.slice_blocks, p.blocks - first);
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void flow_order(const flow_args &a, flow_warp *w)
{
    const uint32_t lane = threadIdx.x % TSR_CUDA_LANES;
    const uint32_t to =
        w->ring + lane * 16 + w->ordered % stream_depth(FORMAT) * stream_place(FORMAT);
    const int32_t codes = stream_together(FORMAT) * stream_codes(FORMAT); /* of a side */

    if (w->left <= 0) {
        if (!flow_advance(a, w, &w->next))
            return;
        flow_aim<FORMAT>(a, w);
    }
#pragma unroll
    for (int side = 0; side < STREAM_SIDES; side++) {
#pragma unroll
        for (int at = 0; at < codes; at += PACKED_UNIT) {
            if (at < stream_codes(FORMAT) || w->left > 1)
                copy_16(to + side * codes + at, w->codes[side] + at);
        }
        w->codes[side] += codes;
    }
    if (FORMAT == TSR_WEIGHT_NVFP4) {
        if (lane < 16 && (lane % 8 < 4 || w->left > 1))
            copy_16(to + STREAM_SIDES * codes, w->scales);
        w->scales += stream_together(FORMAT) * stream_scales(FORMAT);
    }
    w->left -= stream_together(FORMAT);
    w->ordered++;
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void flow_fill(const flow_args &a, flow_warp *w)
{
#pragma unroll 1
    for (int i = 0; i < FLOW_AHEAD; i++) {
        flow_order<FORMAT>(a, w);
        copies_end();
    }
}

/* Until the next block is there; another is ordered into the place of the one before it. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ uint32_t flow_take(const flow_args &a, flow_warp *w)
{
    const uint32_t at = w->ring + w->read % stream_depth(FORMAT) * stream_place(FORMAT);

    copies_wait<FLOW_AHEAD - 1>();
    __syncwarp();
    flow_order<FORMAT>(a, w);
    copies_end();
    w->read++;
    return at;
}

/* ---- operand rows ---- */

/* A row that a warp makes, of which a lane has some. */
typedef struct flow_row {
    float4 four[FLOW_FOURS];
    int32_t slot; /* -1: the warp has none */
    bool there;   /* its values were in time */
} flow_row;

/* Of x; what they are multiplied with and become may come later. */
static __device__ __forceinline__ void flow_fetch_x(const flow_args &a, flow_row *r)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t row = r->slot * a.of_slots >> 16;
    const float4 *x = (const float4 *)(const void *)(a.x + row * a.x_stride);

#pragma unroll
    for (int i = 0; i < FLOW_FOURS; i++) {
        const int32_t c = i * TSR_CUDA_LANES + lane;
        r->four[i] = 4 * c < a.product[0].in ? __ldcg(x + c) : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
}

/* Of what gate and up became, once all is there: some of it is looked at until then. */
static __device__ __forceinline__ void flow_fetch_packets(const flow_args &a, uint32_t number,
                                                          flow_row *r)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t fours = a.product[1].in / 4;
    const uint64_t *from = a.wide + (int64_t)r->slot * a.product[1].in;
    const uint64_t late = packet_clock() + PACKET_SECONDS * 1000000000ULL;
    const int32_t sample = lane * fours / TSR_CUDA_LANES;
    float4 unused;
    bool there;

    while (!__all_sync(TSR_ALL_LANES, packet_four(from + 4 * sample, number, &unused)) &&
           packet_clock() < late)
        continue;
    do {
        there = true;
#pragma unroll
        for (int i = 0; i < FLOW_PACKED_FOURS; i++) {
            const int32_t c = i * TSR_CUDA_LANES + lane;
            r->four[i] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
            if (c < fours)
                there = packet_four(from + 4 * c, number, &r->four[i]) && there;
        }
    } while (!there && packet_clock() < late);
#pragma unroll
    for (int i = FLOW_PACKED_FOURS; i < FLOW_FOURS; i++)
        r->four[i] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    r->there = there;
}

/* This warp's row of a segment, if it has one. */
static __device__ __forceinline__ void flow_fetch(const flow_args &a, const flow_memory *m,
                                                  int32_t segment, flow_row *r)
{
    const int32_t mine = (int32_t)(threadIdx.x / TSR_CUDA_LANES) - FLOW_WARPS;

    r->slot = -1;
    r->there = true;
    if (segment >= m->segments)
        return;
    const flow_segment &s = m->segment[segment];
    const flow_tile &tile = m->tile[s.tile];
    if (mine >= tile.count)
        return;
    r->slot = tile.slot[mine];
    if (s.down != 0)
        flow_fetch_packets(a, m->number, r);
    else
        flow_fetch_x(a, r);
}

/* What the row is divided by. */
static __device__ __forceinline__ float flow_scale(const flow_product &p, const packet_expert &e,
                                                   int32_t down, flow_row *r)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    float most = 0.0F;
    tsr_linear l = {};

#pragma unroll
    for (int i = 0; i < FLOW_FOURS; i++) {
        const int32_t c = i * TSR_CUDA_LANES + lane;
        if (e.factor[down] != NULL && 4 * c < p.in) {
            const float4 f = __ldg(e.factor[down] + c);
            float4 *v = &r->four[i];
            *v = make_float4(v->x * f.x, v->y * f.y, v->z * f.z, v->w * f.w);
        }
        most = stage_most(most, r->four[i]);
    }
    l.format = p.kind.format;
    l.activation = p.kind.activation;
    l.input_scale = e.input_scale[down];
    return stage_scale(l, tsr_warp_max(most));
}

/* Into shared memory, as stage_cuda.cuh makes rows. */
static __device__ __forceinline__ void flow_store(const flow_product &p, const flow_row *r,
                                                  float scale, uint2 *to)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const float factor = scale != 0.0F ? 1.0F / scale : 0.0F;
    const bool is_plain = p.kind.activation == TSR_ACTIVATION_NONE || scale == 0.0F;

#pragma unroll
    for (int i = 0; i < FLOW_FOURS; i++) {
        const int32_t c = i * TSR_CUDA_LANES + lane;
        const float4 v = r->four[i];
        if (4 * c >= p.cut.padded)
            continue;
        to[c] = is_plain
                    ? stage_f16(make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor))
                    : tsr_e4m3_four_once(v, scale);
    }
}

static __device__ __forceinline__ void flow_is_late(const flow_args &a, int32_t slot,
                                                    tsr_cuda_faults faults)
{
    const int32_t row = slot * a.of_slots >> 16;
    const tsr_fault fault = {TSR_FAULT_WIDE, row, slot - row * a.pairs.slots, 0, PACKET_SECONDS};

    tsr_leave_fault(faults, fault);
}

/* A warp that makes rows: its one of every segment's tile, as buffers become free. The first has been
 * fetched: what others order meanwhile would be in front of it. */
static __device__ __forceinline__ void flow_make_rows(const flow_args &a, flow_memory *m,
                                                      flow_row *r, unsigned char *memory,
                                                      tsr_cuda_faults faults)
{
    const int32_t mine = (int32_t)(threadIdx.x / TSR_CUDA_LANES) - FLOW_WARPS;
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const packet_expert *experts = (const packet_expert *)(const void *)(memory + a.room.experts);

#pragma unroll 1
    for (int32_t i = 0; i < m->segments; i++) {
        const flow_segment s = m->segment[i];
        const int32_t buffer = i % FLOW_BUFFERS;
        const flow_product &p = a.product[s.down];
        float scale = 1.0F;
        if (r->slot >= 0)
            scale = flow_scale(p, experts[m->tile[s.tile].expert], s.down, r);
        barrier_wait(async_address(&m->empty[buffer]), (uint32_t)(i / FLOW_BUFFERS + 1) % 2);
        if (r->slot >= 0) {
            unsigned char *to =
                memory + a.room.rows + (buffer * FLOW_TOGETHER + mine) * a.room.row_bytes;
            flow_store(p, r, scale, (uint2 *)(void *)to);
            if (lane == 0)
                m->scale[buffer][mine] = scale != 0.0F ? scale : 1.0F;
            if (!r->there)
                flow_is_late(a, r->slot, faults);
        }
        __syncwarp();
        if (lane == 0)
            barrier_arrive(async_address(&m->full[buffer]));
        flow_fetch(a, m, i + 1, r);
    }
}

/* ---- products ---- */

/* A warp's slice of an item out of its ring. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void flow_slice(const flow_args &a, flow_warp *w, int32_t blocks,
                                                  uint32_t operand, float sum[STREAM_SIDES][1][4])
{
    const int together = stream_together(FORMAT);

#pragma unroll
    for (int i = 0; i < STREAM_SIDES * 4; i++)
        sum[i / 4][0][i % 4] = 0.0F;
#pragma unroll 1
    for (int32_t i = 0; i < blocks; i += together) {
        uint32_t codes = flow_take<FORMAT>(a, w);
        uint32_t scales = codes + STREAM_SIDES * together * stream_codes(FORMAT);
        const int32_t end = min(blocks - i, together);
#pragma unroll 1
        for (int32_t k = 0; k < end; k++) {
            stream_block<FORMAT, 1>(codes, scales, operand, sum);
            codes += stream_codes(FORMAT);
            scales += stream_scales(FORMAT);
            operand += STREAM_BLOCK * 2;
        }
    }
}

static __device__ __forceinline__ void flow_team_meets(const flow_args &a, const flow_place &p,
                                                       int32_t down)
{
    const int32_t slices = a.product[down].cut.slices;

    if (slices == 1) {
        __syncwarp();
        return;
    }
    const int32_t first = down != 0 && a.product[0].cut.slices > 1 ? a.product[0].teams + 1 : 1;
    asm volatile("barrier.sync %0, %1;" ::"r"(first + flow_team(p, down)),
                 "r"(slices * TSR_CUDA_LANES)
                 : "memory");
}

/* What sums with a row of both sides become values by. */
typedef struct flow_ends {
    float scale[STREAM_SIDES];
    float bias[STREAM_SIDES];
    int32_t row; /* of side 0 */
    bool there[STREAM_SIDES];
} flow_ends;

static __device__ __forceinline__ flow_ends flow_ends_of(const flow_product &p,
                                                         const packet_expert &e, int32_t down,
                                                         int32_t item, int32_t row)
{
    flow_ends ends;

    ends.row = item * TSR_CUDA_TILE * (down != 0 ? STREAM_SIDES : 1) + row;
#pragma unroll
    for (int side = 0; side < STREAM_SIDES; side++) {
        const int32_t linear = down != 0 ? 2 : side;
        const int32_t of_side = ends.row + (down != 0 ? side * TSR_CUDA_TILE : 0);
        const bool there = of_side < p.out;
        const float by = there && p.kind.format == TSR_WEIGHT_FP8_CHANNEL
                             ? ((const float *)(const void *)e.scales[linear])[of_side]
                             : packed_left(p.kind.format);
        ends.there[side] = there;
        ends.scale[side] = by * e.weight_scale[linear];
        ends.bias[side] = there && e.bias[linear] != NULL ? e.bias[linear][of_side] : -0.0F;
    }
    return ends;
}

/* From both sides' sums with a slot's row to where its values go. Nothing changes by adding -0. */
static __device__ __forceinline__ void flow_leave(const flow_args &a, const flow_memory *m,
                                                  const flow_ends &e, int32_t down, int32_t slot,
                                                  float scale, float sum0, float sum1)
{
    sum0 = __fadd_rn(__fmul_rn(sum0, __fmul_rn(scale, e.scale[0])), e.bias[0]);
    sum1 = __fadd_rn(__fmul_rn(sum1, __fmul_rn(scale, e.scale[1])), e.bias[1]);
    if (down == 0) {
        if (e.there[0])
            packet_send(a.wide + (int64_t)slot * a.product[0].out + e.row,
                        __fmul_rn(tsr_silu(sum0), sum1), m->number);
        return;
    }
    float *y = tsr_cuda_row(a.pairs.into, a.y, m->answer[slot], a.product[1].out) + e.row;
    if (e.there[0])
        y[0] = sum0;
    if (e.there[1])
        y[TSR_CUDA_TILE] = sum1;
}

/* Sums of a team's warps, a slice each, in order. */
static __device__ __forceinline__ void
flow_finish(const flow_args &a, const flow_warp *w, const flow_segment &s, int32_t buffer,
            int32_t item, const float own[STREAM_SIDES][1][4], flow_sums *sums)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const flow_product &p = a.product[s.down];
    const flow_tile &tile = w->m->tile[s.tile];
    const int32_t slice = flow_slice_of(w->place, s.down);
    const int32_t mine = slice * TSR_CUDA_LANES + lane;
    const int32_t row = mine % TSR_CUDA_TILE;
    const flow_ends e = flow_ends_of(p, w->experts[tile.expert], s.down, item, row);

    flow_team_meets(a, w->place, s.down); /* nobody looks at the item before any more */
    if (lane % 4 * 2 < FLOW_TOGETHER) {
#pragma unroll
        for (int i = 0; i < STREAM_SIDES * 4; i++)
            sums[slice * STREAM_SIDES + i / 4][2 * (lane % 4) + i % 2][lane / 4 + i / 2 % 2 * 8] =
                own[i / 4][0][i % 4];
    }
    flow_team_meets(a, w->place, s.down);
    for (int32_t i = mine; i < tile.count * TSR_CUDA_TILE; i += p.cut.slices * TSR_CUDA_LANES) {
        const int32_t token = i / TSR_CUDA_TILE;
        float sum0 = sums[0][token][row];
        float sum1 = sums[1][token][row];
        for (int32_t k = 1; k < p.cut.slices; k++) {
            sum0 += sums[k * STREAM_SIDES][token][row];
            sum1 += sums[k * STREAM_SIDES + 1][token][row];
        }
        flow_leave(a, w->m, e, s.down, tile.slot[token], w->m->scale[buffer][token], sum0, sum1);
    }
}

/* The warp's items of a segment whose operand rows stand in `buffer`. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void flow_segment_items(const flow_args &a, flow_warp *w,
                                                          const flow_segment &s, int32_t buffer,
                                                          unsigned char *memory)
{
    const flow_product &p = a.product[s.down];
    const int32_t slice = flow_slice_of(w->place, s.down);
    const int32_t blocks = min(p.slice_blocks, p.blocks - slice * p.slice_blocks);
    flow_sums *sums = (flow_sums *)(void *)(memory + a.room.sums) +
                      (s.down * FLOW_WARPS + flow_team(w->place, s.down) * p.cut.slices) *
                          STREAM_SIDES; /* of down apart: its teams are others */
    product_operand o = {};

    o.rows = (const uint16_t *)(const void *)(memory + a.room.rows +
                                              buffer * FLOW_TOGETHER * a.room.row_bytes);
    o.count = w->m->tile[s.tile].count;
    o.pitch = a.room.row_bytes / (int32_t)sizeof(uint16_t);
    const uint32_t operand = product_rows_at(o) + (uint32_t)(slice * p.cut.columns) * 2;
#pragma unroll 1
    for (int32_t i = flow_first(a, w->place, s); i < s.count; i += p.teams) {
        float sum[STREAM_SIDES][1][4];
        flow_slice<FORMAT>(a, w, blocks, operand, sum);
        flow_finish(a, w, s, buffer, s.first + i, sum, sums);
    }
}

/* A warp that multiplies: its items of all segments. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void flow_multiply(const flow_args &a, flow_warp *w,
                                                     unsigned char *memory)
{
    flow_fill<FORMAT>(a, w);
#pragma unroll 1
    for (int32_t i = 0; i < w->m->segments; i++) {
        const flow_segment s = w->m->segment[i];
        const int32_t buffer = i % FLOW_BUFFERS;
        barrier_wait(async_address(&w->m->full[buffer]), (uint32_t)(i / FLOW_BUFFERS) % 2);
        flow_segment_items<FORMAT>(a, w, s, buffer, memory);
        __syncwarp();
        if (threadIdx.x % TSR_CUDA_LANES == 0)
            barrier_arrive(async_address(&w->m->empty[buffer]));
    }
}

#endif
