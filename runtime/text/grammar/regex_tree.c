/* Read by descent: alternatives of joined pieces, each an atom and how often it comes. */
#include "runtime/text/grammar/regex_tree.h"

#include "runtime/text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_DEPTH = 48, MOST_TIMES = 100000, SHOWN = 40 };

typedef struct regex_reader {
    tsr_grammar_program *program;
    tsr_regex_tree *tree;
    const char *pattern;
    const char *at;
    int depth;
} regex_reader;

static int32_t refuse(regex_reader *r, const char *what)
{
    tsr_program_refuse(r->program, "the expression at character %td, \"%.*s\": %s",
                       r->at - r->pattern, SHOWN, r->at, what);
    return 0;
}

static bool is_well(const regex_reader *r)
{
    return r->program->status == TSR_OK;
}

static int32_t add(regex_reader *r, tsr_regex_node node)
{
    if (r->tree->nodes == TSR_REGEX_NODES)
        return refuse(r, "the whole is too long");
    r->tree->node[r->tree->nodes] = node;
    return r->tree->nodes++;
}

static void add_range(regex_reader *r, int32_t first, int32_t last)
{
    if (r->tree->ranges == TSR_REGEX_RANGES) {
        (void)refuse(r, "its sets have too many parts");
        return;
    }
    r->tree->range[r->tree->ranges++] = (tsr_code_range){first, last};
}

