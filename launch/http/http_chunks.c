/*
 *   SIZE -> EXTENSION -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE ...
 *                           \ size 0
 *                            TRAILER ... empty line: the end
 */
#include "launch/http/http_chunks.h"

#include <string.h>

enum { MOST_DIGITS = 15, MOST_LINE_BYTES = 4096 };

enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LF };

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool take_size(tsr_http_chunks *chunks, char c)
{
    const int digit = hex_digit(c);

    if (digit >= 0) {
        chunks->left = chunks->left * 16 + (uint64_t)digit;
        return ++chunks->digits <= MOST_DIGITS;
    }
    chunks->state = c == '\r' ? SIZE_LF : EXTENSION;
    chunks->line = 0;
    return chunks->digits > 0 && (c == '\r' || c == ';' || c == ' ' || c == '\t');
}

/* A byte of what is not data. */
static bool take_byte(tsr_http_chunks *chunks, char c, bool *ret_ended)
{
    switch (chunks->state) {
    case SIZE:
        return take_size(chunks, c);
    case EXTENSION:
        if (c == '\r')
            chunks->state = SIZE_LF;
        return c != '\n' && c != '\0' && ++chunks->line <= MOST_LINE_BYTES;
    case SIZE_LF:
        chunks->state = chunks->left > 0 ? DATA : TRAILER;
        chunks->digits = 0; /* from here on: bytes of this trailer */
        chunks->line = 0;
        return c == '\n';
    case DATA_CR:
        chunks->state = DATA_LF;
        return c == '\r';
    case DATA_LF:
        chunks->state = SIZE;
        return c == '\n';
    case TRAILER:
        if (c == '\r')
            chunks->state = TRAILER_LF;
        else
            chunks->digits = 1;
        return c != '\n' && c != '\0' && ++chunks->line <= MOST_LINE_BYTES;
    default: /* TRAILER_LF */
        *ret_ended = chunks->digits == 0;
        chunks->digits = 0;
        chunks->state = TRAILER;
        return c == '\n';
    }
}

static tsr_status take_data(tsr_http_chunks *chunks, tsr_http_piece piece, tsr_text *body,
                            size_t *ret_used)
{
    const size_t used = chunks->left < piece.count ? (size_t)chunks->left : piece.count;

    const tsr_status st = tsr_text_add(body, piece.bytes, used);
    if (st != TSR_OK)
        return st;
    chunks->left -= used;
    if (chunks->left == 0)
        chunks->state = DATA_CR;
    *ret_used = used;
    return TSR_OK;
}

tsr_status tsr_http_chunks_push(tsr_http_chunks *chunks, tsr_http_piece piece, size_t most,
                                tsr_text *body, size_t *ret_used, bool *ret_ended)
{
    size_t at = 0;
    bool ended = false;

    while (at < piece.count && !ended) {
        size_t used = 1;
        tsr_status st = TSR_OK;
        if (chunks->state == DATA)
            st = take_data(chunks, (tsr_http_piece){piece.bytes + at, piece.count - at}, body,
                           &used);
        else if (!take_byte(chunks, piece.bytes[at], &ended))
            st = TSR_ERR_ARG;
        else if (chunks->state == DATA && chunks->left > most - body->count)
            st = TSR_ERR_CAPACITY;
        if (st != TSR_OK)
            return st;
        at += used;
    }
    *ret_used = at;
    *ret_ended = ended;
    return TSR_OK;
}
