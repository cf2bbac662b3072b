/* Routines are what recurs: a value holds values, and a string is the same wherever it stands. */
#include "runtime/text/grammar/json_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BLANKS = 20, MOST_DIGITS = 16, MOST_EXPONENT = 2, SURROGATES = 0xd8 };

tsr_json_parts tsr_json_parts_of(tsr_grammar_program *program)
{
    return (tsr_json_parts){
        .program = program, .space = -1, .character = -1, .string = -1, .name = -1, .value = -1};
}

static int32_t space_start(tsr_grammar_program *p)
{
    int32_t at = TSR_NODE_RETURN;

    for (int i = 0; i < MOST_BLANKS; i++)
        at = tsr_add_split(p, tsr_add_any_of(p, " \t", at), TSR_NODE_RETURN);
    const int32_t lines = tsr_add_split(p, tsr_add_word(p, "\n", at), at);
    const int32_t line = tsr_add_word(p, "\n", lines);
    return tsr_add_split(p, tsr_add_split(p, line, tsr_add_word(p, " ", TSR_NODE_RETURN)),
                         TSR_NODE_RETURN);
}

int32_t tsr_json_space(tsr_json_parts *parts, int32_t next)
{
    if (parts->space < 0) {
        parts->space = tsr_add_routine(parts->program);
        tsr_define_routine(parts->program, parts->space, space_start(parts->program));
    }
    return tsr_add_call(parts->program, parts->space, next);
}

int32_t tsr_json_wide_character(tsr_grammar_program *p, int32_t next)
{
    const int32_t last = tsr_add_bytes(p, 0x80, 0xbf, next);
    const int32_t two = tsr_add_bytes(p, 0x80, 0xbf, last);
    const int32_t rows[] = {
        tsr_add_bytes(p, 0xc2, 0xdf, last),
        tsr_add_bytes(p, 0xe0, 0xe0, tsr_add_bytes(p, 0xa0, 0xbf, last)),
        tsr_add_bytes(p, 0xe1, 0xec, two),
        tsr_add_bytes(p, 0xed, 0xed, tsr_add_bytes(p, 0x80, 0x9f, last)),
        tsr_add_bytes(p, 0xee, 0xef, two),
        tsr_add_bytes(p, 0xf0, 0xf0, tsr_add_bytes(p, 0x90, 0xbf, two)),
        tsr_add_bytes(p, 0xf1, 0xf3, tsr_add_bytes(p, 0x80, 0xbf, two)),
        tsr_add_bytes(p, 0xf4, 0xf4, tsr_add_bytes(p, 0x80, 0x8f, two)),
    };
    int32_t any = TSR_NODE_NEVER;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        any = tsr_add_split(p, rows[i], any);
    return any;
}

static int32_t hex_digits(tsr_grammar_program *p, int count, int32_t next)
{
    for (int i = 0; i < count; i++)
        next = tsr_add_any_of(p, "0123456789abcdefABCDEF", next);
    return next;
}

/* Behind \u: a character, or two halves of one. */
static int32_t escaped_code(tsr_grammar_program *p, int32_t next)
{
    static const char some[] = "123456789abcdefABCDEF";
    int32_t zeros = tsr_add_any_of(p, some, next);

    for (int digits = 1; digits < 3; digits++)
        zeros = tsr_add_split(p, tsr_add_any_of(p, some, hex_digits(p, digits, next)),
                              tsr_add_word(p, "0", zeros));
    const int32_t three = hex_digits(p, 3, next);
    const int32_t two = hex_digits(p, 2, next);
    const int32_t low =
        tsr_add_word(p, "\\u", tsr_add_any_of(p, "dD", tsr_add_any_of(p, "cdefCDEF", two)));
    const int32_t high = tsr_add_any_of(p, "89abAB", hex_digits(p, 2, low));
    const int32_t rows[] = {
        tsr_add_any_of(p, "123456789abcefABCEF", three),
        tsr_add_word(p, "0", zeros),
        tsr_add_any_of(p, "dD", tsr_add_split(p, tsr_add_any_of(p, "01234567", two), high)),
    };
    return tsr_add_split(p, rows[0], tsr_add_split(p, rows[1], rows[2]));
}

