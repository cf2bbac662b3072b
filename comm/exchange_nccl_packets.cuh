/*
 * Few rows as packets: what has come is known by the epoch in it, so that nothing is announced,
 * fenced or waited for but the bytes themselves.
 *
 *   | slot | slot | slot | epoch |  ...  | word | word | word | epoch |  | word | word | word | epoch |
 *     origin: row and number of each       the row
 *
 * A source numbers what it wants of a target from 0; the target adds what the ranks before want of it
 * (notices tell), so that every packet can be taken when it comes.
 *
 * Two areas by turns are enough for rows: nobody sends for the second dispatch after this one before
 * all have sent for the next, which each does when it has read this one. One area is enough for
 * answers: who answers the next dispatch has been sent its rows, by a rank that has read these.
 */
#ifndef TSR_COMM_EXCHANGE_NCCL_PACKETS_CUH
#define TSR_COMM_EXCHANGE_NCCL_PACKETS_CUH

#include "comm/exchange_nccl_device.cuh"

enum { TSR_NCCL_WORDS = 3, TSR_NCCL_PACKET_BYTES = 16 };

/* A slot's word: its row, and 1 more than its number among what is wanted, or 0. */
enum {
    TSR_NCCL_NUMBER_BITS = TSR_NCCL_ANSWER_BITS + 1,
    TSR_NCCL_NUMBER = (1 << TSR_NCCL_NUMBER_BITS) - 1
};
static_assert((int64_t)TSR_NCCL_MOST_FEW << TSR_NCCL_NUMBER_BITS <= INT32_MAX, "fit a word");
static_assert(TSR_NCCL_MOST_FEW << TSR_NCCL_ANSWER_BITS <= TSR_NCCL_ROWS, "fit a notice");
static_assert(TSR_NCCL_MOST_FEW * TSR_NCCL_MOST_FEW_SLOTS <= TSR_NCCL_ANSWERS, "fit a notice");

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
    int32_t answer[TSR_NCCL_MOST_FEW]; /* the number of the first that it wants */
    uint32_t slots[TSR_NCCL_MOST_FEW]; /* which of its slots name the target; 0: it does not go */
    int32_t told;                      /* as in a notice, without forms */
    bool off;                          /* nothing is to move any more */
    bool wrong;                        /* a slot names a rank that is none */
} few_rows;

/* The words of a token that its source's thread sends; none where it sends an origin. */
static __device__ __forceinline__ three_words read_token(const tsr_nccl_work &w,
                                                         const packet_walk &n, int32_t tokens)
{
    const int32_t word = (n.packet - w.at.packets_of_origin) * TSR_NCCL_WORDS;
    const uint64_t row = (uint64_t)n.thing * w.row_bytes;
    three_words none = {};

    return n.thing < tokens && word >= 0
               ? read_words((const uint32_t *)(w.block + w.at.send_rows + row),
                            (int32_t)(w.row_bytes / sizeof(int32_t)), word)
               : none;
}

/* Of three slots of a token: its row, and the number of each that is wanted. */
static __device__ __forceinline__ three_words origin_of(const few_rows &few, int32_t token,
                                                        int32_t first)
{
    const uint32_t slots = few.slots[token];
    three_words w;

#pragma unroll
    for (int32_t k = 0; k < TSR_NCCL_WORDS; k++) {
        const int32_t slot = first + k;
        const bool wants = slot < TSR_NCCL_MOST_FEW_SLOTS && (slots >> slot & 1U) != 0;
        const int32_t before = wants ? __popc(slots & ((1U << slot) - 1)) : 0;
        w.at[k] = (uint32_t)token << TSR_NCCL_NUMBER_BITS |
                  (wants ? (uint32_t)(few.answer[token] + before + 1) : 0);
    }
    return w;
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
        if (n.packet < w.at.packets_of_origin)
            words = origin_of(few, n.thing, n.packet * TSR_NCCL_WORDS);
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
    int32_t first_row;    /* where its rows arrive */
    int32_t first_answer; /* the number of the first that it wants */
} source_place;

