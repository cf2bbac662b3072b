/*
 * A stop string may begin in one token and end three later. What the text so far ends with is one
 * number for each of them, so that a byte costs the same however the text is cut or repeats itself.
 *
 *   stop "abc"    text "xyab"    out "xy"     held "ab": the most that any of them has matched
 *                 then "d"       out "abd"    held ""
 */
#include "runtime/text/stop_strings.h"

#include <stdlib.h>
#include <string.h>

/*
 * One string as Knuth, Morris and Pratt search for it.
 *
 *     bytes    a b a b c
 *     border   0 0 1 2 0     longest proper prefix of bytes[0..i] that is also its suffix
 *     matched  how many of `bytes` the text so far ends with
 */
typedef struct stop {
    char *bytes;
    size_t *border;
    size_t count;
    size_t matched;
} stop;

struct tsr_stop_strings {
    stop *stops; /* [count] */
    size_t count;
    tsr_text held; /* what could still become a stop string */
    int32_t ended; /* the stop string that ended the text, or -1 */
    bool include;
};

/* How much of `s` the text ends with after one more byte. A whole match ends the search, so
 * `matched` is never all of it. */
static size_t advance(const stop *s, size_t matched, char byte)
{
    while (matched > 0 && s->bytes[matched] != byte)
        matched = s->border[matched - 1];
    return s->bytes[matched] == byte ? matched + 1 : 0;
}

static tsr_status stop_open(const char *text, stop *s)
{
    const size_t count = strlen(text);
    if (count == 0)
        return TSR_ERR_ARG;

    s->count = count;
    s->bytes = malloc(count);
    s->border = calloc(count, sizeof(*s->border));
    if (s->bytes == NULL || s->border == NULL)
        return TSR_ERR_MEMORY;
    memcpy(s->bytes, text, count);
    for (size_t i = 1; i < count; i++)
        s->border[i] = advance(s, s->border[i - 1], s->bytes[i]);
    return TSR_OK;
}

tsr_status tsr_stop_strings_open(const char *const *stops, size_t count, bool include,
                                 tsr_stop_strings **ret_stops)
{
    tsr_stop_strings *opened = calloc(1, sizeof(*opened));
    if (opened == NULL)
        return TSR_ERR_MEMORY;

    opened->ended = -1;
    opened->include = include;
    opened->count = count;
    opened->stops = calloc(count ? count : 1, sizeof(*opened->stops));
    tsr_status st = opened->stops != NULL ? TSR_OK : TSR_ERR_MEMORY;
    for (size_t i = 0; st == TSR_OK && i < count; i++)
        st = stop_open(stops[i], &opened->stops[i]);
    if (st != TSR_OK) {
        tsr_stop_strings_close(opened);
        return st;
    }
    *ret_stops = opened;
    return TSR_OK;
}

void tsr_stop_strings_close(tsr_stop_strings *stops)
{
    if (stops == NULL)
        return;
    for (size_t i = 0; stops->stops != NULL && i < stops->count; i++) {
        free(stops->stops[i].bytes);
        free(stops->stops[i].border);
    }
    free(stops->stops);
    tsr_text_close(&stops->held);
    free(stops);
}

/* The text grows by one byte. The longest stop string it now ends with, or -1. */
static int32_t take_byte(tsr_stop_strings *stops, char byte)
{
    int32_t found = -1;
    for (size_t i = 0; i < stops->count; i++) {
        stop *s = &stops->stops[i];
        s->matched = advance(s, s->matched, byte);
        if (s->matched == s->count && (found < 0 || s->count > stops->stops[found].count))
            found = (int32_t)i;
    }
    return found;
}

/* Bytes at the end of the text that could begin a stop string. */
static size_t suspicious(const tsr_stop_strings *stops)
{
    size_t most = 0;
    for (size_t i = 0; i < stops->count; i++) {
        if (stops->stops[i].matched > most)
            most = stops->stops[i].matched;
    }
    return most;
}

tsr_status tsr_stop_strings_push(tsr_stop_strings *stops, const char *bytes, size_t count,
                                 tsr_text *out, int32_t *ret_matched)
{
    size_t taken = 0;
    int32_t found = stops->ended;
    while (found < 0 && taken < count)
        found = take_byte(stops, bytes[taken++]);

    tsr_status st = tsr_text_add(&stops->held, bytes, taken);
    size_t keep = 0;
    if (found < 0)
        keep = suspicious(stops);
    else if (stops->ended < 0 && !stops->include)
        keep = stops->stops[found].count;

    const size_t show = stops->held.count - keep;
    if (st == TSR_OK)
        st = tsr_text_add(out, stops->held.bytes, show);
    if (st != TSR_OK)
        return st;

    tsr_text_drop(&stops->held, show);
    if (found >= 0)
        tsr_text_clear(&stops->held);
    stops->ended = found;
    *ret_matched = found;
    return TSR_OK;
}

tsr_status tsr_stop_strings_finish(tsr_stop_strings *stops, tsr_text *out)
{
    const tsr_status st = tsr_text_add(out, stops->held.bytes, stops->held.count);
    if (st == TSR_OK)
        tsr_text_clear(&stops->held);
    return st;
}