/* A character of a string that is not plain. */
static int32_t other_character(tsr_grammar_program *p, bool escapes, int32_t next)
{
    const int32_t wide = tsr_json_wide_character(p, next);

    if (!escapes)
        return wide;
    const int32_t code = tsr_add_word(p, "u", escaped_code(p, next));
    const int32_t escape =
        tsr_add_word(p, "\\", tsr_add_split(p, tsr_add_any_of(p, "\"\\/bfnrt", next), code));
    return tsr_add_split(p, wide, escape);
}

/* One byte of a string that stands for itself; so many may come. */
static int32_t plain_character(tsr_grammar_program *p, uint16_t room, int32_t next)
{
    tsr_byte_set plain = {0};

    tsr_byte_add(&plain, ' ', '!');
    tsr_byte_add(&plain, '#', '[');
    tsr_byte_add(&plain, ']', 0x7f);
    const int32_t node = tsr_add_set(p, &plain, next);
    if (p->status == TSR_OK && node != TSR_NODE_NEVER)
        p->nodes[node].room = room;
    return node;
}

/* Any characters, then the quote. */
static int32_t string_start(tsr_grammar_program *p, bool escapes)
{
    const int32_t loop = tsr_add_hole(p);
    const int32_t end = tsr_add_word(p, "\"", TSR_NODE_RETURN);
    const int32_t some = tsr_add_split(p, plain_character(p, TSR_GRAMMAR_ENDLESS, loop),
                                       other_character(p, escapes, loop));

    tsr_fill_hole(p, loop, some, end);
    return loop;
}

int32_t tsr_json_rest_of_string(tsr_json_parts *parts, int32_t next)
{
    tsr_grammar_program *p = parts->program;

    if (parts->string < 0) {
        parts->string = tsr_add_routine(p);
        tsr_define_routine(p, parts->string, string_start(p, true));
    }
    return tsr_add_call(p, parts->string, next);
}

int32_t tsr_json_string(tsr_json_parts *parts, int32_t next)
{
    return tsr_add_word(parts->program, "\"", tsr_json_rest_of_string(parts, next));
}

int32_t tsr_json_rest_of_name(tsr_json_parts *parts, int32_t next)
{
    tsr_grammar_program *p = parts->program;

    if (parts->name < 0) {
        parts->name = tsr_add_routine(p);
        tsr_define_routine(p, parts->name, string_start(p, false));
    }
    return tsr_add_call(p, parts->name, next);
}

static int32_t character_routine(tsr_json_parts *parts)
{
    tsr_grammar_program *p = parts->program;

    if (parts->character < 0) {
        parts->character = tsr_add_routine(p);
        tsr_define_routine(p, parts->character, other_character(p, true, TSR_NODE_RETURN));
    }
    return parts->character;
}

int32_t tsr_json_character(tsr_json_parts *parts, int32_t next)
{
    const int32_t other = tsr_add_call(parts->program, character_routine(parts), next);

    return tsr_add_split(parts->program, plain_character(parts->program, TSR_GRAMMAR_ENDLESS, next),
                         other);
}

static uint16_t room_of(int64_t characters)
{
    return characters < TSR_GRAMMAR_ENDLESS ? (uint16_t)characters : TSR_GRAMMAR_ENDLESS;
}

