/* Bytes that only their key gives, so that every rank can tell every byte it should see. */
#ifndef TSR_TESTS_COMM_KEYED_BYTES_H
#define TSR_TESTS_COMM_KEYED_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

static inline uint64_t mix2(uint64_t a, uint64_t b)
{
    return mix(mix(a) ^ b);
}

/* `bytes` bytes, a multiple of 8, that only this key gives. */
static inline void fill(void *into, size_t bytes, uint64_t key)
{
    unsigned char *at = into;
    for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        const uint64_t word = key + i * 0x9e3779b97f4a7c15U;
        memcpy(at + i, &word, sizeof(word));
    }
}

static inline bool holds(const void *from, size_t bytes, uint64_t key)
{
    const unsigned char *at = from;
    for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        const uint64_t word = key + i * 0x9e3779b97f4a7c15U;
        if (memcmp(at + i, &word, sizeof(word)) != 0)
            return false;
    }
    return true;
}

#endif
