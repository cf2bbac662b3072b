/*
 * Few rows as packets: what has come is known by the epoch in it, so that nothing is announced,
 * fenced or waited for but the bytes themselves.
 *
 *   | row | slots | 0 | epoch |   | word | word | word | epoch |   | word | word | word | epoch |
 *     which ask the target          the row
 *
 * Where a source's rows lie at the target is told by the notices of all, so that every packet can be
 * taken when it comes.
 *
 * Two areas by turns are enough: nobody sends for the second dispatch after this one before all have
 * sent for the next, which each does when it has read this one.
 */
#ifndef TSR_COMM_EXCHANGE_NCCL_PACKETS_CUH
#define TSR_COMM_EXCHANGE_NCCL_PACKETS_CUH

#include "comm/exchange_nccl_device.cuh"

enum { TSR_NCCL_WORDS = 3, TSR_NCCL_PACKET_BYTES = 16 };

/* Leaves a packet's place without an epoch, which may come round again. */
static __device__ __forceinline__ void take_away(unsigned char *at)
{
    ((uint32_t *)at)[TSR_NCCL_WORDS] = 0;
}

/* Takes a packet. False when there is no point in waiting. */
static __device__ __forceinline__ bool await_packet(const tsr_nccl_work &w, unsigned char *at,
                                                    uint32_t epoch, tsr_nccl_vector *ret_packet)
{
    for (unsigned turns = 1;; turns++) {
        *ret_packet = look_at_vector(at);
        if (ret_packet->w == epoch) {
            take_away(at);
            return true;
        }
        if (turns % TSR_NCCL_PATIENCE == 0 && is_off(w))
            return false;
    }
}

static __device__ __forceinline__ uint64_t row_packets_at(const tsr_nccl_work &w, uint32_t epoch,
                                                          int32_t source)
{
    const uint64_t area = epoch % 2 * (uint64_t)w.ranks + (uint64_t)source;
    return w.at.row_packets +
           area * (uint64_t)w.at.few_rows * (uint64_t)w.at.packets_of_row * TSR_NCCL_PACKET_BYTES;
}

/* One packet after the other of things that have equally many, a step apart, without dividing. */
typedef struct packet_walk {
    int32_t thing;
    int32_t packet;
    int32_t things; /* of a step */
    int32_t packets;
} packet_walk;

static __device__ __forceinline__ packet_walk walk_from(int32_t first, int32_t step, int32_t each)
{
    packet_walk walk;
    walk.thing = (int32_t)((uint32_t)first / (uint32_t)each);
    walk.packet = first - walk.thing * each;
    walk.things = (int32_t)((uint32_t)step / (uint32_t)each);
    walk.packets = step - walk.things * each;
    return walk;
}

