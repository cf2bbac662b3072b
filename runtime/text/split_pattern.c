/*
 * The checkpoint's pattern is read construct by construct, and what is not known to mean the same
 * in both engines is refused: it would cut some words otherwise, and no one would notice. A group
 * is not repeated and steps are counted, so that no text takes time without end.
 */
#include "runtime/text/split_pattern.h"

#include "runtime/base/text_buffer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Unicode's White_Space, as members of a class. PCRE2's own \s holds U+180E besides. */
#define WHITE_SPACE                                                                                \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"

/* A word may be as long as the text, and looking for its end may go over it a few times. */
enum { MAX_PATTERN_BYTES = 4096, STEPS_PER_BYTE = 64, STEPS_AT_LEAST = 1 << 20 };

/* Case folding can join letters ("ss" and U+00DF), so these groups are known whole. */
static const char *const contractions[] = {
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    "(?i:[sdmt]|ll|ve|re)",
};

static const char *const categories[] = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl", "No", "P",
    "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs",
};

struct tsr_split_pattern {
    pcre2_code *code;
};

struct tsr_splitter {
    const tsr_split_pattern *pattern;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    const char *text;
    size_t count;
    size_t at;          /* everything before has been given */
    size_t match_first; /* of the match found last, given once `at` is there */
    size_t match_end;
};

/* What is read and what is written while a pattern is taken over. */
typedef struct reader {
    const char *at;
    tsr_text *out;
    bool may_repeat; /* the last thing read was one character */
    bool after_group;
    int32_t open_groups;
} reader;

static tsr_status copy(reader *r, size_t count)
{
    const tsr_status st = tsr_text_add(r->out, r->at, count);
    r->at += count;
    return st;
}

/* Bytes of "\p{Lu}" or "\P{Lu}" at `at`; 0 when it is not a general category. */
static size_t category_bytes(const char *at)
{
    if ((at[1] != 'p' && at[1] != 'P') || at[2] != '{')
        return 0;
    for (size_t i = 0; i < sizeof(categories) / sizeof(categories[0]); i++) {
        const size_t name = strlen(categories[i]);
        if (strncmp(at + 3, categories[i], name) == 0 && at[3 + name] == '}')
            return name + 4;
    }
    return 0;
}

static bool take_escape(reader *r, bool in_class, tsr_status *st)
{
    const char letter = r->at[1];
    if (letter == 's' || (letter == 'S' && !in_class)) {
        const char *open = letter == 's' ? "[" : "[^";
        *st = tsr_text_add_string(r->out, in_class ? "" : open);
        if (*st == TSR_OK)
            *st = tsr_text_add_string(r->out, WHITE_SPACE);
        if (*st == TSR_OK)
            *st = tsr_text_add_string(r->out, in_class ? "" : "]");
        r->at += 2;
        return true;
    }
    const size_t bytes =
        letter == 'r' || letter == 'n' || letter == 't' ? 2 : category_bytes(r->at);
    if (bytes == 0)
        return false;
    *st = copy(r, bytes);
    return true;
}