/* Slots of a row that arrives at `row`, each with its answer and where that goes. */
static __device__ __forceinline__ void take_slots(const tsr_nccl_work &w, const source_place &from,
                                                  int32_t row, int32_t first,
                                                  const tsr_nccl_vector &p)
{
    const uint32_t word[TSR_NCCL_WORDS] = {p.x, p.y, p.z};
    const int32_t whom = from.source | (from.told & TSR_NCCL_ANSWERS_PACKED);

#pragma unroll
    for (int32_t k = 0; k < TSR_NCCL_WORDS; k++) {
        const int32_t slot = first + k;
        const int32_t number = (int32_t)(word[k] & TSR_NCCL_NUMBER);
        const int32_t answer = number > 0 ? from.first_answer + number - 1 : -1;
        if (slot >= w.slots)
            break;
        ints(w, w.at.answer_of)[(int64_t)row * w.slots + slot] = answer;
        if (answer >= 0)
            ((int2 *)(w.block + w.at.answer_to))[answer] =
                make_int2(whom, (int32_t)(word[k] >> TSR_NCCL_NUMBER_BITS) * w.slots + slot);
    }
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
    const int32_t origin = w.at.packets_of_origin;
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
        if (n.packet < origin)
            take_slots(w, from, row, n.packet * TSR_NCCL_WORDS, seen.packet);
        else
            take_words((uint32_t *)(w.window + w.at.arrived_rows + (uint64_t)row * w.row_bytes),
                       words, (n.packet - origin) * TSR_NCCL_WORDS, seen.packet);
    }
}

/* An answer that may be there, and where it would go. */
typedef struct read_answer {
    int2 to;
    three_words words;
} read_answer;

static __device__ __forceinline__ read_answer read_one(const tsr_nccl_work &w, const packet_walk &n)
{
    const uint64_t at = (uint64_t)n.thing * w.return_row_bytes;
    read_answer a = {};

    if (n.thing >= w.max_arrivals * w.slots)
        return a;
    a.to = ((const int2 *)(w.block + w.at.answer_to))[n.thing];
    a.words =
        read_words((const uint32_t *)(w.block + w.at.answers + at),
                   (int32_t)(w.return_row_bytes / sizeof(int32_t)), n.packet * TSR_NCCL_WORDS);
    return a;
}

/* The answers to sources that want packets; `a` is what `n` begins with. */
static __device__ __forceinline__ void post_answers(const tsr_nccl_work &w, uint32_t epoch,
                                                    packet_walk n, read_answer a, int32_t answers)
{
    const int32_t each = w.at.packets_of_answer;

#pragma unroll 1
    while (n.thing < answers) {
        unsigned char *to = w.peer[a.to.x & ~TSR_NCCL_ANSWERS_PACKED] + w.at.answer_packets;
        const int64_t place = (int64_t)a.to.y * each + n.packet;
        if ((a.to.x & TSR_NCCL_ANSWERS_PACKED) != 0)
            post_vector(to + place * TSR_NCCL_PACKET_BYTES, packet_of(a.words, epoch));
        walk_on(&n, each);
        a = read_one(w, n);
    }
}

/* The rank of a slot of this rank's tokens, or -1. */
static __device__ __forceinline__ int32_t rank_of_slot(const tsr_nccl_work &w, int32_t slot,
                                                       int32_t slots)
{
    return slot < slots ? ints(w, w.at.send_ranks)[slot] : -1;
}

/* The answers to this rank's tokens, of every slot that names a rank, which for `n` is `rank`.
 * Leaves when there is no point in waiting. */
static __device__ __forceinline__ void take_answers(const tsr_nccl_work &w, uint32_t epoch,
                                                    packet_walk n, int32_t rank, int32_t slots)
{
    const int32_t each = w.at.packets_of_answer;
    const int32_t words = (int32_t)(w.return_row_bytes / sizeof(int32_t));

#pragma unroll 1
    for (; n.thing < slots; walk_on(&n, each), rank = rank_of_slot(w, n.thing, slots)) {
        const int64_t place = (int64_t)n.thing * each + n.packet;
        uint32_t *to =
            (uint32_t *)(w.window + w.at.returned_rows + (uint64_t)n.thing * w.return_row_bytes);
        tsr_nccl_vector p;
        if (rank < 0)
            continue;
        if (!await_packet(w, w.window + w.at.answer_packets + place * TSR_NCCL_PACKET_BYTES, epoch,
                          &p))
            return;
        take_words(to, words, n.packet * TSR_NCCL_WORDS, p);
    }
}

#endif