static __device__ __forceinline__ void walk_on(packet_walk *walk, int32_t each)
{
    const int32_t packet = walk->packet + walk->packets;
    const bool over = packet >= each;
    walk->packet = over ? packet - each : packet;
    walk->thing += walk->things + (over ? 1 : 0);
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

/* The rows that go to a target as packets, by token. */
typedef struct few_rows {
    int32_t place[TSR_NCCL_MOST_FEW];  /* among those that go */
    uint32_t slots[TSR_NCCL_MOST_FEW]; /* which of its slots name the target; 0: it does not go */
    int32_t count;                     /* of those that go */
    bool off;                          /* nothing is to move any more */
    bool wrong;                        /* a slot names a rank that is none */
} few_rows;

/* The words of a token that its source's thread sends; none where it sends an origin. */
static __device__ __forceinline__ three_words read_token(const tsr_nccl_work &w,
                                                         const packet_walk &n, int32_t tokens)
{
    const int32_t word = (n.packet - 1) * TSR_NCCL_WORDS;
    const uint64_t row = (uint64_t)n.thing * w.row_bytes;
    three_words none = {};

    return n.thing < tokens && word >= 0
               ? read_words((const uint32_t *)(w.block + w.at.send_rows + row),
                            (int32_t)(w.row_bytes / sizeof(int32_t)), word)
               : none;
}

/* A target's packets of all tokens, by all its CTAs; `words` are those that `n` begins with. */
static __device__ __forceinline__ void post_rows(const tsr_nccl_work &w, uint32_t epoch,
                                                 const few_rows &few, packet_walk n,
                                                 three_words words, int32_t tokens)
{
    unsigned char *to = w.peer[blockIdx.y] + row_packets_at(w, epoch, w.rank);

#pragma unroll 1
    while (n.thing < tokens) {
        const int64_t place = few.place[n.thing] * w.at.packets_of_row + n.packet;
        if (n.packet == 0)
            words = {{(uint32_t)n.thing, few.slots[n.thing], 0}};
        if (few.slots[n.thing] != 0)
            post_vector(to + place * TSR_NCCL_PACKET_BYTES, packet_of(words, epoch));
        walk_on(&n, w.at.packets_of_row);
        words = read_token(w, n, tokens);
    }
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

/* What this rank needs to take what comes from a source. */
typedef struct source_place {
    int32_t source;
    int32_t told;
    int32_t first_row; /* where its rows arrive */
} source_place;

/* Where the answers to a source's row go that arrives at `at`: to those of its `slots`. */
static __device__ __forceinline__ void place_answers(const tsr_nccl_work &w, int32_t source,
                                                     int32_t row, uint32_t slots, int32_t at)
{
    int32_t *answer_of = (int32_t *)(w.window + w.at.answer_of) + (int64_t)at * w.slots;
    const int32_t first = source << TSR_NCCL_PART_BITS | row * w.slots;

#pragma unroll 4
    for (int32_t k = 0; k < w.slots; k++)
        answer_of[k] = (slots >> k & 1U) != 0 ? first + k : -1;
}

/* A packet that may have been seen already. */
typedef struct seen_packet {
    tsr_nccl_vector packet;
    bool come;
} seen_packet;

/* A source's first packet of this thread, looked at until it has come or `told` is true. */
static __device__ __forceinline__ seen_packet look_ahead(const tsr_nccl_work &w, uint32_t epoch,
                                                         const packet_walk &n,
                                                         const volatile bool *told)
{
    const int64_t place = (int64_t)n.thing * w.at.packets_of_row + n.packet;
    const unsigned char *at =
        w.window + row_packets_at(w, epoch, (int32_t)blockIdx.y) + place * TSR_NCCL_PACKET_BYTES;
    seen_packet seen = {};

    do {
        if (!seen.come && n.thing < w.at.few_rows) {
            seen.packet = look_at_vector(at);
            seen.come = seen.packet.w == epoch;
        }
    } while (!*told);
    return seen;
}

/*
 * A source's packets to where they belong, by all its CTAs. What has not come when there is no point
 * in waiting is nobody's.
 */
static __device__ __forceinline__ void take_rows(const tsr_nccl_work &w, uint32_t epoch,
                                                 const source_place &from, packet_walk n,
                                                 seen_packet seen)
{
    const int32_t words = (int32_t)(w.row_bytes / sizeof(int32_t));
    const int32_t rows = rows_told(from.told);
    unsigned char *packets = w.window + row_packets_at(w, epoch, from.source);

#pragma unroll 1
    for (; n.thing < rows; walk_on(&n, w.at.packets_of_row), seen.come = false) {
        const int64_t place = (int64_t)n.thing * w.at.packets_of_row + n.packet;
        unsigned char *at = packets + place * TSR_NCCL_PACKET_BYTES;
        const int32_t row = from.first_row + n.thing;
        if (seen.come)
            take_away(at);
        else if (!await_packet(w, at, epoch, &seen.packet))
            seen.packet = make_uint4(0, 0, 0, 0);
        if (n.packet == 0)
            place_answers(w, from.source, (int32_t)seen.packet.x, seen.packet.y, row);
        else
            take_words((uint32_t *)(w.window + w.at.arrived_rows + (uint64_t)row * w.row_bytes),
                       words, (n.packet - 1) * TSR_NCCL_WORDS, seen.packet);
    }
}

#endif
