/*
 * A guide is where its request stands in a shared automaton: how many outputs it has taken in, and the
 * state behind them. That is a function of the outputs alone, so a request that runs again, here or
 * in an engine after this one, is where it was.
 *
 *   outputs   | free ... </think> | held to the grammar ... |
 */
#include "runtime/text/guide_maker.h"

#include "runtime/base/json_file.h"
#include "runtime/text/grammar/grammar.h"
#include "runtime/text/grammar/token_mask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_IDLE = 4, AFTER_BYTES = 64 };

/* What requests of one text share. */
typedef struct machine {
    struct machine *next;
    char *text;
    tsr_grammar_program program;
    tsr_automaton *automaton;
    tsr_token_masks *masks;
    char after[AFTER_BYTES]; /* the answer is free up to it; "": from the start it is not */
    int32_t guides;
    uint64_t used; /* when it was last taken */
} machine;

struct tsr_guide_maker {
    tsr_token_table table;
    machine *machines;
    uint64_t clock;
};

typedef struct guide {
    tsr_guide_maker *maker;
    machine *machine;
    uint64_t age;   /* of the automaton that `state` is of */
    size_t matched; /* bytes of `after` that the free text ends with */
    int32_t taken;  /* outputs */
    int32_t state;
    bool is_free;
} guide;

static tsr_status open_automaton(tsr_grammar_program *program, tsr_automaton **ret_automaton)
{
    const tsr_status st = tsr_automaton_open(program, ret_automaton);

    if (st != TSR_ERR_CAPACITY)
        return st;
    tsr_program_refuse(program, "it begins in more ways than there is room for");
    return TSR_ERR_ARG;
}

tsr_status tsr_guide_check(const json_t *wanted, char *refusal, size_t refusal_bytes)
{
    tsr_grammar_program program;
    tsr_automaton *automaton = NULL;

    tsr_status st = tsr_grammar_compile(wanted, &program);
    if (st == TSR_OK)
        st = open_automaton(&program, &automaton);
    if (st == TSR_ERR_ARG)
        (void)snprintf(refusal, refusal_bytes, "%s", program.refusal);
    tsr_automaton_close(automaton);
    tsr_program_close(&program);
    return st;
}

static void close_machine(machine *m)
{
    if (m == NULL)
        return;
    tsr_token_masks_close(m->masks);
    tsr_automaton_close(m->automaton);
    tsr_program_close(&m->program);
    free(m->text);
    free(m);
}

static tsr_status compile(const char *text, machine *m)
{
    json_error_t error;
    json_t *wanted = tsr_json_loadb(text, strlen(text), JSON_REJECT_DUPLICATES, &error);
    const char *after = json_string_value(json_object_get(wanted, "after"));

    const tsr_status st = tsr_grammar_compile(wanted, &m->program);
    (void)snprintf(m->after, sizeof(m->after), "%s", after != NULL ? after : "");
    json_decref(wanted);
    return st;
}

/* What is wrong with the text stands in the machine's program where it is TSR_ERR_ARG. */
static tsr_status fill_machine(const tsr_guide_maker *maker, const char *text, machine *m)
{
    m->text = strdup(text);
    if (m->text == NULL)
        return TSR_ERR_MEMORY;
    if (strlen(text) > TSR_GUIDE_MOST_BYTES) {
        tsr_program_refuse(&m->program, "it is longer than %d bytes", TSR_GUIDE_MOST_BYTES);
        return TSR_ERR_ARG;
    }
    tsr_status st = compile(text, m);
    if (st == TSR_OK)
        st = open_automaton(&m->program, &m->automaton);
    return st == TSR_OK ? tsr_token_masks_open(&maker->table, m->automaton, &m->masks) : st;
}

/* Closes the one that nobody has used for the longest, where there are more than are kept. */
static void drop_idle(tsr_guide_maker *maker)
{
    machine **oldest = NULL;
    int32_t idle = 0;

    for (machine **at = &maker->machines; *at != NULL; at = &(*at)->next) {
        if ((*at)->guides > 0)
            continue;
        idle++;
        if (oldest == NULL || (*at)->used < (*oldest)->used)
            oldest = at;
    }
    if (oldest == NULL || idle <= MOST_IDLE)
        return;
    machine *m = *oldest;
    *oldest = m->next;
    close_machine(m);
}

static tsr_status find_machine(tsr_guide_maker *maker, const char *text, char *refusal,
                               size_t refusal_bytes, machine **ret_machine)
{
    machine *m = maker->machines;

    while (m != NULL && strcmp(m->text, text) != 0)
        m = m->next;
    if (m == NULL) {
        m = calloc(1, sizeof(*m));
        if (m == NULL)
            return TSR_ERR_MEMORY;
        const tsr_status st = fill_machine(maker, text, m);
        if (st != TSR_OK) {
            (void)snprintf(refusal, refusal_bytes, "%s", m->program.refusal);
            close_machine(m);
            return st;
        }
        m->next = maker->machines;
        maker->machines = m;
    }
    m->used = ++maker->clock;
    *ret_machine = m;
    return TSR_OK;
}

