/*
 * A range of numbers of as many digits is a tree: a common beginning, then what lies above the lower
 * bound, what lies between, where all digits may come, and what lies below the upper one.
 *
 *   137 to 152     1 -> 3 -> [7-9]
 *                    -> 4 -> [0-9]
 *                    -> 5 -> [0-2]
 *
 * Negative numbers are those of the mirrored range behind a sign.
 */
#include "runtime/text/grammar/number_range.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { DIGITS = 24, MOST_FRACTION = 16 };

static bool all_are(const char *digits, char c)
{
    return strspn(digits, (char[]){c, '\0'}) == strlen(digits);
}

/* As many digits in both; low is not above high. */
static int32_t same_length(tsr_json_parts *parts, const char *low, const char *high, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const int left = (int)strlen(low);
    char nines[DIGITS];
    char zeros[DIGITS];

    if (left == 0)
        return next;
    if (low[0] == high[0])
        return tsr_add_bytes(p, (unsigned char)low[0], (unsigned char)low[0],
                             same_length(parts, low + 1, high + 1, next));
    if (all_are(low + 1, '0') && all_are(high + 1, '9'))
        return tsr_add_bytes(p, (unsigned char)low[0], (unsigned char)high[0],
                             tsr_json_digits(parts, left - 1, left - 1, next));
    memset(nines, '9', sizeof(nines));
    memset(zeros, '0', sizeof(zeros));
    nines[left - 1] = '\0';
    zeros[left - 1] = '\0';
    int32_t any = tsr_add_bytes(p, (unsigned char)low[0], (unsigned char)low[0],
                                same_length(parts, low + 1, nines, next));
    any = tsr_add_split(p,
                        tsr_add_bytes(p, (unsigned char)high[0], (unsigned char)high[0],
                                      same_length(parts, zeros, high + 1, next)),
                        any);
    if (low[0] + 1 < high[0])
        any = tsr_add_split(p,
                            tsr_add_bytes(p, (unsigned char)(low[0] + 1),
                                          (unsigned char)(high[0] - 1),
                                          tsr_json_digits(parts, left - 1, left - 1, next)),
                            any);
    return any;
}

/* Whole numbers from low to high, neither below 0. */
static int32_t digits_within(tsr_json_parts *parts, int64_t low, int64_t high, int32_t next)
{
    int32_t any = TSR_NODE_NEVER;
    char from[DIGITS];
    char to[DIGITS];

    while (low <= high) {
        int64_t last = 9; /* of as many digits */
        while (last < low)
            last = last * 10 + 9;
        last = last < high ? last : high;
        (void)snprintf(from, sizeof(from), "%" PRId64, low);
        (void)snprintf(to, sizeof(to), "%" PRId64, last);
        any = tsr_add_split(parts->program, same_length(parts, from, to, next), any);
        low = last + 1;
    }
    return any;
}

/* The part of the range on one side of 0, as distances from it. False where there is none. */
static bool side_of(const tsr_number_range *r, bool negative, tsr_number_range *ret_side)
{
    tsr_number_range side =
        negative ? (tsr_number_range){-r->most, -r->least, r->below, r->above} : *r;

    if (side.most < 0)
        return false;
    if (side.least < 0) {
        side.least = 0;
        side.above = false;
    }
    *ret_side = side;
    return true;
}

int32_t tsr_integer_within(tsr_json_parts *parts, const tsr_number_range *range, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const tsr_number_range whole = {range->least + range->above, range->most - range->below, false,
                                    false};
    tsr_number_range side;
    int32_t any = TSR_NODE_NEVER;

    if (whole.least > whole.most)
        return TSR_NODE_NEVER;
    if (side_of(&whole, false, &side))
        any = digits_within(parts, side.least, side.most, next);
    if (side_of(&whole, true, &side) && side.most > 0) {
        const int64_t least = side.least > 0 ? side.least : 1;
        any = tsr_add_split(p, tsr_add_word(p, "-", digits_within(parts, least, side.most, next)),
                            any);
    }
    return any;
}

/* Behind a whole number: a fraction that is not 0. */
static int32_t some_fraction(tsr_json_parts *parts, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    int32_t at = TSR_NODE_NEVER;

    for (int i = 0; i < MOST_FRACTION; i++) {
        const int32_t more = tsr_json_digits(parts, 0, i, next);
        at = tsr_add_split(p, tsr_add_bytes(p, '1', '9', more), tsr_add_word(p, "0", at));
    }
    return tsr_add_word(p, ".", at);
}

static int32_t no_fraction(tsr_json_parts *parts, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    int32_t at = next;

    for (int i = 1; i < MOST_FRACTION; i++)
        at = tsr_add_split(p, tsr_add_word(p, "0", at), next);
    return tsr_add_split(p, tsr_add_word(p, ".0", at), next);
}

static int32_t side_within(tsr_json_parts *parts, const tsr_number_range *side, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const int32_t zero = no_fraction(parts, next);
    const int32_t some = some_fraction(parts, next);
    const int32_t any = tsr_add_split(p, some, zero);

    if (side->least == side->most)
        return side->above || side->below ? TSR_NODE_NEVER
                                          : digits_within(parts, side->least, side->most, zero);
    const int32_t first = digits_within(parts, side->least, side->least, side->above ? some : any);
    const int32_t last =
        side->below ? TSR_NODE_NEVER : digits_within(parts, side->most, side->most, zero);
    const int32_t between = digits_within(parts, side->least + 1, side->most - 1, any);
    return tsr_add_split(p, first, tsr_add_split(p, last, between));
}

int32_t tsr_number_within(tsr_json_parts *parts, const tsr_number_range *range, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    tsr_number_range side;
    int32_t any = TSR_NODE_NEVER;

    if (range->least > range->most)
        return TSR_NODE_NEVER;
    if (side_of(range, false, &side))
        any = side_within(parts, &side, next);
    if (side_of(range, true, &side))
        any = tsr_add_split(p, tsr_add_word(p, "-", side_within(parts, &side, next)), any);
    return any;
}
