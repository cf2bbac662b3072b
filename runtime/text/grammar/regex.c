/* A tree is put into the program from its end to its beginning. What repeats is there as often as it
 * may come, so that the program's size bounds it. */
#include "runtime/text/grammar/regex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 4, FIRST_SURROGATE = 0xd800, LAST_SURROGATE = 0xdfff };

/* Where a tree goes. */
typedef struct regex_writer {
    tsr_grammar_program *program;
    tsr_json_parts *parts; /* NULL: text as it is; else characters of a JSON string */
    const tsr_regex_tree *tree;
} regex_writer;

static size_t encode(int32_t code, unsigned char bytes[MOST_BYTES])
{
    const size_t count = code < 0x80 ? 1 : (code < 0x800 ? 2 : (code < 0x10000 ? 3 : 4));

    for (size_t i = count; i-- > 1; code >>= 6)
        bytes[i] = (unsigned char)(0x80 | (code & 0x3f));
    bytes[0] = (unsigned char)(count == 1 ? code : ((0xf00 >> count) & 0xff) | code);
    return count;
}

static bool all_are(const unsigned char *bytes, size_t count, unsigned char value)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != value)
            return false;
    }
    return true;
}

static int32_t any_bytes(tsr_grammar_program *p, size_t count, int32_t next)
{
    for (size_t i = 0; i < count; i++)
        next = tsr_add_bytes(p, 0x80, 0xbf, next);
    return next;
}

/* Characters of as many bytes, as number_range.c has it of digits. */
static int32_t bytes_within(tsr_grammar_program *p, const unsigned char *low,
                            const unsigned char *high, size_t count, int32_t next)
{
    unsigned char least[MOST_BYTES];
    unsigned char most[MOST_BYTES];

    if (count == 0)
        return next;
    if (low[0] == high[0])
        return tsr_add_bytes(p, low[0], low[0],
                             bytes_within(p, low + 1, high + 1, count - 1, next));
    if (all_are(low + 1, count - 1, 0x80) && all_are(high + 1, count - 1, 0xbf))
        return tsr_add_bytes(p, low[0], high[0], any_bytes(p, count - 1, next));
    memset(least, 0x80, sizeof(least));
    memset(most, 0xbf, sizeof(most));
    int32_t any = tsr_add_bytes(p, low[0], low[0], bytes_within(p, low + 1, most, count - 1, next));
    any = tsr_add_split(
        p, tsr_add_bytes(p, high[0], high[0], bytes_within(p, least, high + 1, count - 1, next)),
        any);
    if (low[0] + 1 < high[0])
        any = tsr_add_split(p,
                            tsr_add_bytes(p, (unsigned)low[0] + 1, (unsigned)high[0] - 1,
                                          any_bytes(p, count - 1, next)),
                            any);
    return any;
}

/* Code points of a range that take as many bytes as its first. */
static int32_t wide_within(tsr_grammar_program *p, int32_t first, int32_t last, int32_t next)
{
    static const int32_t ends[] = {0x7ff, 0xffff, TSR_LAST_CODE};
    int32_t any = TSR_NODE_NEVER;

    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]) && first <= last; i++) {
        unsigned char low[MOST_BYTES];
        unsigned char high[MOST_BYTES];
        const int32_t end = last < ends[i] ? last : ends[i];
        if (first > end)
            continue;
        const size_t count = encode(first, low);
        (void)encode(end, high);
        any = tsr_add_split(p, bytes_within(p, low, high, count, next), any);
        first = end + 1;
    }
    return any;
}

/* A character of ASCII that a JSON string has behind a backslash. */
static int32_t escape_of(tsr_grammar_program *p, int32_t code, int32_t next)
{
    static const char codes[] = "\"\\\b\f\n\r\t";
    static const char names[] = "\"\\bfnrt";
    const char *place = code != 0 ? strchr(codes, code) : NULL;
    char text[8];

    if (place != NULL) {
        (void)snprintf(text, sizeof(text), "\\%c", names[place - codes]);
        return tsr_add_word(p, text, next);
    }
    (void)snprintf(text, sizeof(text), "\\u%04x", (unsigned)code & 0xffU);
    return code != 0 ? tsr_add_word(p, text, next) : TSR_NODE_NEVER;
}

