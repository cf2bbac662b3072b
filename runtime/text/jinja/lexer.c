#include "runtime/text/jinja/lexer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NESTED_MOST = 256 };

typedef struct lexer {
    const char *name;
    tsr_jinja_text text; /* newlines normalised, the last one gone */
    size_t at;
    size_t line_at; /* lines are counted up to here */
    int32_t line;
    bool line_starting; /* what was read last ended in a newline */
    tsr_arena *arena;
    tsr_problems *problems;
    tsr_jinja_tokens *tokens;
    char open[NESTED_MOST]; /* brackets that wait for their other half */
    size_t open_count;
} lexer;

static tsr_status refuse(lexer *lex, const char *what)
{
    tsr_problems_add(lex->problems, TSR_SEVERITY_ERROR, "%s: line %d: %s", lex->name,
                     (int)lex->line, what);
    return TSR_ERR_CHECKPOINT;
}

/* Lines only ever move on, so that counting them costs one pass. */
static void count_lines(lexer *lex, size_t upto)
{
    for (; lex->line_at < upto; lex->line_at++) {
        if (lex->text.bytes[lex->line_at] == '\n')
            lex->line++;
    }
}

static tsr_status push(lexer *lex, tsr_jinja_token token)
{
    tsr_jinja_tokens *tokens = lex->tokens;
    if (tokens->count == tokens->capacity) {
        const size_t capacity = tokens->capacity ? tokens->capacity * 2 : 256;
        tsr_jinja_token *grown = realloc(tokens->items, capacity * sizeof(*grown));
        if (grown == NULL)
            return TSR_ERR_MEMORY;
        tokens->items = grown;
        tokens->capacity = capacity;
    }
    token.line = lex->line;
    tokens->items[tokens->count++] = token;
    return TSR_OK;
}

static tsr_status push_kind(lexer *lex, tsr_jinja_token_kind kind, size_t from, size_t to)
{
    return push(lex,
                (tsr_jinja_token){.kind = kind, .text = tsr_jinja_text_part(lex->text, from, to)});
}

/* The byte `ahead` of where we are, zero at the end. */
static char peek(const lexer *lex, size_t ahead)
{
    const size_t at = lex->at + ahead;
    return (char)(at < lex->text.count ? lex->text.bytes[at] : '\0');
}

static bool looking_at(const lexer *lex, size_t at, const char *what)
{
    return tsr_jinja_text_starts(tsr_jinja_text_part(lex->text, at, lex->text.count),
                                 tsr_jinja_text_of(what));
}

static size_t skip_space(const lexer *lex, size_t at)
{
    while (at < lex->text.count) {
        int32_t code = 0;
        const size_t used = tsr_jinja_decode(lex->text, at, &code);
        if (!tsr_jinja_is_space(code))
            break;
        at += used;
    }
    return at;
}

/*
 * The end of a tag: `-` takes all white space behind it, `+` nothing, and a plain one the newline
 * when `trims`. Returns the byte behind it all, or zero when there is no such end here.
 */
static size_t tag_end(const lexer *lex, size_t at, const char *end, bool trims)
{
    if (looking_at(lex, at, "-") && looking_at(lex, at + 1, end))
        return skip_space(lex, at + 3);
    if (trims && looking_at(lex, at, "+") && looking_at(lex, at + 1, end))
        return at + 3;
    if (!looking_at(lex, at, end))
        return 0;
    return at + 2 + (trims && looking_at(lex, at + 2, "\n") ? 1 : 0);
}

/* Text before a tag, less what the tag's sign or lstrip_blocks takes. */
static size_t data_end(const lexer *lex, size_t from, size_t to, bool strips_line)
{
    const char sign = (char)(to + 2 < lex->text.count ? lex->text.bytes[to + 2] : '\0');
    const tsr_jinja_text data = tsr_jinja_text_part(lex->text, from, to);
    if (sign == '-')
        return from + tsr_jinja_strip(data, NULL, TSR_JINJA_SIDE_RIGHT).count;
    if (sign == '+' || !strips_line)
        return to;

    size_t line = to;
    while (line > from && lex->text.bytes[line - 1] != '\n')
        line--;
    if (line == from && !lex->line_starting)
        return to;
    return skip_space(lex, line) >= to ? line : to;
}