static bool is_alphanumeric(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* One member of a class: a range of ASCII letters or digits, an escape, or a literal. */
static bool take_member(reader *r, tsr_status *st)
{
    if (*r->at == '\\')
        return take_escape(r, true, st);
    if (is_alphanumeric(r->at[0]) && r->at[1] == '-' && is_alphanumeric(r->at[2])) {
        *st = copy(r, 3);
        return true;
    }
    if (*r->at == '\0' || strchr("[&-^", *r->at) != NULL)
        return false;
    *st = copy(r, 1);
    return true;
}

static bool take_class(reader *r, tsr_status *st)
{
    *st = copy(r, r->at[1] == '^' ? 2 : 1);
    if (*r->at == ']')
        return false;
    while (*st == TSR_OK && *r->at != ']') {
        if (!take_member(r, st))
            return false;
    }
    if (*st == TSR_OK)
        *st = copy(r, 1);
    return true;
}

/* Bytes of "?", "*", "+", "{2}", "{2,}" or "{2,5}" at `at`; 0 when it is none. */
static size_t quantifier_bytes(const char *at)
{
    if (*at != '\0' && strchr("?*+", *at) != NULL)
        return 1;
    if (*at != '{')
        return 0;
    const size_t low = strspn(at + 1, "0123456789");
    if (low < 1 || low > 3)
        return 0;
    const char *end = at + 1 + low;
    if (*end == ',') {
        const size_t high = strspn(end + 1, "0123456789");
        if (high > 3)
            return 0;
        end += 1 + high;
    }
    return *end == '}' ? (size_t)(end - at) + 1 : 0;
}

static bool take_group(reader *r, tsr_status *st)
{
    for (size_t i = 0; i < sizeof(contractions) / sizeof(contractions[0]); i++) {
        const size_t bytes = strlen(contractions[i]);
        if (strncmp(r->at, contractions[i], bytes) == 0) {
            *st = copy(r, bytes);
            r->after_group = true;
            return true;
        }
    }
    if (strncmp(r->at, "(?:", 3) != 0 && strncmp(r->at, "(?!", 3) != 0)
        return false;
    r->open_groups++;
    *st = copy(r, 3);
    return true;
}

/* One construct. False when it is not one of those in the header. */
static bool take_construct(reader *r, tsr_status *st)
{
    const size_t quantifier = quantifier_bytes(r->at);
    if (quantifier > 0) {
        /* a repeated group could take time exponential in the text; an optional one cannot */
        const bool optional = r->after_group && *r->at == '?';
        if (!r->may_repeat && !optional)
            return false;
        r->may_repeat = false;
        r->after_group = false;
        *st = copy(r, quantifier);
        return true;
    }

    r->may_repeat = false;
    r->after_group = false;
    switch (*r->at) {
    case '(':
        return take_group(r, st);
    case ')':
        r->after_group = true;
        *st = copy(r, 1);
        return --r->open_groups >= 0;
    case '|':
        *st = copy(r, 1);
        return true;
    case '\\':
        r->may_repeat = true;
        return take_escape(r, false, st);
    case '[':
        r->may_repeat = true;
        return take_class(r, st);
    default:
        if (strchr("^$.]{}", *r->at) != NULL)
            return false;
        /* a quantifier after a literal of several bytes would still mean the whole character */
        r->may_repeat = true;
        *st = copy(r, 1);
        return true;
    }
}

/* The pattern in PCRE2's words. */
static tsr_status translate(const char *path, const char *pattern, tsr_problems *problems,
                            tsr_text *out)
{
    reader r = {.at = pattern, .out = out};
    tsr_status st = TSR_OK;
    if (strlen(pattern) > MAX_PATTERN_BYTES) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%s: the split pattern is longer than %d bytes", path, MAX_PATTERN_BYTES);
        return TSR_ERR_CHECKPOINT;
    }
    while (st == TSR_OK && *r.at != '\0') {
        const char *before = r.at;
        if (!take_construct(&r, &st)) {
            tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                             "%s: the split pattern uses a construct that is not served, at byte "
                             "%zu: %.40s",
                             path, (size_t)(before - pattern), before);
            return TSR_ERR_CHECKPOINT;
        }
    }
    return st;
}

static tsr_status compile(const char *path, const tsr_text *source, tsr_problems *problems,
                          pcre2_code **ret_code)
{
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)(source->count ? source->bytes : ""), source->count,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, NULL);
    if (code == NULL) {
        PCRE2_UCHAR why[128] = "";
        (void)pcre2_get_error_message(error, why, sizeof(why));
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: the split pattern is not valid: %s",
                         path, (const char *)why);
        return TSR_ERR_CHECKPOINT;
    }

    uint32_t matches_empty = 1;
    (void)pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
    if (matches_empty) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%s: the split pattern matches the empty text, which is not served", path);
        pcre2_code_free(code);
        return TSR_ERR_CHECKPOINT;
    }
    /* where the system forbids generated code, matching is slower and otherwise the same */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    *ret_code = code;
    return TSR_OK;
}

