/*
 * Every pattern is asked about every linear, tens of thousands, and about all its ancestors:
 *
 *   model.layers.3.mlp.experts.7.up_proj     its own name
 *   model.layers.3.mlp.experts.7             asked once for its three projections
 *   model.layers.3.mlp.experts               asked once for all experts, and so on up
 *
 * So the answers about the last name's ancestors are kept. Plain names are found by search, globs
 * fail at their literal parts, and an expression of the checkpoint's may take only so many steps.
 */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "runtime/checkpoint/module_name.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum {
    MATCH_LIMIT = 100000, /* what one match may cost; beyond it the expression does not match */
    MEMORY_BYTES = 512,   /* of the name before; longer names are not remembered */
};

/* What is known of the first bytes of a name; beside these, the index of the pattern it matches. */
enum { UNKNOWN = -2, UNMATCHED = -1 };

/* A pattern without wildcards, or what stands before a trailing ".*". */
typedef struct exact {
    const char *text;
    size_t length;
    size_t index;
} exact;

/* Most names fail at the literal beginning of a glob, or lack its longest literal part. */
typedef struct glob {
    const char *text;
    size_t length;
    size_t index;
    size_t prefix;      /* bytes before the first wildcard */
    const char *needed; /* [needed_length] the longest part without wildcards */
    size_t needed_length;
    bool open_end; /* ends in *: what matches an ancestor matches the name itself */
} glob;

typedef struct expression {
    pcre2_code *code;
    size_t index;
} expression;

/* Names are asked for in order, so that one shares most ancestors with the one before. */
typedef struct last_name {
    char text[MEMORY_BYTES];
    size_t length;
    int32_t matched[MEMORY_BYTES]; /* by length of the ancestor */
} last_name;

struct tsr_name_patterns {
    exact *exacts; /* [exact_count] sorted */
    glob *globs;
    expression *expressions;
    size_t exact_count;
    size_t glob_count;
    size_t expression_count;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    last_name *last;
};

/* The end of "[...]" that begins at `pattern`, or NULL when it is not closed. */
static const char *set_end(const char *pattern, const char *end)
{
    const char *at = pattern + 1;
    if (at < end && *at == '!')
        at++;
    if (at < end && *at == ']')
        at++;
    for (; at < end; at++) {
        if (*at == ']')
            return at;
    }
    return NULL;
}

static bool set_holds(const char *first, const char *last, char c)
{
    const bool negated = *first == '!';
    bool held = false;

    for (const char *at = negated ? first + 1 : first; at < last;) {
        if (at + 2 < last && at[1] == '-') {
            held = held || (at[0] <= c && c <= at[2]);
            at += 3;
        } else {
            held = held || *at == c;
            at++;
        }
    }
    return held != negated;
}

/* One element of a pattern against one character; *ret_next is where the next element begins. */
static bool element_matches(const char *pattern, const char *end, char c, const char **ret_next)
{
    const char *close = *pattern == '[' ? set_end(pattern, end) : NULL;

    *ret_next = close != NULL ? close + 1 : pattern + 1;
    if (close != NULL)
        return set_holds(pattern + 1, close, c);
    return *pattern == '?' || *pattern == c;
}

/* Where the part without wildcards that begins at `at` ends. */
static const char *literal_end(const char *at, const char *end)
{
    while (at < end && *at != '*' && *at != '?' && *at != '[')
        at++;
    return at;
}

static glob make_glob(const char *text, size_t length, size_t index)
{
    const char *end = text + length;
    const char *at = literal_end(text, end);
    glob g = {.text = text,
              .length = length,
              .index = index,
              .prefix = (size_t)(at - text),
              .needed = text,
              .needed_length = (size_t)(at - text),
              .open_end = text[length - 1] == '*'};

    while (at < end) {
        const char *close = *at == '[' ? set_end(at, end) : NULL;
        const char *first = close != NULL ? close + 1 : at + 1;
        at = literal_end(first, end);
        if ((size_t)(at - first) > g.needed_length) {
            g.needed = first;
            g.needed_length = (size_t)(at - first);
        }
    }
    return g;
}

