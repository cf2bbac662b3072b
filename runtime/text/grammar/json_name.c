/*
 * Names that are not among those given, by the tree of the given ones:
 *
 *   a, ab, x      start -a-> * -b-> *      at a star the quote may not come: that name is taken
 *                       -x-> *             any other character leads to any rest
 */
#include "runtime/text/grammar/json_parts.h"

#include <stdlib.h>
#include <string.h>

/* Names that begin alike: [first, last) of a sorted list, looked at from `depth` on. */
typedef struct name_span {
    const char **name;
    size_t first;
    size_t last;
    size_t depth;
} name_span;

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Written as it is, without an escape. */
static bool is_plain(const char *name)
{
    for (; *name != '\0'; name++) {
        if ((unsigned char)*name < ' ' || *name == '"' || *name == '\\')
            return false;
    }
    return true;
}

static int32_t branch(tsr_json_parts *parts, const name_span *span, int32_t next);

/* Every byte with which names of the span go on; `others` is left with those that none does. */
static int32_t branches(tsr_json_parts *parts, const name_span *span, tsr_byte_set *others,
                        bool *ret_wide, int32_t next)
{
    int32_t any = TSR_NODE_NEVER;

    *ret_wide = false;
    for (size_t i = span->first; i < span->last;) {
        const unsigned char byte = (unsigned char)span->name[i][span->depth];
        name_span alike = {span->name, i, i, span->depth + 1};
        while (alike.last < span->last &&
               (unsigned char)span->name[alike.last][span->depth] == byte)
            alike.last++;
        i = alike.last;
        if (byte == '\0')
            continue;
        *ret_wide = *ret_wide || byte >= 0x80;
        others->bits[byte >> 5] &= ~(1U << (byte & 31));
        any = tsr_add_split(parts->program,
                            tsr_add_bytes(parts->program, byte, byte, branch(parts, &alike, next)),
                            any);
    }
    return any;
}

static int32_t branch(tsr_json_parts *parts, const name_span *span, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const char *first = span->name[span->first];
    const unsigned char before =
        span->depth > 0 ? (unsigned char)first[span->depth - 1] : (unsigned char)' ';
    const unsigned char follows = (unsigned char)first[span->depth];
    const bool is_taken = follows == '\0';
    /* Inside of a character there is no way but the name's own. */
    const bool inside = before >= 0x80 && follows >= 0x80 && follows < 0xc0;
    tsr_byte_set others = {0};
    bool wide = false;

    tsr_byte_add(&others, ' ', 0x7f);
    others.bits['"' >> 5] &= ~(1U << ('"' & 31));
    others.bits['\\' >> 5] &= ~(1U << ('\\' & 31));
    int32_t any = branches(parts, span, &others, &wide, next);
    if (inside)
        return any;
    const int32_t rest = tsr_json_rest_of_name(parts, next);
    any = tsr_add_split(p, tsr_add_set(p, &others, rest), any);
    if (!wide)
        any = tsr_add_split(p, tsr_json_wide_character(p, rest), any);
    return is_taken ? any : tsr_add_split(p, tsr_add_word(p, "\"", next), any);
}

int32_t tsr_json_other_name(tsr_json_parts *parts, const json_t *taken, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const char **names = calloc(json_object_size(taken) + 1, sizeof(*names));
    const char *name = NULL;
    const json_t *value = NULL;
    size_t count = 0;

    if (names == NULL) {
        p->status = TSR_ERR_MEMORY;
        return TSR_NODE_NEVER;
    }
    json_object_foreach((json_t *)(uintptr_t)taken, name, value)
    {
        if (is_plain(name))
            names[count++] = name;
    }
    qsort(names, count, sizeof(*names), by_bytes);
    const name_span all = {names, 0, count, 0};
    const int32_t start =
        count > 0 ? branch(parts, &all, next) : tsr_json_rest_of_name(parts, next);
    free(names);
    return tsr_add_word(p, "\"", start);
}
