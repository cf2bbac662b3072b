/* Numbers from and to text, as Python reads and writes them. */
#include "runtime/text/jinja/value.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FLOAT_BYTES_MOST = 400 };

size_t tsr_jinja_float_text(double number, char *into)
{
    if (isnan(number) || isinf(number))
        return (size_t)sprintf(into, "%s", isnan(number) ? "nan" : number < 0 ? "-inf" : "inf");

    char digits[40];
    int precision = 0;
    do {
        (void)snprintf(digits, sizeof(digits), "%.*e", precision, number);
        precision++;
    } while (precision < 18 && strtod(digits, NULL) != number);

    /* d.ddde+XX taken apart */
    const char *e = strchr(digits, 'e');
    const int exponent = (int)strtol(e + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16)
        return (size_t)sprintf(into, "%.*se%c%02d", (int)(e - digits), digits,
                               exponent < 0 ? '-' : '+', abs(exponent));
    const int behind = precision - 1 - exponent;
    return (size_t)sprintf(into, "%.*f", behind < 1 ? 1 : behind, number);
}

/* Copies without underscores, which may only stand between digits; false when they do not. */
static bool copy_plain(tsr_jinja_text text, size_t capacity, char *into, size_t *ret_count)
{
    size_t count = 0;
    for (size_t i = 0; i < text.count; i++) {
        const char c = text.bytes[i];
        if (c != '_') {
            if (count + 1 == capacity || c == '\0')
                return false;
            into[count++] = c;
            continue;
        }
        const bool before = i > 0 && text.bytes[i - 1] >= '0' && text.bytes[i - 1] <= '9';
        const bool behind =
            i + 1 < text.count && text.bytes[i + 1] >= '0' && text.bytes[i + 1] <= '9';
        if (!before || !behind)
            return false;
    }
    into[count] = '\0';
    *ret_count = count;
    return count > 0;
}

static bool is_word(const char *text, const char *word)
{
    while (*text != '\0' && (*text | 0x20) == *word) {
        text++;
        word++;
    }
    return *text == '\0' && *word == '\0';
}

bool tsr_jinja_read_float(tsr_jinja_text text, double *ret_number)
{
    char plain[FLOAT_BYTES_MOST];
    size_t count = 0;
    if (!copy_plain(tsr_jinja_strip(text, NULL, TSR_JINJA_SIDE_BOTH), sizeof(plain), plain, &count))
        return false;

    const char *unsigned_part = plain + (plain[0] == '+' || plain[0] == '-' ? 1 : 0);
    const bool word = is_word(unsigned_part, "inf") || is_word(unsigned_part, "infinity") ||
                      is_word(unsigned_part, "nan");
    /* strtod would also take hexadecimal and white space. */
    if (!word && strspn(unsigned_part, "0123456789.eE+-") != strlen(unsigned_part))
        return false;
    if (unsigned_part[0] == '+' || unsigned_part[0] == '-')
        return false;
    char *end = NULL;
    const double number = strtod(plain, &end);
    if (end != plain + count)
        return false;
    *ret_number = number;
    return true;
}

/* The value of one digit, 99 when it is none. */
static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    const char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'z' ? lower - 'a' + 10 : 99;
}

/* Steps over 0x and the like where `base` allows it; base 0 takes what it finds. */
static size_t skip_prefix(tsr_jinja_text text, size_t at, int *base)
{
    const char letter =
        (char)(at + 1 < text.count && text.bytes[at] == '0' ? text.bytes[at + 1] | 0x20 : '\0');
    const int found = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (found == 0 || (*base != 0 && *base != found)) {
        *base = *base == 0 ? 10 : *base;
        return at;
    }
    *base = found;
    at += 2;
    return at + (at < text.count && text.bytes[at] == '_' ? 1 : 0);
}

tsr_jinja_reading tsr_jinja_read_int(tsr_jinja_text text, int base, int64_t *ret_integer)
{
    text = tsr_jinja_strip(text, NULL, TSR_JINJA_SIDE_BOTH);
    const bool negative = text.count > 0 && text.bytes[0] == '-';
    size_t at = text.count > 0 && (negative || text.bytes[0] == '+') ? 1 : 0;
    const bool any_base = base == 0;
    const size_t first = at;
    at = skip_prefix(text, at, &base);
    /* Base 0 has no leading zeros, but for zero itself. */
    const bool zeros = any_base && at == first && text.count > at + 1 && text.bytes[at] == '0';

    uint64_t sum = 0;
    bool too_large = false;
    bool digit_before = false;
    for (; at < text.count; at++) {
        if (text.bytes[at] == '_' && digit_before) {
            digit_before = false;
            continue;
        }
        const int digit = digit_of(text.bytes[at]);
        if (digit >= base)
            return TSR_JINJA_NOT_A_NUMBER;
        too_large = too_large || sum > (UINT64_MAX - (uint64_t)digit) / (uint64_t)base;
        sum = sum * (uint64_t)base + (uint64_t)digit;
        digit_before = true;
    }
    if (!digit_before || (zeros && sum != 0))
        return TSR_JINJA_NOT_A_NUMBER;
    if (too_large || sum > (uint64_t)INT64_MAX + (negative ? 1 : 0))
        return TSR_JINJA_BEYOND_64_BITS;
    *ret_integer = negative ? (int64_t)(0 - sum) : (int64_t)sum;
    return TSR_JINJA_READ;
}
