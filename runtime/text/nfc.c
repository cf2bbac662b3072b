/*
 * utf8proc does the work, on the stretches where there is any: most of a text is ASCII or
 * ideographs and is copied. Marks are ordered by counting, since a hostile text may be one run of
 * them. Its tables are newer than the reference's: what the reference does not know yet is kept
 * from it.
 */
#include "runtime/text/nfc.h"

#include "runtime/text/utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { CLASSES = 256, LONGEST_DECOMPOSITION = 32 };

/*
 * Marks that utf8proc orders or composes and the reference, with the tables of Unicode 9, does not:
 * assigned in Unicode 10 to 15, sorted. To both of them they are as letters that nothing joins.
 */
static const struct {
    uint32_t first;
    uint32_t last;
} newer_marks[] = {
    {0x07fd, 0x07fd},   {0x0898, 0x089f},   {0x08ca, 0x08d3},   {0x09fe, 0x09fe},
    {0x0c3c, 0x0c3c},   {0x0d3b, 0x0d3c},   {0x0eba, 0x0eba},   {0x0ece, 0x0ece},
    {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},
    {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50},
    {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e},
    {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11935, 0x11935}, {0x11938, 0x11938},
    {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45},
    {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
};

/* True when `code` neither changes nor takes part in a change of its neighbours. */
static bool is_inert(uint32_t code)
{
    if (code < newer_marks[0].first)
        return false;
    if ((code >= 0x3400 && code <= 0x4dbf) || (code >= 0x4e00 && code <= 0x9fff))
        return true; /* ideographs: not newer, but they make up whole texts */
    if (code == 0x11a7)
        return true; /* one below the first final jamo: utf8proc would compose it away */

    size_t low = 0;
    size_t high = sizeof(newer_marks) / sizeof(newer_marks[0]);
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (code > newer_marks[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof(newer_marks) / sizeof(newer_marks[0]) && code >= newer_marks[low].first;
}

/* Code points on their way: decomposed, ordered, composed. */
typedef struct codes {
    utf8proc_int32_t *items; /* [capacity], twice: the second half is room to sort in */
    size_t count;
    size_t capacity;
} codes;

static tsr_status reserve_codes(codes *c, size_t more)
{
    const size_t needed = c->count + more;
    if (needed <= c->capacity)
        return TSR_OK;
    if (needed > SIZE_MAX / 4 / sizeof(*c->items))
        return TSR_ERR_MEMORY;

    const size_t capacity = needed * 2;
    utf8proc_int32_t *grown = realloc(c->items, 2 * capacity * sizeof(*grown));
    if (grown == NULL)
        return TSR_ERR_MEMORY;
    c->items = grown;
    c->capacity = capacity;
    return TSR_OK;
}

static tsr_status decompose(const char *text, size_t count, codes *c)
{
    size_t at = 0;
    while (at < count) {
        const tsr_status st = reserve_codes(c, LONGEST_DECOMPOSITION);
        if (st != TSR_OK)
            return st;
        utf8proc_int32_t code = 0;
        const utf8proc_ssize_t bytes = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                        (utf8proc_ssize_t)(count - at), &code);
        const utf8proc_ssize_t parts =
            utf8proc_decompose_char(code, c->items + c->count, LONGEST_DECOMPOSITION,
                                    UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, NULL);
        if (bytes <= 0 || parts < 0 || parts > LONGEST_DECOMPOSITION)
            return TSR_ERR_INTERNAL;
        c->count += (size_t)parts;
        at += (size_t)bytes;
    }
    return TSR_OK;
}

static uint8_t class_of(utf8proc_int32_t code)
{
    return (uint8_t)utf8proc_get_property(code)->combining_class;
}

/* Sorts marks by class, equal ones staying in order, by counting: a text may be one run. */
static void order_run(utf8proc_int32_t *run, size_t count, utf8proc_int32_t *room)
{
    size_t first[CLASSES + 1] = {0};
    for (size_t i = 0; i < count; i++)
        first[class_of(run[i]) + 1]++;
    for (size_t i = 1; i <= CLASSES; i++)
        first[i] += first[i - 1];
    for (size_t i = 0; i < count; i++)
        room[first[class_of(run[i])]++] = run[i];
    memcpy(run, room, count * sizeof(*run));
}

static void order(codes *c)
{
    size_t at = 0;
    while (at < c->count) {
        size_t end = at;
        while (end < c->count && class_of(c->items[end]) != 0)
            end++;
        if (end - at > 1)
            order_run(c->items + at, end - at, c->items + c->capacity);
        at = end + 1;
    }
}

static tsr_status add_codes(const codes *c, size_t count, tsr_text *out)
{
    tsr_status st = TSR_OK;
    for (size_t i = 0; st == TSR_OK && i < count; i++) {
        utf8proc_uint8_t bytes[4];
        const utf8proc_ssize_t used = utf8proc_encode_char(c->items[i], bytes);
        st = tsr_text_add(out, (const char *)bytes, (size_t)used);
    }
    return st;
}

/* A stretch that begins and ends where nothing joins across. */
static tsr_status add_stretch(const char *text, size_t count, codes *c, tsr_text *out)
{
    c->count = 0;
    const tsr_status st = decompose(text, count, c);
    if (st != TSR_OK)
        return st;

    order(c);
    const utf8proc_ssize_t composed = utf8proc_normalize_utf32(c->items, (utf8proc_ssize_t)c->count,
                                                               UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    return composed < 0 ? TSR_ERR_INTERNAL : add_codes(c, (size_t)composed, out);
}

/* Bytes of the character at `text`, which is valid. */
static size_t character_bytes(const char *text)
{
    const unsigned char lead = (unsigned char)*text;
    if (lead < 0x80)
        return 1;
    if (lead < 0xe0)
        return 2;
    return lead < 0xf0 ? 3 : 4;
}

/* Bytes up to where the next stretch may begin: an ASCII character, or an inert one. *ret_work:
 * something in it is at or above U+0300, below which nothing changes. */
static size_t stretch_bytes(const char *text, size_t count, bool *ret_work)
{
    size_t at = 0;
    bool work = false;
    while (at < count) {
        const size_t bytes = character_bytes(text + at);
        if (bytes == 1 && at > 0)
            break;
        if (is_inert(tsr_utf8_decode(text + at, bytes)))
            break;
        work = work || (unsigned char)text[at] >= 0xcc;
        at += bytes;
    }
    *ret_work = work;
    return at;
}

/* Bytes at the start of `text` that stay as they are, whatever follows. */
static size_t unchanged_bytes(const char *text, size_t count)
{
    size_t at = 0;
    while (at < count) {
        const size_t bytes = character_bytes(text + at);
        if (bytes == 1) {
            if (at + 1 < count && (unsigned char)text[at + 1] >= 0x80)
                break; /* a mark may follow */
        } else if (!is_inert(tsr_utf8_decode(text + at, bytes))) {
            break;
        }
        at += bytes;
    }
    return at;
}

tsr_status tsr_nfc_add(const char *text, size_t count, tsr_text *out)
{
    codes c = {0};
    tsr_status st = TSR_OK;
    while (st == TSR_OK && count > 0) {
        size_t bytes = unchanged_bytes(text, count);
        bool work = false;
        if (bytes == 0)
            bytes = stretch_bytes(text, count, &work);
        st = work ? add_stretch(text, bytes, &c, out) : tsr_text_add(out, text, bytes);
        text += bytes;
        count -= bytes;
    }
    free(c.items);
    return st;
}