int32_t tsr_json_sized_string(tsr_json_parts *parts, int64_t least, int64_t most, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const int32_t character = character_routine(parts);
    const int32_t end = tsr_add_word(p, "\"", next);
    int32_t at = end;

    if (most < 0) { /* as many as there must be, then any string */
        at = tsr_json_rest_of_string(parts, next);
        most = least;
    }
    const bool endless = at != end;
    for (int64_t left = 1; left <= most && p->status == TSR_OK; left++) {
        const uint16_t room = endless ? TSR_GRAMMAR_ENDLESS : room_of(left);
        const int32_t one =
            tsr_add_split(p, plain_character(p, room, at), tsr_add_call(p, character, at));
        at = most - left < least ? one : tsr_add_split(p, one, end);
    }
    return tsr_add_word(p, "\"", at);
}

int32_t tsr_json_digits(tsr_json_parts *parts, int least, int most, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    int32_t at = next;

    for (int i = most; i > 0; i--) {
        const int32_t digit = tsr_add_bytes(p, '0', '9', at);
        at = i > least ? tsr_add_split(p, digit, next) : digit;
    }
    return at;
}

int32_t tsr_json_integer(tsr_json_parts *parts, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const int32_t more = tsr_json_digits(parts, 0, MOST_DIGITS - 1, next);
    const int32_t whole =
        tsr_add_split(p, tsr_add_word(p, "0", next), tsr_add_bytes(p, '1', '9', more));

    return tsr_add_split(p, tsr_add_word(p, "-", whole), whole);
}

int32_t tsr_json_number(tsr_json_parts *parts, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const int32_t power = tsr_json_digits(parts, 1, MOST_EXPONENT, next);
    const int32_t sign = tsr_add_split(p, tsr_add_any_of(p, "+-", power), power);
    const int32_t exponent = tsr_add_split(p, tsr_add_any_of(p, "eE", sign), next);
    const int32_t fraction = tsr_add_word(p, ".", tsr_json_digits(parts, 1, MOST_DIGITS, exponent));

    return tsr_json_integer(parts, tsr_add_split(p, fraction, exponent));
}

int32_t tsr_json_list(tsr_json_parts *parts, const char *brackets, int32_t one, int32_t behind,
                      int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const int32_t end =
        tsr_add_bytes(p, (unsigned char)brackets[1], (unsigned char)brackets[1], next);
    const int32_t comma = tsr_add_word(p, ",", tsr_json_space(parts, one));

    tsr_fill_hole(p, behind, comma, tsr_json_space(parts, end));
    return tsr_add_bytes(p, (unsigned char)brackets[0], (unsigned char)brackets[0],
                         tsr_json_space(parts, tsr_add_split(p, one, end)));
}

int32_t tsr_json_array(tsr_json_parts *parts, int32_t next)
{
    const int32_t behind = tsr_add_hole(parts->program);

    return tsr_json_list(parts, "[]", tsr_json_value(parts, behind), behind, next);
}

int32_t tsr_json_object(tsr_json_parts *parts, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const int32_t behind = tsr_add_hole(p);
    const int32_t value = tsr_json_space(parts, tsr_json_value(parts, behind));

    return tsr_json_list(parts, "{}", tsr_json_string(parts, tsr_add_word(p, ":", value)), behind,
                         next);
}

static int32_t value_start(tsr_json_parts *parts)
{
    tsr_grammar_program *p = parts->program;
    const int32_t end = TSR_NODE_RETURN;
    const int32_t kinds[] = {
        tsr_json_object(parts, end),  tsr_json_array(parts, end),   tsr_json_string(parts, end),
        tsr_json_number(parts, end),  tsr_add_word(p, "true", end), tsr_add_word(p, "false", end),
        tsr_add_word(p, "null", end),
    };
    int32_t any = TSR_NODE_NEVER;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        any = tsr_add_split(p, kinds[i], any);
    return any;
}

int32_t tsr_json_value(tsr_json_parts *parts, int32_t next)
{
    if (parts->value < 0) {
        parts->value = tsr_add_routine(parts->program);
        tsr_define_routine(parts->program, parts->value, value_start(parts));
    }
    return tsr_add_call(parts->program, parts->value, next);
}
