/*
 * Few rows as packets: what has come is known by the epoch in it, so that nothing is announced,
 * fenced or waited for but the bytes themselves.
 *
 *   | word | word | word | epoch |  | word | word | word | epoch |  ...
 *
 * Two areas by turns are enough for rows: nobody sends for the second dispatch after this one before
 * all have sent for the next, which each does when it has read this one. One area is enough for
 * answers: who answers the next dispatch has been sent its rows, by a rank that has read these.
 */
#ifndef TSR_COMM_EXCHANGE_NCCL_PACKETS_CUH
#define TSR_COMM_EXCHANGE_NCCL_PACKETS_CUH

#include "comm/exchange_nccl_device.cuh"

enum { TSR_NCCL_WORDS = 3, TSR_NCCL_PACKET_BYTES = 16 };

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

static __device__ __forceinline__ uint64_t row_packets_at(const tsr_nccl_work &w, uint32_t epoch,
                                                          int32_t source)
{
    const uint64_t area = epoch % 2 * (uint64_t)w.ranks + (uint64_t)source;
    return w.at.row_packets +
           area * (uint64_t)w.at.few_rows * (uint64_t)w.at.packets_of_row * TSR_NCCL_PACKET_BYTES;
}

/* What has been announced to this rank; the arrays are the CTA's. */
typedef struct tsr_nccl_sources {
    int32_t *forms;  /* [ranks] rows and forms */
    int32_t *first;  /* [ranks + 1] of the arrived rows */
    int32_t *packed; /* [ranks + 1] the same, of those alone that come as packets */
} tsr_nccl_sources;

/* A row that comes as packets. */
typedef struct packed_row {
    int32_t source;
    int32_t at;             /* where it arrives */
    unsigned char *packets; /* where they come */
} packed_row;

static __device__ __forceinline__ packed_row packed_row_of(const tsr_nccl_work &w, uint32_t epoch,
                                                           const tsr_nccl_sources &from,
                                                           int32_t number)
{
    packed_row p = {};

    while (number >= from.packed[p.source + 1])
        p.source++;
    const int32_t i = number - from.packed[p.source];
    p.at = from.first[p.source] + i;
    p.packets = w.window + row_packets_at(w, epoch, p.source) +
                (int64_t)i * w.at.packets_of_row * TSR_NCCL_PACKET_BYTES;
    return p;
}

/* The words of a row's origin: the ranks of its slots, then where it is from. */
static __device__ __forceinline__ uint32_t word_of_origin(const tsr_nccl_work &w, int32_t row,
                                                          int32_t word)
{
    return word < w.slots ? (uint32_t)ints(w, w.at.send_ranks)[(int64_t)row * w.slots + word]
                          : (uint32_t)row;
}

static __device__ __forceinline__ uint32_t word_of(const uint32_t *row, int32_t words, int32_t word)
{
    return word < words ? row[word] : 0;
}

static __device__ __forceinline__ tsr_nccl_vector packet_of_row(const tsr_nccl_work &w, int32_t row,
                                                                int32_t packet, uint32_t epoch)
{
    const int32_t words = (int32_t)(w.row_bytes / sizeof(int32_t));
    const uint32_t *bytes =
        (const uint32_t *)(w.block + w.at.send_rows + (uint64_t)row * w.row_bytes);
    const int32_t origin = packet * TSR_NCCL_WORDS;
    const int32_t word = (packet - w.at.packets_of_origin) * TSR_NCCL_WORDS;

    if (word < 0)
        return make_uint4(word_of_origin(w, row, origin), word_of_origin(w, row, origin + 1),
                          word_of_origin(w, row, origin + 2), epoch);
    return make_uint4(bytes[word], word_of(bytes, words, word + 1), word_of(bytes, words, word + 2),
                      epoch);
}

/* The listed rows to the target, by all threads of the grid's first dimension. */
static __device__ void pack_rows(const tsr_nccl_work &w, uint32_t epoch, int32_t target,
                                 const int32_t *list, int32_t count)
{
    const int32_t packets = w.at.packets_of_row;
    unsigned char *to = w.peer[target] + row_packets_at(w, epoch, w.rank);

    for (int64_t n = thread_of_grid(); n < (int64_t)count * packets; n += threads_of_grid())
        post_vector(to + n * TSR_NCCL_PACKET_BYTES,
                    packet_of_row(w, list[n / packets], (int32_t)(n % packets), epoch));
}

static __device__ __forceinline__ void take_word_of_origin(const tsr_nccl_work &w, int32_t row,
                                                           int32_t word, uint32_t value)
{
    if (word < w.slots)
        ((uint32_t *)(w.window + w.at.slot_ranks))[(int64_t)row * w.slots + word] = value;
    else if (word == w.slots)
        ((uint32_t *)(w.window + w.at.origin_row))[row] = value;
}