/* Where the next tag begins, `count` when there is none. */
static size_t next_tag(const lexer *lex)
{
    for (size_t at = lex->at; at + 1 < lex->text.count; at++) {
        const char next = lex->text.bytes[at + 1];
        if (lex->text.bytes[at] == '{' && (next == '{' || next == '%' || next == '#'))
            return at;
    }
    return lex->text.count;
}

static size_t skip_sign(const lexer *lex, size_t at)
{
    return at + (looking_at(lex, at, "-") || looking_at(lex, at, "+") ? 1 : 0);
}

/* {% raw %}: returns the byte behind it, or zero when something else begins here. */
static size_t raw_begin(const lexer *lex, size_t at, const char *word)
{
    const size_t behind = skip_space(lex, skip_sign(lex, at + 2));
    if (!looking_at(lex, behind, word))
        return 0;
    return skip_space(lex, behind + strlen(word));
}

/* Everything up to {% endraw %} is data; lex->at stands behind {% raw %}. */
static tsr_status lex_raw(lexer *lex)
{
    for (size_t at = lex->at; at + 1 < lex->text.count; at++) {
        if (!looking_at(lex, at, "{%"))
            continue;
        const size_t inside = raw_begin(lex, at, "endraw");
        const size_t behind = inside == 0 ? 0 : tag_end(lex, inside, "%}", true);
        if (behind == 0)
            continue;
        const size_t to = data_end(lex, lex->at, at, true);
        const tsr_status st =
            to > lex->at ? push_kind(lex, TSR_JINJA_TOKEN_DATA, lex->at, to) : TSR_OK;
        lex->at = behind;
        return st;
    }
    return refuse(lex, "a {% raw %} without {% endraw %}");
}

static tsr_status lex_comment(lexer *lex)
{
    for (size_t at = lex->at + 2; at + 1 < lex->text.count; at++) {
        const size_t behind = tag_end(lex, at, "#}", true);
        /* A sign right behind {# belongs to the beginning; {#-} is no whole comment. */
        if (behind != 0 && at >= skip_sign(lex, lex->at + 2)) {
            lex->at = behind;
            return TSR_OK;
        }
    }
    return refuse(lex, "a comment without its end");
}

