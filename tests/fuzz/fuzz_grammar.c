/*
 * Any bytes as what an answer must be: a grammar or a refusal of one line. Where it is a grammar, the
 * bytes behind a zero byte are a text: if the grammar takes it and is one of JSON, it is JSON; and
 * from wherever it leads there is a way to an end.
 */
#include "tests/fuzz/fuzz.h"

#include "runtime/base/json_file.h"
#include "runtime/text/grammar/automaton.h"
#include "runtime/text/grammar/grammar.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_WANTED = 4096, MOST_TEXT = 256, MOST_WAY = 2000 };

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* Takes the first byte that leads on, again and again; where it can end it has. */
static void find_end(tsr_automaton *a, int32_t state)
{
    for (int i = 0; i < MOST_WAY && state > TSR_STATE_NONE; i++) {
        int32_t next = TSR_STATE_NONE;
        if (tsr_automaton_facts(a, state).may_end)
            return;
        for (int byte = 0x7f; byte > 0 && next == TSR_STATE_NONE; byte--)
            next = tsr_automaton_next(a, state, (unsigned char)byte);
        for (int byte = 0x80; byte < 0x100 && next == TSR_STATE_NONE; byte++)
            next = tsr_automaton_next(a, state, (unsigned char)byte);
        must(next != TSR_STATE_NONE);
        if (next == TSR_STATE_FULL)
            return;
        state = next;
    }
}

static void run(const tsr_grammar_program *program, const char *text, size_t count)
{
    tsr_automaton *a = NULL;
    const tsr_status st = tsr_automaton_open(program, &a);
    must(st == TSR_OK || st == TSR_ERR_CAPACITY);
    if (st != TSR_OK)
        return;

    int32_t state = tsr_automaton_start(a);
    for (size_t i = 0; i < count && state > TSR_STATE_NONE; i++) {
        if (i % 16 == 15)
            state = tsr_automaton_reset(a, state);
        const int32_t next = tsr_automaton_next(a, state, (unsigned char)text[i]);
        if (next == TSR_STATE_NONE)
            break;
        state = next;
    }
    if (state > TSR_STATE_NONE)
        find_end(a, state);
    tsr_automaton_close(a);
}

/* The text that the grammar takes as it stands. */
static void check_taken(const json_t *wanted, const tsr_grammar_program *program, const char *text,
                        size_t count)
{
    tsr_automaton *a = NULL;
    if (tsr_automaton_open(program, &a) != TSR_OK)
        return;
    int32_t state = tsr_automaton_start(a);
    for (size_t i = 0; i < count; i++)
        state = tsr_automaton_next(a, state, (unsigned char)text[i]);
    const bool is_json = json_object_get(wanted, "json") != NULL ||
                         json_is_true(json_object_get(wanted, "json_object"));
    if (state > TSR_STATE_NONE && tsr_automaton_facts(a, state).may_end && is_json) {
        json_t *value = json_loadb(text, count, JSON_DECODE_ANY, NULL);
        must(value != NULL);
        json_decref(value);
    }
    tsr_automaton_close(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    const char *text = (const char *)bytes;
    const char *end = count > 0 ? memchr(text, 0, count) : NULL;
    const size_t wanted_bytes = end != NULL ? (size_t)(end - text) : count;
    const size_t rest = end != NULL ? count - wanted_bytes - 1 : 0;
    tsr_grammar_program program;
    json_error_t error;

    if (wanted_bytes > MOST_WANTED || rest > MOST_TEXT)
        return 0;
    json_t *wanted = tsr_json_loadb(text, wanted_bytes, JSON_REJECT_DUPLICATES, &error);
    const tsr_status st = tsr_grammar_compile(wanted, &program);
    must(st == TSR_OK || st == TSR_ERR_ARG);
    must((st == TSR_ERR_ARG) == (program.refusal[0] != '\0'));
    if (st == TSR_OK) {
        run(&program, text + count - rest, rest);
        check_taken(wanted, &program, text + count - rest, rest);
    }
    tsr_program_close(&program);
    json_decref(wanted);
    return 0;
}