/* By one CTA: where the rows that come as packets are from. False: waited for nothing. */
static __device__ bool unpack_origins(const tsr_nccl_work &w, uint32_t epoch,
                                      const tsr_nccl_sources &from)
{
    const int32_t packets = w.at.packets_of_origin;
    const int32_t count = from.packed[w.ranks] * packets;

    for (int32_t n = (int32_t)threadIdx.x; n < count; n += (int32_t)blockDim.x) {
        const packed_row row = packed_row_of(w, epoch, from, n / packets);
        const int32_t packet = n % packets;
        const int32_t word = packet * TSR_NCCL_WORDS;
        tsr_nccl_vector p;
        if (!await_packet(w, row.packets + packet * TSR_NCCL_PACKET_BYTES, epoch, &p))
            return false;
        take_word_of_origin(w, row.at, word, p.x);
        take_word_of_origin(w, row.at, word + 1, p.y);
        take_word_of_origin(w, row.at, word + 2, p.z);
        if (packet == 0)
            ((int32_t *)(w.window + w.at.origin_rank))[row.at] = row.source;
    }
    return true;
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

/* By thread `thread` of `threads`: the rows that come as packets, to where they belong. Leaves when
 * there is no point in waiting. */
static __device__ void unpack_rows(const tsr_nccl_work &w, uint32_t epoch,
                                   const tsr_nccl_sources &from, int64_t thread, int64_t threads)
{
    const int32_t packets = w.at.packets_of_row - w.at.packets_of_origin;
    const int32_t words = (int32_t)(w.row_bytes / sizeof(int32_t));
    const int64_t count = (int64_t)from.packed[w.ranks] * packets;

    for (int64_t n = thread; n < count; n += threads) {
        const packed_row row = packed_row_of(w, epoch, from, (int32_t)(n / packets));
        const int32_t packet = (int32_t)(n % packets);
        unsigned char *at = row.packets + (w.at.packets_of_origin + packet) * TSR_NCCL_PACKET_BYTES;
        tsr_nccl_vector p;
        if (!await_packet(w, at, epoch, &p))
            return;
        take_words((uint32_t *)(w.window + w.at.arrived_rows + (uint64_t)row.at * w.row_bytes),
                   words, packet * TSR_NCCL_WORDS, p);
    }
}

/* The answers to sources that want packets. */
static __device__ void pack_answers(const tsr_nccl_work &w, uint32_t epoch)
{
    const int32_t answers = *ints(w, w.at.answer_count);
    const int32_t packets = w.at.packets_of_answer;
    const int32_t words = (int32_t)(w.return_row_bytes / sizeof(int32_t));

    for (int64_t n = thread_of_grid(); n < (int64_t)answers * packets; n += threads_of_grid()) {
        const int64_t a = n / packets;
        const int32_t word = (int32_t)(n % packets) * TSR_NCCL_WORDS;
        const int32_t rank = ints(w, w.at.answer_rank)[a];
        const int64_t slot = ints(w, w.at.answer_slot)[a];
        const uint32_t *answer =
            (const uint32_t *)(w.block + w.at.answers + (uint64_t)a * w.return_row_bytes);
        if ((ints(w, w.at.forms)[rank] & TSR_NCCL_ANSWERS_PACKED) == 0)
            continue;
        post_vector(w.peer[rank] + w.at.answer_packets +
                        (slot * packets + n % packets) * TSR_NCCL_PACKET_BYTES,
                    make_uint4(answer[word], word_of(answer, words, word + 1),
                               word_of(answer, words, word + 2), epoch));
    }
}

/* The answers to this rank's tokens, of every slot that names a rank; leaves likewise. */
static __device__ void unpack_answers(const tsr_nccl_work &w, uint32_t epoch, int32_t tokens)
{
    const int32_t packets = w.at.packets_of_answer;
    const int32_t words = (int32_t)(w.return_row_bytes / sizeof(int32_t));
    const int64_t count = (int64_t)tokens * w.slots * packets;

    for (int64_t n = thread_of_grid(); n < count; n += threads_of_grid()) {
        const int64_t slot = n / packets;
        const int32_t word = (int32_t)(n % packets) * TSR_NCCL_WORDS;
        uint32_t *to =
            (uint32_t *)(w.window + w.at.returned_rows + (uint64_t)slot * w.return_row_bytes);
        tsr_nccl_vector p;
        if (ints(w, w.at.send_ranks)[slot] < 0)
            continue;
        if (!await_packet(w, w.window + w.at.answer_packets + n * TSR_NCCL_PACKET_BYTES, epoch, &p))
            return;
        take_words(to, words, word, p);
    }
}

#endif
