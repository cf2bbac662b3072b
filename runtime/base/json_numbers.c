/*
 * jansson refuses a whole text for one number that it cannot hold. Only such a text is read again,
 * with what stands in place of the number:
 *
 *   {"model_max_length": 1000000000000000019884624838656}
 *   {"model_max_length": {"a number beyond 64 bits": "1000000000000000019884624838656"}}
 */
#include "runtime/base/json_file.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

const char tsr_json_beyond[] = "a number beyond 64 bits";

/* Digits that are kept of a number; what an int64 has at least room for; numbers that one text may
 * have of these, for each costs the memory of an object. */
enum { KEPT_DIGITS = 64, SAFE_DIGITS = 18, DECIMAL = 10, MOST_NUMBERS = 1000 };

static size_t digits_at(const char *text, size_t count)
{
    size_t n = 0;
    while (n < count && text[n] >= '0' && text[n] <= '9')
        n++;
    return n;
}

/* Bytes of the number that begins here, as JSON has it; 0 when there is none. */
static size_t number_at(const char *text, size_t count, bool *ret_whole)
{
    size_t n = count > 0 && text[0] == '-' ? 1 : 0;
    const size_t digits = digits_at(text + n, count - n);

    *ret_whole = true;
    if (digits == 0 || (digits > 1 && text[n] == '0'))
        return 0;
    n += digits;
    if (n < count && text[n] == '.') {
        const size_t more = digits_at(text + n + 1, count - n - 1);
        if (more == 0)
            return 0;
        n += 1 + more;
        *ret_whole = false;
    }
    if (n < count && (text[n] == 'e' || text[n] == 'E')) {
        const size_t sign = n + 1 < count && (text[n + 1] == '+' || text[n + 1] == '-');
        const size_t more = digits_at(text + n + 1 + sign, count - n - 1 - sign);
        if (more == 0)
            return 0;
        n += 1 + sign + more;
        *ret_whole = false;
    }
    return n;
}

/* Whether jansson cannot hold it. `text` goes on behind the number, with a byte that ends it. */
static bool is_beyond(const char *text, size_t count, bool whole)
{
    if (whole && count <= SAFE_DIGITS)
        return false;
    errno = 0;
    if (whole) {
        (void)strtoll(text, NULL, DECIMAL);
        return errno == ERANGE;
    }
    return isinf(strtod(text, NULL));
}

typedef struct rewriting {
    char *out; /* NULL: only measured */
    size_t count;
    size_t numbers;
} rewriting;

static void write_bytes(rewriting *w, const char *bytes, size_t count)
{
    if (w->out != NULL)
        memcpy(w->out + w->count, bytes, count);
    w->count += count;
}

static void write_beyond(rewriting *w, const char *digits, size_t count)
{
    w->numbers++;
    write_bytes(w, "{\"", 2);
    write_bytes(w, tsr_json_beyond, strlen(tsr_json_beyond));
    write_bytes(w, "\":\"", 3);
    write_bytes(w, digits, count < KEPT_DIGITS ? count : KEPT_DIGITS);
    write_bytes(w, "\"}", 2);
}

/* Bytes up to and with the end of the string that begins here. */
static size_t string_at(const char *text, size_t count)
{
    size_t n = 1;
    while (n < count && text[n] != '"')
        n += text[n] == '\\' ? 2 : 1;
    return n < count ? n + 1 : count;
}

/* `text` has a zero byte behind it. */
static void rewrite(rewriting *w, const char *text, size_t count)
{
    size_t given = 0;
    bool in_word = false; /* a digit inside of a word is no number */

    for (size_t i = 0; i < count;) {
        const char c = text[i];
        bool whole = true;
        const size_t number = !in_word && (c == '-' || digits_at(&c, 1) == 1)
                                  ? number_at(text + i, count - i, &whole)
                                  : 0;
        const size_t length = c == '"' ? string_at(text + i, count - i) : number;
        in_word = length == 0 && strchr(" \t\r\n,:[]{}", c) == NULL;
        if (number > 0 && is_beyond(text + i, number, whole)) {
            write_bytes(w, text + given, i - given);
            write_beyond(w, text + i, number);
            given = i + number;
        }
        i += length > 0 ? length : 1;
    }
    write_bytes(w, text + given, count - given);
}

json_t *tsr_json_loadb(const char *bytes, size_t count, size_t flags, json_error_t *error)
{
    json_t *json = json_loadb(bytes, count, flags, error);
    if (json != NULL || json_error_code(error) != json_error_numeric_overflow)
        return json;

    char *text = malloc(count + 1);
    if (text == NULL)
        return NULL;
    memcpy(text, bytes, count);
    text[count] = '\0';
    rewriting w = {0};
    rewrite(&w, text, count);
    w = (rewriting){.out = w.numbers <= MOST_NUMBERS ? malloc(w.count) : NULL};
    if (w.out != NULL) {
        rewrite(&w, text, count);
        json = json_loadb(w.out, w.count, flags, error);
    }
    free(w.out);
    free(text);
    return json;
}
