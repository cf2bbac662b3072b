/* Small sums about sizes, in one place: layouts must come to the same bytes wherever they are
 * counted. */
#ifndef TSR_RUNTIME_BASE_SIZES_H
#define TSR_RUNTIME_BASE_SIZES_H

#include <stdint.h>

enum {
    TSR_ALIGNMENT = 64,     /* where arrays and areas of memory begin: a cache line, a vector */
    TSR_ROW_ALIGNMENT = 16, /* a row of an exchange is a multiple of it */
};

static inline int32_t tsr_smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static inline int32_t tsr_larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static inline int64_t tsr_smaller_64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t tsr_larger_64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Of bytes, and of counts whose product is bytes. */
static inline uint64_t tsr_smaller_size(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t tsr_larger_size(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The least multiple of `to` that is not below `bytes`. */
static inline uint64_t tsr_aligned(uint64_t bytes, uint64_t to)
{
    return (bytes + to - 1) / to * to;
}

/* How many pieces of `size` hold `count`. */
static inline int32_t tsr_pieces(int32_t count, int32_t size)
{
    return count / size + (count % size != 0);
}

static inline int64_t tsr_pieces_64(int64_t count, int64_t size)
{
    return count / size + (count % size != 0);
}

#endif