/* False for most names that do not match, at little cost. */
static bool may_match(const glob *g, const char *name, size_t length)
{
    if (length < g->needed_length || length < g->prefix || memcmp(name, g->text, g->prefix) != 0)
        return false;
    if (g->needed == g->text || g->needed_length == 0)
        return true;

    const char *last = name + length - g->needed_length;
    for (const char *at = name; at <= last; at++) {
        at = memchr(at, g->needed[0], (size_t)(last - at) + 1);
        if (at == NULL)
            return false;
        if (memcmp(at, g->needed, g->needed_length) == 0)
            return true;
    }
    return false;
}

/* Only the last star is ever widened: what an earlier one took is enough, so this is quadratic. */
static bool glob_matches(const char *pattern, size_t pattern_length, const char *name,
                         size_t length)
{
    const char *end = pattern + pattern_length;
    const char *after_star = NULL;
    size_t star_at = 0;

    for (size_t i = 0; i < length;) {
        const char *next = pattern;
        if (pattern < end && *pattern == '*') {
            after_star = ++pattern;
            star_at = i;
        } else if (pattern < end && element_matches(pattern, end, name[i], &next)) {
            pattern = next;
            i++;
        } else if (after_star != NULL) {
            pattern = after_star;
            i = ++star_at;
        } else {
            return false;
        }
    }
    while (pattern < end && *pattern == '*')
        pattern++;
    return pattern == end;
}

static int compare_texts(const char *a, size_t a_length, const char *b, size_t b_length)
{
    const int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    if (order != 0)
        return order;
    return (a_length > b_length) - (a_length < b_length);
}

static int compare_exacts(const void *left, const void *right)
{
    const exact *a = left;
    const exact *b = right;
    return compare_texts(a->text, a->length, b->text, b->length);
}

static bool has_wildcard(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '*' || text[i] == '?' || text[i] == '[')
            return true;
    }
    return false;
}

static void add_glob(tsr_name_patterns *p, const char *text, size_t length, size_t index)
{
    if (has_wildcard(text, length)) {
        p->globs[p->glob_count++] = make_glob(text, length, index);
    } else {
        p->exacts[p->exact_count++] = (exact){text, length, index};
    }
}

/* `problems` may be NULL. */
static bool add_expression(tsr_name_patterns *p, const char *pattern, size_t index,
                           const char *file, tsr_problems *problems)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern + 3, PCRE2_ZERO_TERMINATED,
                                         PCRE2_ANCHORED | PCRE2_ENDANCHORED, &code, &at, NULL);
    if (compiled != NULL) {
        (void)pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); /* without, it is slower */
        p->expressions[p->expression_count++] = (expression){compiled, index};
        return true;
    }
    if (problems != NULL) {
        PCRE2_UCHAR text[128];
        if (pcre2_get_error_message(code, text, sizeof(text)) < 0)
            text[0] = '\0';
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%s: pattern \"%.200s\": not a regular expression: %s (at %zu)", file,
                         pattern, (const char *)text, (size_t)at);
    }
    return false;
}

static bool add_pattern(tsr_name_patterns *p, const char *pattern, size_t index, const char *file,
                        tsr_problems *problems)
{
    const size_t length = strlen(pattern);

    if (length == 0)
        return true;
    if (strncmp(pattern, "re:", 3) == 0)
        return add_expression(p, pattern, index, file, problems);
    add_glob(p, pattern, length, index);
    if (length > 2 && strcmp(pattern + length - 2, ".*") == 0)
        add_glob(p, pattern, length - 2, index);
    return true;
}

static bool make_room(tsr_name_patterns *p, size_t count)
{
    p->exacts = calloc(2 * count + 1, sizeof(*p->exacts));
    p->globs = calloc(2 * count + 1, sizeof(*p->globs));
    p->expressions = calloc(count + 1, sizeof(*p->expressions));
    p->match = pcre2_match_data_create(1, NULL);
    p->limits = pcre2_match_context_create(NULL);
    p->last = calloc(1, sizeof(*p->last));
    return p->exacts != NULL && p->globs != NULL && p->expressions != NULL && p->match != NULL &&
           p->limits != NULL && p->last != NULL;
}