static int32_t write_set(const regex_writer *w, const tsr_regex_node *n, int32_t next)
{
    tsr_grammar_program *p = w->program;
    tsr_byte_set plain = {0};
    int32_t any = TSR_NODE_NEVER;
    bool some = false;

    for (int32_t i = n->a; i < n->a + n->b; i++) {
        const tsr_code_range range = w->tree->range[i];
        for (int32_t c = range.first; c <= range.last && c < 0x80; c++) {
            const bool escapes = w->parts != NULL && (c < ' ' || c == '"' || c == '\\');
            some = some || !escapes;
            if (escapes)
                any = tsr_add_split(p, escape_of(p, c, next), any);
            else
                tsr_byte_add(&plain, (unsigned)c, (unsigned)c);
        }
        const int32_t wide = range.first < 0x80 ? 0x80 : range.first;
        const int32_t before = range.last < FIRST_SURROGATE ? range.last : FIRST_SURROGATE - 1;
        const int32_t behind = wide > LAST_SURROGATE ? wide : LAST_SURROGATE + 1;
        any = tsr_add_split(p, wide_within(p, wide, before, next), any);
        any = tsr_add_split(p, wide_within(p, behind, range.last, next), any);
    }
    return some ? tsr_add_split(p, tsr_add_set(p, &plain, next), any) : any;
}

static int32_t write_node(const regex_writer *w, int32_t index, int32_t next);

static int32_t write_repeated(const regex_writer *w, const tsr_regex_node *n, int32_t next)
{
    tsr_grammar_program *p = w->program;
    int32_t at = next;

    if (n->most < 0) {
        at = tsr_add_hole(p);
        tsr_fill_hole(p, at, write_node(w, n->a, at), next);
    }
    for (int32_t i = n->least; i < n->most && p->status == TSR_OK; i++)
        at = tsr_add_split(p, write_node(w, n->a, at), next);
    for (int32_t i = 0; i < n->least && p->status == TSR_OK; i++)
        at = write_node(w, n->a, at);
    return at;
}

/* An alternative of the whole: in a string it may begin and end anywhere, unless it says where. */
static int32_t write_whole(const regex_writer *w, const tsr_regex_node *n, int32_t next)
{
    tsr_grammar_program *p = w->program;

    if (w->parts == NULL)
        return write_node(w, n->a, next);
    const int32_t end =
        n->most != 0 ? tsr_add_word(p, "\"", next) : tsr_json_rest_of_string(w->parts, next);
    const int32_t start = write_node(w, n->a, end);
    if (n->least != 0)
        return start;
    const int32_t loop = tsr_add_hole(p);
    tsr_fill_hole(p, loop, tsr_json_character(w->parts, loop), start);
    return loop;
}

static int32_t write_node(const regex_writer *w, int32_t index, int32_t next)
{
    const tsr_regex_node *n = &w->tree->node[index];

    if (w->program->status != TSR_OK)
        return TSR_NODE_NEVER;
    switch (n->op) {
    case TSR_REGEX_SET:
        return write_set(w, n, next);
    case TSR_REGEX_JOIN:
        return write_node(w, n->a, write_node(w, n->b, next));
    case TSR_REGEX_EITHER:
        return tsr_add_split(w->program, write_node(w, n->a, next), write_node(w, n->b, next));
    case TSR_REGEX_REPEAT:
        return write_repeated(w, n, next);
    case TSR_REGEX_WHOLE:
        return write_whole(w, n, next);
    case TSR_REGEX_EMPTY:
    default:
        return next;
    }
}

static int32_t write(tsr_grammar_program *program, tsr_json_parts *parts, const char *pattern,
                     int32_t next)
{
    tsr_regex_tree *tree = calloc(1, sizeof(*tree));
    const regex_writer w = {.program = program, .parts = parts, .tree = tree};
    int32_t start = TSR_NODE_NEVER;

    if (tree == NULL) {
        program->status = TSR_ERR_MEMORY;
        return TSR_NODE_NEVER;
    }
    tsr_regex_read(program, pattern, tree);
    if (program->status == TSR_OK)
        start = write_node(&w, tree->root, next);
    free(tree);
    return start;
}

int32_t tsr_regex_text(tsr_grammar_program *program, const char *pattern, int32_t next)
{
    return write(program, NULL, pattern, next);
}

int32_t tsr_regex_string(tsr_json_parts *parts, const char *pattern, int32_t next)
{
    const int32_t start = write(parts->program, parts, pattern, next);

    return tsr_add_word(parts->program, "\"", start);
}
