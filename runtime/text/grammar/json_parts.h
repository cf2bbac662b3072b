/*
 * What JSON is made of, as parts of a program.
 *
 *   space    nothing, a blank, or one or two line ends and up to 20 blanks or tabs, which are the
 *            spaces that llama.cpp allows: a model cannot go on with them for ever
 *   number   up to 16 digits, and 16 behind the point, and an exponent of up to two
 *   string   what stands between quotes, in UTF-8 or as \uXXXX, without surrogates that stand alone
 *            and without \u0000
 */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_JSON_PARTS_H
#define TSR_RUNTIME_TEXT_GRAMMAR_JSON_PARTS_H

#include "runtime/text/grammar/program.h"

#include <jansson.h>

/* A program that JSON is put into, with the routines that it has so far; -1: not yet. */
typedef struct tsr_json_parts {
    tsr_grammar_program *program;
    int32_t space;
    int32_t character;
    int32_t string;
    int32_t name;
    int32_t value;
} tsr_json_parts;

tsr_json_parts tsr_json_parts_of(tsr_grammar_program *program);

/* Each goes on at `next`, and returns where it begins. */
int32_t tsr_json_space(tsr_json_parts *parts, int32_t next);
int32_t tsr_json_string(tsr_json_parts *parts, int32_t next);
int32_t tsr_json_number(tsr_json_parts *parts, int32_t next);
int32_t tsr_json_integer(tsr_json_parts *parts, int32_t next);
int32_t tsr_json_value(tsr_json_parts *parts, int32_t next);
int32_t tsr_json_object(tsr_json_parts *parts, int32_t next);
int32_t tsr_json_array(tsr_json_parts *parts, int32_t next);

/* Behind an opening quote, or further on: any characters, and the closing one. */
int32_t tsr_json_rest_of_string(tsr_json_parts *parts, int32_t next);

/* One character of a string. */
int32_t tsr_json_character(tsr_json_parts *parts, int32_t next);

/* A string of so many characters; most -1: any number. */
int32_t tsr_json_sized_string(tsr_json_parts *parts, int64_t least, int64_t most, int32_t next);

/* This value and no other, its strings as they are written without a need to escape. */
int32_t tsr_json_constant(tsr_json_parts *parts, const json_t *value, int32_t next);

/* A name with its quotes that is none of the keys of the object `taken`; without escapes, and where
 * one of these has a character of several bytes it does not branch off. */
int32_t tsr_json_other_name(tsr_json_parts *parts, const json_t *taken, int32_t next);

/* Behind an opening quote: characters without escapes, and the closing one. */
int32_t tsr_json_rest_of_name(tsr_json_parts *parts, int32_t next);

int32_t tsr_json_digits(tsr_json_parts *parts, int least, int most, int32_t next);

/* A character of several bytes. */
int32_t tsr_json_wide_character(tsr_grammar_program *program, int32_t next);

/* Any number of elements with commas between brackets: `one` begins an element, each of which goes on
 * at `behind`, a hole. */
int32_t tsr_json_list(tsr_json_parts *parts, const char *brackets, int32_t one, int32_t behind,
                      int32_t next);

#endif
