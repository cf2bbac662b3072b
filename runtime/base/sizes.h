/* Small sums about sizes, in one place: layouts must come to the same bytes wherever they are
 * counted. */
#ifndef TSR_RUNTIME_BASE_SIZES_H
#define TSR_RUNTIME_BASE_SIZES_H

#include <stdint.h>

static inline int32_t tsr_smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static inline int32_t tsr_larger(int32_t a, int32_t b)
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

#endif