static int by_first(const void *a, const void *b)
{
    const tsr_code_range *x = a;
    const tsr_code_range *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

/* The ranges from `first` on become ascending and apart, and those that they leave where `inverted`. */
static void settle(regex_reader *r, int32_t first, bool inverted)
{
    tsr_code_range *range = r->tree->range + first;
    const int32_t count = r->tree->ranges - first;
    int32_t kept = 0;

    if (count > 0)
        qsort(range, (size_t)count, sizeof(*range), by_first);
    for (int32_t i = 0; i < count; i++) {
        if (kept > 0 && range[i].first <= range[kept - 1].last + 1)
            range[kept - 1].last =
                range[i].last > range[kept - 1].last ? range[i].last : range[kept - 1].last;
        else
            range[kept++] = range[i];
    }
    r->tree->ranges = first + kept;
    if (!inverted)
        return;
    int32_t from = 0;
    for (int32_t i = 0; i < kept; i++) {
        const tsr_code_range taken = range[i];
        range[i] = (tsr_code_range){from, taken.first - 1};
        from = taken.last + 1;
    }
    add_range(r, from, TSR_LAST_CODE);
    kept = 0;
    for (int32_t i = first; i < r->tree->ranges; i++) {
        if (r->tree->range[i].first <= r->tree->range[i].last)
            range[kept++] = r->tree->range[i];
    }
    r->tree->ranges = first + kept;
}

/* \d, \w, \s, or what they leave. False: `c` names no set. */
static bool add_class(regex_reader *r, char c)
{
    const int32_t first = r->tree->ranges;

    switch (c | 0x20) {
    case 'd':
        add_range(r, '0', '9');
        break;
    case 'w':
        add_range(r, '0', '9');
        add_range(r, 'A', 'Z');
        add_range(r, '_', '_');
        add_range(r, 'a', 'z');
        break;
    case 's':
        add_range(r, '\t', '\r');
        add_range(r, ' ', ' ');
        break;
    default:
        return false;
    }
    if (is_well(r))
        settle(r, first, (c & 0x20) == 0);
    return true;
}

static int32_t hex_code(regex_reader *r, int digits)
{
    int32_t code = 0;

    for (int i = 0; i < digits; i++, r->at++) {
        const char c = *r->at;
        if (c >= '0' && c <= '9')
            code = code * 16 + c - '0';
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            code = code * 16 + (c | 0x20) - 'a' + 10;
        else
            return refuse(r, "a hexadecimal digit is missing");
    }
    return code;
}

/* Behind a backslash: a character. */
static int32_t escaped(regex_reader *r)
{
    static const char names[] = "ntrfv";
    static const char codes[] = "\n\t\r\f\v";
    const char c = *r->at;
    const char *name = c != '\0' ? strchr(names, c) : NULL;

    if (name != NULL) {
        r->at++;
        return codes[name - names];
    }
    if (c == 'x' || c == 'u') {
        r->at++;
        return hex_code(r, c == 'x' ? 2 : 4);
    }
    if (c == '\0' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return refuse(r, "this escape is not served");
    r->at++;
    return (unsigned char)c;
}

/* A character as it stands; the pattern is UTF-8. */
static int32_t plain(regex_reader *r)
{
    tsr_utf8_kind kind;
    const size_t count = tsr_utf8_step(r->at, strlen(r->at), &kind);
    const int32_t code = kind == TSR_UTF8_WHOLE ? (int32_t)tsr_utf8_decode(r->at, count) : 0;

    if (kind != TSR_UTF8_WHOLE)
        return refuse(r, "this is no UTF-8");
    r->at += count;
    return code;
}

/* One end of a range in brackets; false where it was a class, which has been added. */
static bool range_end(regex_reader *r, int32_t *ret_code)
{
    if (*r->at != '\\') {
        *ret_code = plain(r);
        return true;
    }
    r->at++;
    if (add_class(r, *r->at)) {
        r->at++;
        return false;
    }
    if (*r->at == 'b') {
        (void)refuse(r, "this escape is not served");
        return false;
    }
    *ret_code = escaped(r);
    return true;
}

/* Behind the opening bracket. */
static int32_t read_set(regex_reader *r)
{
    const int32_t first = r->tree->ranges;
    const bool inverted = *r->at == '^';

    r->at += inverted;
    while (is_well(r) && *r->at != ']') {
        int32_t from = 0;
        int32_t to = 0;
        if (*r->at == '\0')
            return refuse(r, "] is missing");
        if (*r->at == '[' && (r->at[1] == ':' || r->at[1] == '['))
            return refuse(r, "sets in sets are not served");
        if (!range_end(r, &from))
            continue;
        to = from;
        if (r->at[0] == '-' && r->at[1] != ']' && r->at[1] != '\0') {
            r->at++;
            if (!range_end(r, &to))
                return refuse(r, "a range has no end");
        }
        if (to < from)
            return refuse(r, "a range goes down");
        add_range(r, from, to);
    }
    if (!is_well(r))
        return 0;
    r->at++;
    settle(r, first, inverted);
    return add(r, (tsr_regex_node){.op = TSR_REGEX_SET, .a = first, .b = r->tree->ranges - first});
}

static int32_t read_any(regex_reader *r)
{
    const int32_t first = r->tree->ranges;

    add_range(r, '\n', '\n');
    add_range(r, '\r', '\r');
    add_range(r, 0x2028, 0x2029);
    if (is_well(r))
        settle(r, first, true);
    return add(r, (tsr_regex_node){.op = TSR_REGEX_SET, .a = first, .b = r->tree->ranges - first});
}

static int32_t read_either(regex_reader *r);

/* Behind the opening parenthesis. */
static int32_t read_group(regex_reader *r)
{
    if (r->at[0] == '?' && r->at[1] == ':') {
        r->at += 2;
    } else if (r->at[0] == '?') {
        const char *name = r->at + 1 + (r->at[1] == 'P');
        const char *end = strchr(name, '>');
        if (name[0] != '<' || name[1] == '=' || name[1] == '!' || end == NULL)
            return refuse(r, "what begins with (? is not served, but for (?: and (?<name>");
        r->at = end + 1;
    }
    if (++r->depth > MOST_DEPTH)
        return refuse(r, "parentheses are nested too deep");
    const int32_t inside = read_either(r);
    r->depth--;
    if (!is_well(r))
        return 0;
    if (*r->at != ')')
        return refuse(r, ") is missing");
    r->at++;
    return inside;
}

static int32_t read_atom(regex_reader *r)
{
    const int32_t first = r->tree->ranges;
    const char c = *r->at;

    if (strchr("*+?{^$", c) != NULL)
        return refuse(r, c == '^' || c == '$' ? "^ and $ are served at the ends of the whole alone"
                                              : "there is nothing to repeat");
    if (c == '(' || c == '[' || c == '.') {
        r->at++;
        return c == '(' ? read_group(r) : (c == '[' ? read_set(r) : read_any(r));
    }
    if (c == '\\') {
        r->at++;
        if (add_class(r, *r->at)) {
            r->at++;
            return add(
                r, (tsr_regex_node){.op = TSR_REGEX_SET, .a = first, .b = r->tree->ranges - first});
        }
    }
    const int32_t code = c == '\\' ? escaped(r) : plain(r);
    add_range(r, code, code);
    return add(r, (tsr_regex_node){.op = TSR_REGEX_SET, .a = first, .b = 1});
}

static int32_t read_number(regex_reader *r)
{
    int32_t number = 0;

    if (*r->at < '0' || *r->at > '9')
        return refuse(r, "a number of times is expected");
    for (; *r->at >= '0' && *r->at <= '9'; r->at++) {
        number = number * 10 + *r->at - '0';
        if (number > MOST_TIMES)
            return refuse(r, "more times than are served");
    }
    return number;
}

/* {n}, {n,}, {n,m} behind the brace. */
static void read_times(regex_reader *r, int32_t *least, int32_t *most)
{
    *least = read_number(r);
    *most = *least;
    if (*r->at == ',') {
        r->at++;
        *most = *r->at == '}' ? -1 : read_number(r);
    }
    if (is_well(r) && (*r->at != '}' || (*most >= 0 && *most < *least)))
        (void)refuse(r, "this is no number of times");
    if (is_well(r))
        r->at++;
}

static int32_t read_piece(regex_reader *r)
{
    int32_t node = read_atom(r);

    while (is_well(r) && *r->at != '\0' && strchr("*+?{", *r->at) != NULL) {
        const char c = *r->at++;
        int32_t least = c == '+' ? 1 : 0;
        int32_t most = c == '?' ? 1 : -1;
        if (c == '{')
            read_times(r, &least, &most);
        if (is_well(r) && *r->at == '+')
            return refuse(r, "what gives nothing back is not served");
        if (is_well(r) && *r->at == '?')
            r->at++;
        node = add(
            r, (tsr_regex_node){.op = TSR_REGEX_REPEAT, .a = node, .least = least, .most = most});
    }
    return node;
}

/* True where an alternative of this depth ends. */
static bool is_over(const regex_reader *r)
{
    return *r->at == '\0' || *r->at == '|' || (*r->at == ')' && r->depth > 0) ||
           (*r->at == '$' && r->depth == 0 && (r->at[1] == '\0' || r->at[1] == '|'));
}

static int32_t read_joined(regex_reader *r)
{
    const bool from_start = r->depth == 0 && *r->at == '^';

    r->at += from_start;
    int32_t node = add(r, (tsr_regex_node){.op = TSR_REGEX_EMPTY});
    while (is_well(r) && !is_over(r)) {
        if (*r->at == ')')
            return refuse(r, "nothing was opened");
        const int32_t piece = read_piece(r);
        node = add(r, (tsr_regex_node){.op = TSR_REGEX_JOIN, .a = node, .b = piece});
    }
    if (r->depth > 0 || !is_well(r))
        return node;
    const bool to_end = *r->at == '$';
    r->at += to_end;
    return add(
        r, (tsr_regex_node){.op = TSR_REGEX_WHOLE, .a = node, .least = from_start, .most = to_end});
}

static int32_t read_either(regex_reader *r)
{
    int32_t node = read_joined(r);

    while (is_well(r) && *r->at == '|') {
        r->at++;
        const int32_t other = read_joined(r);
        node = add(r, (tsr_regex_node){.op = TSR_REGEX_EITHER, .a = node, .b = other});
    }
    return node;
}

void tsr_regex_read(tsr_grammar_program *program, const char *pattern, tsr_regex_tree *tree)
{
    regex_reader r = {.program = program, .tree = tree, .pattern = pattern, .at = pattern};

    tree->nodes = 0;
    tree->ranges = 0;
    tree->root = read_either(&r);
}
