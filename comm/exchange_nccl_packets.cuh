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

/* A word of what travels with a row: the row, the ranks of its slots, where it is from. */
static __device__ __forceinline__ uint32_t word_of_row(const tsr_nccl_work &w, int32_t row,
                                                       int32_t word)
{
    const int32_t words = (int32_t)(w.row_bytes / sizeof(int32_t));
    const uint32_t *bytes =
        (const uint32_t *)(w.block + w.at.send_rows + (uint64_t)row * w.row_bytes);

    if (word < words)
        return bytes[word];
    if (word < words + w.slots)
        return (uint32_t)ints(w, w.at.send_ranks)[(int64_t)row * w.slots + word - words];
    return (uint32_t)row;
}

static __device__ __forceinline__ void take_word_of_row(const tsr_nccl_work &w, int64_t at,
                                                        int32_t word, uint32_t value)
{
    const int32_t words = (int32_t)(w.row_bytes / sizeof(int32_t));
    uint32_t *bytes = (uint32_t *)(w.window + w.at.arrived_rows + (uint64_t)at * w.row_bytes);

    if (word < words)
        bytes[word] = value;
    else if (word < words + w.slots)
        ((uint32_t *)(w.window + w.at.slot_ranks))[at * w.slots + word - words] = value;
    else if (word == words + w.slots)
        ((uint32_t *)(w.window + w.at.origin_row))[at] = value;
}

/* The listed rows to the target, by all threads of the grid's first dimension. */
static __device__ void pack_rows(const tsr_nccl_work &w, int32_t target, const int32_t *list,
                                 int32_t count)
{
    const uint32_t epoch = state_of(w)->epoch;
    const int32_t packets = w.at.packets_of_row;
    unsigned char *to = peer_window(w, target) + row_packets_at(w, epoch, w.rank);

    for (int64_t n = thread_of_grid(); n < (int64_t)count * packets; n += threads_of_grid()) {
        const int32_t row = list[n / packets];
        const int32_t word = (int32_t)(n % packets) * TSR_NCCL_WORDS;
        post_vector(to + n * TSR_NCCL_PACKET_BYTES,
                    make_uint4(word_of_row(w, row, word), word_of_row(w, row, word + 1),
                               word_of_row(w, row, word + 2), epoch));
    }
}

/* The source's rows to where they belong, from `first` on; leaves when there is no point in
 * waiting. */
static __device__ void unpack_rows(const tsr_nccl_work &w, int32_t source, int32_t first,
                                   int32_t count)
{
    const uint32_t epoch = state_of(w)->epoch;
    const int32_t packets = w.at.packets_of_row;
    unsigned char *from = w.window + row_packets_at(w, epoch, source);

    for (int64_t n = thread_of_grid(); n < (int64_t)count * packets; n += threads_of_grid()) {
        const int64_t at = first + n / packets;
        const int32_t word = (int32_t)(n % packets) * TSR_NCCL_WORDS;
        tsr_nccl_vector p;
        if (!await_packet(w, from + n * TSR_NCCL_PACKET_BYTES, epoch, &p))
            return;
        take_word_of_row(w, at, word, p.x);
        take_word_of_row(w, at, word + 1, p.y);
        take_word_of_row(w, at, word + 2, p.z);
        if (word == 0)
            ((int32_t *)(w.window + w.at.origin_rank))[at] = source;
    }
}

/* Words of an answer are a multiple of four: only the last packet is not full. */
static __device__ __forceinline__ uint32_t word_of_answer(const uint32_t *answer, int32_t words,
                                                          int32_t word)
{
    return word < words ? answer[word] : 0;
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
        post_vector(peer_window(w, rank) + w.at.answer_packets +
                        (slot * packets + n % packets) * TSR_NCCL_PACKET_BYTES,
                    make_uint4(answer[word], word_of_answer(answer, words, word + 1),
                               word_of_answer(answer, words, word + 2), epoch));
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
        to[word] = p.x;
        if (word + 1 < words)
            to[word + 1] = p.y;
        if (word + 2 < words)
            to[word + 2] = p.z;
    }
}

#endif
