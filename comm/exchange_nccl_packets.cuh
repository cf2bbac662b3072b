/*
 * Few rows as packets: what has come is known by the epoch in it, so that nothing is announced,
 * fenced or waited for but the bytes themselves.
 *
 *   | slots | step | stage | epoch |   | word | word | word | epoch |   | word | word | word | epoch |
 *     which ask the target               the row
 *
 * Every rank sends as many rows as the one that has most, and all of them to everybody: a packet's
 * place at the target, and that of what is in it, need no count.
 *
 *   arrived_rows   | most rows of rank 0 | most rows of rank 1 | ...    rows that are none ask nobody
 *
 * Two areas by turns are enough: nobody sends for the second dispatch after this one before all have
 * sent for the next, which each does when it has read this one.
 */
#ifndef TSR_COMM_EXCHANGE_NCCL_PACKETS_CUH
#define TSR_COMM_EXCHANGE_NCCL_PACKETS_CUH

#include "comm/exchange_nccl_device.cuh"

enum { TSR_NCCL_WORDS = 3, TSR_NCCL_PACKET_BYTES = 16, TSR_NCCL_SLOTS_AT_ONCE = 8 };

/* Takes a packet, and leaves its place without an epoch, which may come round again. False when
 * there is no point in waiting. */
static __device__ __forceinline__ bool await_packet(const tsr_nccl_work &w, unsigned char *at,
                                                    uint32_t epoch, tsr_nccl_vector *ret_packet)
{
    for (unsigned turns = 1;; turns++) {
        *ret_packet = look_at_vector(at);
        if (ret_packet->w == epoch) {
            ((uint32_t *)at)[TSR_NCCL_WORDS] = 0;
            return true;
        }
        if (turns % TSR_NCCL_PATIENCE == 0 && is_off(w))
            return false;
    }
}

/* Bytes of a source's packets. */
static __device__ __forceinline__ uint64_t packets_bytes(const tsr_nccl_work &w)
{
    return (uint64_t)w.at.few_rows * (uint64_t)w.at.packets_of_row * TSR_NCCL_PACKET_BYTES;
}

/* Where those of even epochs lie in a window, and how far behind those of odd ones. */
static __device__ __forceinline__ uint64_t packets_at(const tsr_nccl_work &w, int32_t source)
{
    return w.at.row_packets + (uint64_t)source * packets_bytes(w);
}

static __device__ __forceinline__ uint64_t packets_apart(const tsr_nccl_work &w)
{
    return (uint64_t)w.ranks * packets_bytes(w);
}

/* This thread's number among those of the CTAs of one peer, and how many there are. */
static __device__ __forceinline__ int32_t thread_of_peer(void)
{
    return (int32_t)(blockIdx.x * TSR_NCCL_THREADS + threadIdx.x);
}

static __device__ __forceinline__ int32_t threads_of_peer(void)
{
    return (int32_t)(gridDim.x * TSR_NCCL_THREADS);
}

/* A packet's words of a row, read before it is known whether they go anywhere. */
typedef struct three_words {
    uint32_t at[TSR_NCCL_WORDS];
} three_words;

static __device__ __forceinline__ three_words read_words(const uint32_t *row, int32_t words,
                                                         int32_t word)
{
    three_words w;

#pragma unroll
    for (int32_t k = 0; k < TSR_NCCL_WORDS; k++)
        w.at[k] = word + k < words ? row[word + k] : 0;
    return w;
}

static __device__ __forceinline__ tsr_nccl_vector packet_of(const three_words &w, uint32_t epoch)
{
    return make_uint4(w.at[0], w.at[1], w.at[2], epoch);
}

static __device__ __forceinline__ void take_words(uint32_t *to, int32_t words, int32_t word,
                                                  const tsr_nccl_vector &p)
{
    to[word] = p.x;
    if (word + 1 < words)
        to[word + 1] = p.y;
    if (word + 2 < words)
        to[word + 2] = p.z;
}

/* One packet after the other of this thread, a step apart, without dividing. */
typedef struct packet_walk {
    int32_t row;
    int32_t packet; /* of the row; 0: which slots */
    int32_t rows;   /* of a step */
    int32_t packets;
} packet_walk;

static __device__ __forceinline__ packet_walk walk_of_peer(const tsr_nccl_work &w)
{
    const int32_t each = w.at.packets_of_row;
    const int32_t first = thread_of_peer();
    const int32_t step = threads_of_peer();
    packet_walk walk;
    walk.row = (int32_t)((uint32_t)first / (uint32_t)each);
    walk.packet = first - walk.row * each;
    walk.rows = (int32_t)((uint32_t)step / (uint32_t)each);
    walk.packets = step - walk.rows * each;
    return walk;
}

static __device__ __forceinline__ void walk_on(packet_walk *walk, int32_t each)
{
    const int32_t packet = walk->packet + walk->packets;
    const bool over = packet >= each;
    walk->packet = over ? packet - each : packet;
    walk->row += walk->rows + (over ? 1 : 0);
}

/* Where a packet lies among those of its source. */
static __device__ __forceinline__ int64_t place_of(const tsr_nccl_work &w, const packet_walk &at)
{
    return ((int64_t)at.row * w.at.packets_of_row + at.packet) * TSR_NCCL_PACKET_BYTES;
}

/* Which slots of a row name the target; whether one names a rank that is none. */
static __device__ __forceinline__ uint32_t slots_of(const tsr_nccl_work &w, int32_t row,
                                                    int32_t target, bool *wrong)
{
    const int32_t *ranks = ints(w, w.at.send_ranks) + (int64_t)row * w.slots;
    uint32_t slots = 0;

#pragma unroll 1
    for (int32_t first = 0; first < w.slots; first += TSR_NCCL_SLOTS_AT_ONCE) {
        int32_t rank[TSR_NCCL_SLOTS_AT_ONCE];
#pragma unroll
        for (int i = 0; i < TSR_NCCL_SLOTS_AT_ONCE; i++)
            rank[i] = first + i < w.slots ? ranks[first + i] : -1;
#pragma unroll
        for (int i = 0; i < TSR_NCCL_SLOTS_AT_ONCE; i++) {
            slots |= rank[i] == target ? 1U << (first + i) : 0;
            *wrong |= rank[i] < -1 || rank[i] >= w.ranks;
        }
    }
    return slots;
}

/* What a packet says; of a row behind the tokens nothing. */
static __device__ __forceinline__ three_words read_packet(const tsr_nccl_work &w, int32_t target,
                                                          const packet_walk &at, int32_t tokens,
                                                          bool *wrong)
{
    const int32_t word = (at.packet - 1) * TSR_NCCL_WORDS;
    const unsigned char *row = w.block + w.at.send_rows + (uint64_t)at.row * w.row_bytes;
    three_words none = {};

    if (at.row >= tokens)
        return none;
    if (at.packet == 0)
        return {{slots_of(w, at.row, target, wrong), 0, 0}};
    return read_words((const uint32_t *)row, (int32_t)(w.row_bytes / sizeof(int32_t)), word);
}

/* Where the answers to a source's row go that arrives at `at`: to those of its `slots`. */
static __device__ __forceinline__ void place_answers(const tsr_nccl_work &w, int32_t at,
                                                     int32_t first, uint32_t slots)
{
    int32_t *answer_of = (int32_t *)(w.window + w.at.answer_of) + (int64_t)at * w.slots;

#pragma unroll 4
    for (int32_t k = 0; k < w.slots; k++)
        answer_of[k] = (slots >> k & 1U) != 0 ? first + k : -1;
}

#endif