static void start(guide *g)
{
    g->age = tsr_automaton_age(g->machine->automaton);
    g->state = tsr_automaton_start(g->machine->automaton);
    g->is_free = g->machine->after[0] != '\0';
    g->matched = 0;
    g->taken = 0;
}

static tsr_status open_guide(void *context, const char *text, char *refusal, size_t refusal_bytes,
                             void **ret_guide)
{
    tsr_guide_maker *maker = context;
    guide *g = calloc(1, sizeof(*g));
    if (g == NULL)
        return TSR_ERR_MEMORY;

    const tsr_status st = find_machine(maker, text, refusal, refusal_bytes, &g->machine);
    if (st != TSR_OK) {
        free(g);
        return st;
    }
    g->maker = maker;
    g->machine->guides++;
    start(g);
    *ret_guide = g;
    return TSR_OK;
}

static void close_guide(void *context)
{
    guide *g = context;

    g->machine->guides--;
    drop_idle(g->maker);
    free(g);
}

/* Takes in free text; returns how many bytes were. */
static size_t take_free(guide *g, const char *bytes, size_t count)
{
    const char *after = g->machine->after;
    const size_t whole = strlen(after);

    for (size_t i = 0; i < count; i++) {
        size_t matched = g->matched;
        while (matched > 0 && after[matched] != bytes[i]) { /* the longest end that begins it too */
            size_t shorter = matched - 1;
            while (shorter > 0 && memcmp(after, after + matched - shorter, shorter) != 0)
                shorter--;
            matched = shorter;
        }
        g->matched = after[matched] == bytes[i] ? matched + 1 : 0;
        if (g->matched == whole) {
            g->is_free = false;
            return i + 1;
        }
    }
    return count;
}

static int32_t next_state(guide *g, unsigned char byte)
{
    tsr_automaton *a = g->machine->automaton;
    int32_t next = tsr_automaton_next(a, g->state, byte);

    if (next == TSR_STATE_FULL && g->state > TSR_STATE_NONE) {
        g->state = tsr_automaton_reset(a, g->state);
        g->age = tsr_automaton_age(a);
        tsr_automaton_rest(a);
        next = tsr_automaton_next(a, g->state, byte);
    }
    return next;
}

/* What a token brings behind the end of the free text, and does not fit, is part of that still. */
static void take(guide *g, int32_t id)
{
    const bool was_free = g->is_free;
    const char *bytes = NULL;
    size_t count = 0;
    bool special = false;

    if (!tsr_tokenizer_bytes(g->maker->table.tokenizer, id, &bytes, &count, &special))
        return;
    size_t at = g->is_free ? take_free(g, bytes, count) : 0;
    if (special)
        return;
    tsr_automaton_rest(g->machine->automaton);
    for (; at < count && g->state != TSR_STATE_NONE; at++)
        g->state = next_state(g, (unsigned char)bytes[at]);
    if (was_free && g->state == TSR_STATE_NONE)
        g->state = tsr_automaton_start(g->machine->automaton);
}

static tsr_guidance ask(void *context, const int32_t *outputs, int32_t count, uint32_t *bits)
{
    static const char too_many[] = "what the answer is held to has more ways to go on than there "
                                   "is room for";
    guide *g = context;
    machine *m = g->machine;

    if (g->age != tsr_automaton_age(m->automaton) || g->taken > count)
        start(g);
    while (g->taken < count)
        take(g, outputs[g->taken++]);
    if (g->is_free)
        return (tsr_guidance){.is_free = true, .may_end = true};
    if (g->state == TSR_STATE_NONE) {
        memset(bits, 0, (size_t)g->maker->table.words * sizeof(*bits));
        return (tsr_guidance){0};
    }
    if (g->state == TSR_STATE_FULL || !tsr_token_masks_find(m->masks, &g->state, bits))
        return (tsr_guidance){.why = too_many};
    g->age = tsr_automaton_age(m->automaton);
    return (tsr_guidance){.may_end = tsr_automaton_facts(m->automaton, g->state).may_end};
}

tsr_status tsr_guide_maker_open(const tsr_tokenizer *tokenizer, int32_t ids,
                                tsr_guide_maker **ret_maker)
{
    tsr_guide_maker *maker = calloc(1, sizeof(*maker));
    if (maker == NULL)
        return TSR_ERR_MEMORY;

    const tsr_status st = tsr_token_table_open(tokenizer, ids, &maker->table);
    if (st != TSR_OK) {
        free(maker);
        return st;
    }
    *ret_maker = maker;
    return TSR_OK;
}

tsr_guides tsr_guide_maker_guides(tsr_guide_maker *maker)
{
    return (tsr_guides){.open = open_guide, .ask = ask, .close = close_guide, .context = maker};
}

void tsr_guide_maker_close(tsr_guide_maker *maker)
{
    if (maker == NULL)
        return;
    while (maker->machines != NULL) {
        machine *m = maker->machines;
        maker->machines = m->next;
        close_machine(m);
    }
    tsr_token_table_close(&maker->table);
    free(maker);
}
