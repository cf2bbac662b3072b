/*
 * The largest of many values: the bits of the last one taken are found digit by digit (three
 * histograms), one pass gathers, a heap sort orders what was gathered.
 */
#include "kernels/cpu/top_cpu.h"

#include "runtime/base/numeric.h"

#include <stdbool.h>

enum { DIGITS = 3, DIGIT_BITS = 11, DIGIT_VALUES = 1 << DIGIT_BITS };

/* Unsigned order of keys is the order of values; -0 equals 0. */
static uint32_t key_of(float x)
{
    const uint32_t u = tsr_f32_bits(x + 0.0F);

    return u & 0x80000000U ? ~u : u | 0x80000000U;
}

/* The key of the wanted-th largest; *ret_equal of those with this key are among the wanted. */
static uint32_t last_key(const float *x, int32_t count, int32_t wanted, int32_t *ret_equal)
{
    uint32_t prefix = 0;
    int32_t left = wanted;

    for (int digit = DIGITS - 1; digit >= 0; digit--) {
        const int shift = digit * DIGIT_BITS;
        const uint32_t above = digit == DIGITS - 1 ? 0 : ~UINT32_C(0) << (shift + DIGIT_BITS);
        int32_t histogram[DIGIT_VALUES] = {0};
        for (int32_t i = 0; i < count; i++) {
            const uint32_t key = key_of(x[i]);
            if ((key & above) == prefix)
                histogram[key >> shift & (DIGIT_VALUES - 1)]++;
        }
        uint32_t value = DIGIT_VALUES - 1;
        while (value > 0 && histogram[value] < left)
            left -= histogram[value--];
        prefix |= value << shift;
    }
    *ret_equal = left;
    return prefix;
}

/* True when a stands before b. */
static bool before(const float *x, int32_t a, int32_t b)
{
    return x[a] > x[b] || (x[a] == x[b] && a < b);
}

/* Moves the id at `at` down, so that each parent stands behind its children. */
static void sift(const float *x, int32_t *id, int32_t at, int32_t count)
{
    const int32_t moved = id[at];

    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= count)
            break;
        if (child + 1 < count && before(x, id[child], id[child + 1]))
            child++;
        if (!before(x, moved, id[child]))
            break;
        id[at] = id[child];
        at = child;
    }
    id[at] = moved;
}

static void sort(const float *x, int32_t *id, int32_t count)
{
    for (int32_t i = count / 2; i > 0; i--)
        sift(x, id, i - 1, count);
    for (int32_t last = count - 1; last > 0; last--) {
        const int32_t first = id[0];
        id[0] = id[last];
        id[last] = first;
        sift(x, id, 0, last);
    }
}

void tsr_top(const float *x, int32_t count, int32_t wanted, int32_t *id)
{
    int32_t equal = 0;
    int32_t taken = 0;
    const uint32_t last = last_key(x, count, wanted, &equal);

    for (int32_t i = 0; i < count && taken < wanted; i++) {
        const uint32_t key = key_of(x[i]);
        if (key > last || (key == last && equal-- > 0))
            id[taken++] = i;
    }
    sort(x, id, taken);
}