static bool is_digit_of(char c, int base)
{
    if (base <= 10)
        return c >= '0' && c < '0' + base;
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Bytes of digits with single underscores between them, beginning `ahead`. */
static size_t digits(const lexer *lex, size_t ahead, int base)
{
    size_t n = 0;
    while (is_digit_of(peek(lex, ahead + n), base) ||
           (n > 0 && peek(lex, ahead + n) == '_' && is_digit_of(peek(lex, ahead + n + 1), base)))
        n++;
    return n;
}

/* Bytes of a float here, or zero. */
static size_t float_bytes(const lexer *lex)
{
    if (lex->at > 0 && lex->text.bytes[lex->at - 1] == '.')
        return 0;
    size_t n = digits(lex, 0, 10);
    if (n == 0)
        return 0;
    bool is_float = false;
    if (peek(lex, n) == '.' && digits(lex, n + 1, 10) > 0) {
        n += 1 + digits(lex, n + 1, 10);
        is_float = true;
    }
    if (peek(lex, n) == 'e' || peek(lex, n) == 'E') {
        const size_t sign = peek(lex, n + 1) == '+' || peek(lex, n + 1) == '-' ? 1 : 0;
        const size_t exponent = digits(lex, n + 1 + sign, 10);
        if (exponent > 0)
            return n + 1 + sign + exponent;
    }
    return is_float ? n : 0;
}

static size_t int_bytes(const lexer *lex)
{
    if (peek(lex, 0) != '0')
        return digits(lex, 0, 10);
    const char letter = (char)(peek(lex, 1) | 0x20);
    const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (base != 0) {
        const size_t gap = peek(lex, 2) == '_' ? 1 : 0;
        const size_t n = digits(lex, 2 + gap, base);
        if (n > 0)
            return 2 + gap + n;
    }
    size_t n = 1;
    while (peek(lex, n) == '0' || (peek(lex, n) == '_' && peek(lex, n + 1) == '0'))
        n++;
    return n;
}

static tsr_status lex_number(lexer *lex)
{
    size_t n = float_bytes(lex);
    tsr_jinja_token token = {.kind = n > 0 ? TSR_JINJA_TOKEN_FLOAT : TSR_JINJA_TOKEN_INT};
    n = n > 0 ? n : int_bytes(lex);
    token.text = tsr_jinja_text_part(lex->text, lex->at, lex->at + n);
    if (token.kind == TSR_JINJA_TOKEN_FLOAT) {
        if (!tsr_jinja_read_float(token.text, &token.number))
            return refuse(lex, "a number that cannot be read");
    } else if (tsr_jinja_read_int(token.text, 0, &token.integer) != TSR_JINJA_READ) {
        return refuse(lex, "an integer beyond 64 bits is not supported");
    }
    lex->at += n;
    return push(lex, token);
}

/* One escape sequence behind its backslash; returns the bytes it takes, zero when it is broken. */
static size_t unescape(tsr_jinja_text text, size_t at, tsr_text *out, tsr_status *status)
{
    static const char letters[] = "\\'\"abfnrtv";
    static const char meanings[] = "\\'\"\a\b\f\n\r\t\v";
    const char c = text.bytes[at];
    const char *letter = c == '\0' ? NULL : strchr(letters, c);
    if (c == '\n')
        return 1;
    if (letter != NULL) {
        *status = tsr_text_add(out, &meanings[letter - letters], 1);
        return 1;
    }

    size_t most = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    size_t used = most > 0 ? 1 : 0;
    const bool octal = is_digit_of(c, 8);
    const int base = octal ? 8 : 16;
    most = octal ? 3 : most;
    int32_t code = 0;
    size_t taken = 0;
    while (taken < most && at + used < text.count && is_digit_of(text.bytes[at + used], base)) {
        const char digit = text.bytes[at + used];
        code = code * base + (digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
        if (code > 0x10FFFF)
            return 0;
        used++;
        taken++;
    }
    if (c == 'N' || (!octal && taken < most) || (code >= 0xD800 && code < 0xE000))
        return 0;
    if (most == 0) {
        /* Not an escape: the backslash stays. What is not ASCII shows as Python's codec has it. */
        int32_t other = 0;
        const size_t bytes = tsr_jinja_decode(text, at, &other);
        if (other < 0x80)
            *status = tsr_text_add_format(out, "\\%c", c);
        else
            *status = tsr_text_add_format(out,
                                          other < 0x100     ? "\\x%02x"
                                          : other < 0x10000 ? "\\u%04x"
                                                            : "\\U%08x",
                                          (unsigned)other);
        return bytes;
    }
    char bytes[4];
    *status = tsr_text_add(out, bytes, tsr_jinja_encode(code, bytes));
    return used;
}

static tsr_status unescape_all(lexer *lex, tsr_jinja_text text, tsr_text *out)
{
    tsr_status st = TSR_OK;
    for (size_t at = 0; at < text.count && st == TSR_OK;) {
        const size_t next = tsr_jinja_text_find(text, tsr_jinja_text_of("\\"), at);
        const size_t plain = next == SIZE_MAX ? text.count : next;
        st = tsr_text_add(out, text.bytes + at, plain - at);
        at = plain;
        if (st != TSR_OK || at == text.count)
            continue;
        const size_t used = unescape(text, at + 1, out, &st);
        if (used == 0)
            return refuse(lex, "a string with an escape sequence that is not supported");
        at += 1 + used;
    }
    return st;
}

static tsr_status lex_text(lexer *lex)
{
    const char quote = peek(lex, 0);
    size_t to = lex->at + 1;
    while (to < lex->text.count && lex->text.bytes[to] != quote)
        to += lex->text.bytes[to] == '\\' ? 2 : 1;
    if (to >= lex->text.count)
        return refuse(lex, "a string without its closing quote");

    tsr_text built = {0};
    tsr_status st = unescape_all(lex, tsr_jinja_text_part(lex->text, lex->at + 1, to), &built);
    if (st == TSR_OK) {
        const char *copy =
            tsr_arena_text(lex->arena, built.bytes != NULL ? built.bytes : "", built.count);
        const tsr_jinja_text text = {.bytes = copy, .count = built.count};
        st = copy != NULL ? push(lex, (tsr_jinja_token){.kind = TSR_JINJA_TOKEN_TEXT, .text = text})
                          : TSR_ERR_MEMORY;
    }
    tsr_text_close(&built);
    lex->at = to + 1;
    return st;
}

static char closing(char c)
{
    return (char)(c == '(' ? ')' : c == '[' ? ']' : c == '{' ? '}' : '\0');
}

static tsr_status lex_operator(lexer *lex)
{
    static const char *const pairs[] = {"//", "**", "==", "!=", ">=", "<="};
    const char c = peek(lex, 0);
    size_t n = c != '\0' && strchr("+-/*%~[](){}<>=.:|,;", c) != NULL ? 1 : 0;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        if (looking_at(lex, lex->at, pairs[i]))
            n = 2;
    }
    if (n == 0)
        return refuse(lex, "a character that no expression can hold");

    if (closing(c) != '\0') {
        if (lex->open_count == NESTED_MOST)
            return refuse(lex, "brackets nested too deep");
        lex->open[lex->open_count++] = closing(c);
    } else if (strchr(")]}", c) != NULL) {
        if (lex->open_count == 0 || lex->open[lex->open_count - 1] != c)
            return refuse(lex, "a closing bracket that nothing opened");
        lex->open_count--;
    }
    const tsr_status st = push_kind(lex, TSR_JINJA_TOKEN_OPERATOR, lex->at, lex->at + n);
    lex->at += n;
    return st;
}

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static tsr_status lex_word(lexer *lex)
{
    const char c = peek(lex, 0);
    if (c >= '0' && c <= '9')
        return lex_number(lex);
    if (c == '\'' || c == '"')
        return lex_text(lex);
    if (!is_name_byte(c))
        return lex_operator(lex);

    size_t n = 1;
    while (is_name_byte(peek(lex, n)))
        n++;
    const tsr_status st = push_kind(lex, TSR_JINJA_TOKEN_NAME, lex->at, lex->at + n);
    lex->at += n;
    return st;
}

/* Inside {{ }} or {% %} up to its end. */
static tsr_status lex_tag(lexer *lex, bool output)
{
    const tsr_jinja_token_kind begin =
        output ? TSR_JINJA_TOKEN_OUTPUT_BEGIN : TSR_JINJA_TOKEN_BLOCK_BEGIN;
    const tsr_jinja_token_kind end =
        output ? TSR_JINJA_TOKEN_OUTPUT_END : TSR_JINJA_TOKEN_BLOCK_END;
    tsr_status st = push_kind(lex, begin, lex->at, lex->at + 2);
    lex->at = skip_sign(lex, lex->at + 2);
    lex->open_count = 0;

    while (st == TSR_OK) {
        /* Before an end's own white space and ours alike: the end is looked for first. */
        const size_t behind =
            lex->open_count > 0 ? 0 : tag_end(lex, lex->at, output ? "}}" : "%}", !output);
        if (behind != 0) {
            count_lines(lex, lex->at);
            st = push_kind(lex, end, lex->at, behind);
            lex->at = behind;
            return st;
        }
        const size_t next = skip_space(lex, lex->at);
        const bool moved = next > lex->at;
        lex->at = next;
        count_lines(lex, lex->at);
        if (lex->at >= lex->text.count)
            return refuse(lex, output ? "a {{ without its }}" : "a {% without its %}");
        if (!moved)
            st = lex_word(lex);
    }
    return st;
}

static tsr_status lex_all(lexer *lex)
{
    tsr_status st = TSR_OK;
    lex->line_starting = true;
    while (st == TSR_OK && lex->at < lex->text.count) {
        const size_t tag = next_tag(lex);
        if (tag == lex->text.count) {
            count_lines(lex, lex->at);
            st = push_kind(lex, TSR_JINJA_TOKEN_DATA, lex->at, tag);
            lex->at = tag;
            break;
        }
        const char kind = lex->text.bytes[tag + 1];
        const size_t to = data_end(lex, lex->at, tag, kind != '{');
        count_lines(lex, lex->at);
        if (to > lex->at)
            st = push_kind(lex, TSR_JINJA_TOKEN_DATA, lex->at, to);
        lex->at = tag;
        count_lines(lex, tag);

        const size_t raw = kind == '%' ? raw_begin(lex, tag, "raw") : 0;
        /* Jinja has no {% raw +%}, and its end takes no newline. */
        const size_t behind = raw == 0 ? 0 : tag_end(lex, raw, "%}", false);
        if (st == TSR_OK && behind != 0) {
            lex->line_starting = lex->text.bytes[behind - 1] == '\n';
            lex->at = behind;
            st = lex_raw(lex);
        } else if (st == TSR_OK) {
            st = kind == '#' ? lex_comment(lex) : lex_tag(lex, kind == '{');
        }
        lex->line_starting = lex->at > 0 && lex->text.bytes[lex->at - 1] == '\n';
    }
    return st;
}

/* \r\n and \r become \n; one newline at the very end goes. */
static tsr_status normalise(lexer *lex, tsr_jinja_text source)
{
    char *bytes = tsr_arena_alloc(lex->arena, source.count + 1);
    if (bytes == NULL)
        return TSR_ERR_MEMORY;
    size_t count = 0;
    for (size_t i = 0; i < source.count; i++) {
        const char c = source.bytes[i];
        if (c == '\r' && i + 1 < source.count && source.bytes[i + 1] == '\n')
            continue;
        bytes[count++] = (char)(c == '\r' ? '\n' : c);
    }
    if (count > 0 && bytes[count - 1] == '\n')
        count--;
    lex->text = (tsr_jinja_text){.bytes = bytes, .count = count};
    return TSR_OK;
}

tsr_status tsr_jinja_lex(tsr_jinja_source source, tsr_arena *arena, tsr_problems *problems,
                         tsr_jinja_tokens *tokens)
{
    lexer lex = {
        .name = source.name, .line = 1, .arena = arena, .problems = problems, .tokens = tokens};
    if (source.text.count > TSR_JINJA_SOURCE_MOST)
        return refuse(&lex, "the template is larger than 1 MiB");
    if (!tsr_jinja_utf8_valid(source.text))
        return refuse(&lex, "the template is not valid UTF-8");

    tsr_status st = normalise(&lex, source.text);
    if (st == TSR_OK)
        st = lex_all(&lex);
    if (st == TSR_OK)
        st = push_kind(&lex, TSR_JINJA_TOKEN_END, lex.at, lex.at);
    return st;
}

void tsr_jinja_tokens_close(tsr_jinja_tokens *tokens)
{
    free(tokens->items);
    *tokens = (tsr_jinja_tokens){0};
}
