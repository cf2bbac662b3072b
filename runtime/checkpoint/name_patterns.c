#define PCRE2_CODE_UNIT_WIDTH 8

#include "runtime/checkpoint/module_name.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* What one match of an expression may cost; beyond it the expression does not match. */
enum { MATCH_LIMIT = 100000 };

/* A pattern without wildcards, or what stands before a trailing ".*". */
typedef struct exact {
    const char *text;
    size_t length;
    size_t index;
} exact;

typedef struct glob {
    const char *text;
    size_t length;
    size_t index;
    bool open_end; /* ends in *: what matches an ancestor matches the name itself */
} glob;

typedef struct expression {
    pcre2_code *code;
    size_t index;
} expression;

struct tsr_name_patterns {
    exact *exacts; /* [exact_count] sorted */
    glob *globs;
    expression *expressions;
    size_t exact_count;
    size_t glob_count;
    size_t expression_count;
    pcre2_match_data *match;
    pcre2_match_context *limits;
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

    *ret_next = close ? close + 1 : pattern + 1;
    if (close)
        return set_holds(pattern + 1, close, c);
    return *pattern == '?' || *pattern == c;
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
        } else if (after_star) {
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
        const bool open_end = text[length - 1] == '*';
        p->globs[p->glob_count++] = (glob){text, length, index, open_end};
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
    if (compiled) {
        p->expressions[p->expression_count++] = (expression){compiled, index};
        return true;
    }
    if (problems) {
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
    return p->exacts && p->globs && p->expressions && p->match && p->limits;
}

tsr_status tsr_name_patterns_open(char *const *patterns, size_t count, const char *file,
                                  tsr_problems *problems, tsr_name_patterns **ret_patterns)
{
    tsr_name_patterns *p = calloc(1, sizeof(*p));
    if (!p)
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
    if (!patterns)
        return;
    for (size_t i = 0; i < patterns->expression_count; i++)
        pcre2_code_free(patterns->expressions[i].code);
    pcre2_match_data_free(patterns->match);
    pcre2_match_context_free(patterns->limits);
    free(patterns->expressions);
    free(patterns->globs);
    free(patterns->exacts);
    free(patterns);
}

/* One name, ancestors not considered. `own`: it is the module's own name. */
static bool match_one(const tsr_name_patterns *p, const char *name, size_t length, bool own,
                      size_t *ret_index)
{
    const exact wanted = {.text = name, .length = length};
    const exact *found =
        bsearch(&wanted, p->exacts, p->exact_count, sizeof(*p->exacts), compare_exacts);
    if (found) {
        *ret_index = found->index;
        return true;
    }
    for (size_t i = 0; i < p->glob_count; i++) {
        const glob *g = &p->globs[i];
        if ((own || !g->open_end) && glob_matches(g->text, g->length, name, length)) {
            *ret_index = g->index;
            return true;
        }
    }
    for (size_t i = 0; i < p->expression_count; i++) {
        const expression *e = &p->expressions[i];
        if (pcre2_match(e->code, (PCRE2_SPTR)name, length, 0, 0, p->match, p->limits) >= 0) {
            *ret_index = e->index;
            return true;
        }
    }
    return false;
}

bool tsr_name_patterns_match(const tsr_name_patterns *patterns, const char *name, size_t *ret_index)
{
    const size_t whole = strlen(name);

    for (size_t length = whole; length > 0;) {
        if (match_one(patterns, name, length, length == whole, ret_index))
            return true;
        do {
            length--;
        } while (length > 0 && name[length] != '.');
    }
    return false;
}