tsr_status tsr_name_patterns_open(char *const *patterns, size_t count, const char *file,
                                  tsr_problems *problems, tsr_name_patterns **ret_patterns)
{
    tsr_name_patterns *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return TSR_ERR_MEMORY;

    tsr_status st = make_room(p, count) ? TSR_OK : TSR_ERR_MEMORY;
    if (st != TSR_OK)
        goto close_patterns;

    (void)pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    for (size_t i = 0; i < count; i++) {
        if (!add_pattern(p, patterns[i], i, file, problems))
            st = TSR_ERR_CHECKPOINT;
    }
    if (st != TSR_OK)
        goto close_patterns;

    qsort(p->exacts, p->exact_count, sizeof(*p->exacts), compare_exacts);
    *ret_patterns = p;
    return TSR_OK;

close_patterns:
    tsr_name_patterns_close(p);
    return st;
}

void tsr_name_patterns_close(tsr_name_patterns *patterns)
{
    if (patterns == NULL)
        return;
    for (size_t i = 0; i < patterns->expression_count; i++)
        pcre2_code_free(patterns->expressions[i].code);
    pcre2_match_data_free(patterns->match);
    pcre2_match_context_free(patterns->limits);
    free(patterns->last);
    free(patterns->expressions);
    free(patterns->globs);
    free(patterns->exacts);
    free(patterns);
}

static bool expression_matches(const tsr_name_patterns *p, const pcre2_code *code, const char *name,
                               size_t length)
{
    PCRE2_SPTR text = (PCRE2_SPTR)name;
    int found = pcre2_match(code, text, length, 0, 0, p->match, p->limits);

    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
        found = pcre2_match(code, text, length, 0, PCRE2_NO_JIT, p->match, p->limits);
    return found >= 0;
}

/* One name, ancestors not considered. `own`: it is the module's own name. */
static bool match_one(const tsr_name_patterns *p, const char *name, size_t length, bool own,
                      size_t *ret_index)
{
    const exact wanted = {.text = name, .length = length};
    const exact *found =
        bsearch(&wanted, p->exacts, p->exact_count, sizeof(*p->exacts), compare_exacts);
    if (found != NULL) {
        *ret_index = found->index;
        return true;
    }
    for (size_t i = 0; i < p->glob_count; i++) {
        const glob *g = &p->globs[i];
        if ((own || !g->open_end) && may_match(g, name, length) &&
            glob_matches(g->text, g->length, name, length)) {
            *ret_index = g->index;
            return true;
        }
    }
    for (size_t i = 0; i < p->expression_count; i++) {
        const expression *e = &p->expressions[i];
        if (expression_matches(p, e->code, name, length)) {
            *ret_index = e->index;
            return true;
        }
    }
    return false;
}

/* Forgets all ancestors of the name before that are none of `name`. */
static void remember_name(last_name *last, const char *name, size_t length)
{
    size_t common = 0;

    while (common < length && common < last->length && name[common] == last->text[common])
        common++;
    /* the name before is no ancestor of its own: of that length nothing is known */
    for (size_t i = common < last->length ? common + 1 : common; i < length; i++)
        last->matched[i] = UNKNOWN;
    memcpy(last->text, name, length);
    last->length = length;
}

/* As match_one, from memory where the name before had the same ancestor. */
static bool match_ancestor(const tsr_name_patterns *p, const char *name, size_t length,
                           size_t *ret_index)
{
    int32_t *matched = &p->last->matched[length];
    size_t index = 0;

    if (*matched == UNKNOWN)
        *matched = match_one(p, name, length, false, &index) ? (int32_t)index : UNMATCHED;
    if (*matched == UNMATCHED)
        return false;
    *ret_index = (size_t)*matched;
    return true;
}

bool tsr_name_patterns_match(const tsr_name_patterns *patterns, const char *name, size_t *ret_index)
{
    const size_t whole = strlen(name);
    const bool remembered = whole < MEMORY_BYTES;

    if (whole > 0 && match_one(patterns, name, whole, true, ret_index))
        return true;
    if (remembered)
        remember_name(patterns->last, name, whole);
    for (size_t length = whole; length > 0;) {
        do {
            length--;
        } while (length > 0 && name[length] != '.');
        if (length > 0 && (remembered ? match_ancestor(patterns, name, length, ret_index)
                                      : match_one(patterns, name, length, false, ret_index)))
            return true;
    }
    return false;
}