tsr_status tsr_split_pattern_open(const char *path, const char *pattern, tsr_problems *problems,
                                  tsr_split_pattern **ret_pattern)
{
    tsr_text source = {0};
    tsr_split_pattern *opened = calloc(1, sizeof(*opened));
    tsr_status st = opened != NULL ? TSR_OK : TSR_ERR_MEMORY;
    if (st == TSR_OK)
        st = translate(path, pattern, problems, &source);
    if (st == TSR_OK)
        st = compile(path, &source, problems, &opened->code);
    tsr_text_close(&source);
    if (st != TSR_OK) {
        free(opened);
        return st;
    }
    *ret_pattern = opened;
    return TSR_OK;
}

void tsr_split_pattern_close(tsr_split_pattern *pattern)
{
    if (pattern == NULL)
        return;
    pcre2_code_free(pattern->code);
    free(pattern);
}

tsr_status tsr_splitter_open(const tsr_split_pattern *pattern, tsr_splitter **ret_splitter)
{
    tsr_splitter *splitter = calloc(1, sizeof(*splitter));
    if (splitter == NULL)
        return TSR_ERR_MEMORY;

    splitter->pattern = pattern;
    splitter->match = pcre2_match_data_create_from_pattern(pattern->code, NULL);
    splitter->limits = pcre2_match_context_create(NULL);
    if (splitter->match == NULL || splitter->limits == NULL) {
        tsr_splitter_close(splitter);
        return TSR_ERR_MEMORY;
    }
    *ret_splitter = splitter;
    return TSR_OK;
}

void tsr_splitter_close(tsr_splitter *splitter)
{
    if (splitter == NULL)
        return;
    pcre2_match_data_free(splitter->match);
    pcre2_match_context_free(splitter->limits);
    free(splitter);
}

void tsr_splitter_begin(tsr_splitter *splitter, const char *text, size_t count)
{
    const size_t most = (UINT32_MAX - STEPS_AT_LEAST) / STEPS_PER_BYTE;
    const size_t steps = STEPS_AT_LEAST + STEPS_PER_BYTE * (count < most ? count : most);
    (void)pcre2_set_match_limit(splitter->limits, (uint32_t)steps);
    splitter->text = text;
    splitter->count = count;
    splitter->at = 0;
    splitter->match_first = 0;
    splitter->match_end = 0;
}

/* Finds the next match at or behind `at`; the end of the text when there is none. */
static tsr_status find(tsr_splitter *splitter)
{
    int found = pcre2_match(splitter->pattern->code, (PCRE2_SPTR)splitter->text, splitter->count,
                            splitter->at, PCRE2_NO_UTF_CHECK, splitter->match, splitter->limits);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
        found = pcre2_match(splitter->pattern->code, (PCRE2_SPTR)splitter->text, splitter->count,
                            splitter->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, splitter->match,
                            splitter->limits);
    if (found == PCRE2_ERROR_NOMATCH) {
        splitter->match_first = splitter->count;
        splitter->match_end = splitter->count;
        return TSR_OK;
    }
    if (found < 0)
        return found == PCRE2_ERROR_NOMEMORY ? TSR_ERR_MEMORY : TSR_ERR_CAPACITY;

    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(splitter->match);
    splitter->match_first = range[0];
    splitter->match_end = range[1];
    return TSR_OK;
}

tsr_status tsr_splitter_next(tsr_splitter *splitter, const char **ret_word, size_t *ret_count)
{
    const size_t first = splitter->at;
    if (first < splitter->count && splitter->match_end <= first) {
        const tsr_status st = find(splitter);
        if (st != TSR_OK)
            return st;
    }
    if (first < splitter->count)
        splitter->at = splitter->match_first > first ? splitter->match_first : splitter->match_end;
    *ret_word = splitter->text + first;
    *ret_count = splitter->at - first;
    return TSR_OK;
}
