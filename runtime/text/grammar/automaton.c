/*
 * Places are pairs (node, frame). A frame is a node to return to and the frame above it, kept once,
 * so that equal stacks have equal numbers. A state keeps the places that wait for a byte, sorted.
 *
 *   frame 0   nothing is open          place   frame << 32 | node
 *   frame 5   return to 9, above 0
 *   frame 8   return to 4, above 5
 */
#include "runtime/text/grammar/automaton.h"

#include <stdlib.h>
#include <string.h>

enum {
    STATES = 2048,
    FRAMES = 1 << 13,
    PLACES = 1 << 18,      /* of all states */
    MOST_PLACES = 1 << 14, /* met in one step, those that wait for no byte included */
    SEEN = 2 * MOST_PLACES,
    BYTES = 256,
    UNKNOWN = -2,
    MOST_WORK = 2000000, /* places met between two rests */
};

typedef uint64_t place;

typedef struct frame {
    int32_t node; /* to return to */
    int32_t above;
    int32_t depth; /* frames above and it */
} frame;

typedef struct state_row {
    uint64_t hash;
    int32_t first; /* of its places */
    int32_t count;
    tsr_state_facts facts;
    int32_t next[BYTES];
} state_row;

struct tsr_automaton {
    const tsr_grammar_program *program;
    state_row *states; /* [STATES]; 0 is none */
    frame *frames;     /* [FRAMES] */
    frame *old_frames; /* [FRAMES] of before the last reset */
    int32_t *by_state; /* [2 * STATES] hash table of states, 0: free */
    int32_t *by_frame; /* [2 * FRAMES] of frames, 0: free */
    place *places;     /* [PLACES] */
    place *todo;       /* [MOST_PLACES] */
    place *kept;       /* [MOST_PLACES] over a reset */
    place *waiting;    /* [MOST_PLACES] of the state that is made */
    place *seen;       /* [SEEN] hash set of this step's */
    uint32_t *seen_at; /* [SEEN] of which step */
    uint32_t step;
    int32_t state_count;
    int32_t frame_count;
    int32_t place_count;
    int32_t todo_count;
    int32_t waiting_count;
    int32_t seen_count;
    bool may_end;
    bool is_full;
    int32_t work;
    int32_t start;
    uint64_t age;
};

static uint64_t mixed(uint64_t x)
{
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15U;
    return x ^ (x >> 29);
}

static place place_of(int32_t node, int32_t above)
{
    return (uint64_t)(uint32_t)above << 32 | (uint32_t)node;
}

/* The frame, made where there is none; -1 where there is no room. */
static int32_t frame_of(tsr_automaton *a, int32_t node, int32_t above)
{
    uint64_t at = mixed(place_of(node, above));

    for (;; at++) {
        int32_t *slot = &a->by_frame[at & (2 * FRAMES - 1)];
        if (*slot == 0) {
            if (a->frame_count == FRAMES)
                return -1;
            a->frames[a->frame_count] = (frame){node, above, a->frames[above].depth + 1};
            *slot = a->frame_count;
            return a->frame_count++;
        }
        if (a->frames[*slot].node == node && a->frames[*slot].above == above)
            return *slot;
    }
}

/* Notes a place that is to be looked at, once. One that could not end in time is none. */
static void meet(tsr_automaton *a, int32_t node, int32_t above)
{
    const place p = place_of(node, above);
    uint64_t at = mixed(p);

    if (a->program->nodes[node].need + a->frames[above].depth > TSR_GRAMMAR_DEPTH)
        return;
    while (a->seen_at[at & (SEEN - 1)] == a->step) {
        if (a->seen[at & (SEEN - 1)] == p)
            return;
        at++;
    }
    if (a->seen_count == MOST_PLACES || a->work++ > MOST_WORK) {
        a->is_full = true;
        return;
    }
    a->seen_at[at & (SEEN - 1)] = a->step;
    a->seen[at & (SEEN - 1)] = p;
    a->seen_count++;
    a->todo[a->todo_count++] = p;
}

/* A place's successors without a byte, or itself where it waits for one. */
static void look_at(tsr_automaton *a, place p)
{
    const tsr_grammar_node *n = &a->program->nodes[(uint32_t)p];
    const int32_t above = (int32_t)(p >> 32);
    int32_t inner = 0;

    switch ((tsr_grammar_op)n->op) {
    case TSR_OP_SET:
        a->waiting[a->waiting_count++] = p;
        break;
    case TSR_OP_SPLIT:
        meet(a, n->next, above);
        meet(a, n->other, above);
        break;
    case TSR_OP_CALL:
        inner = frame_of(a, n->next, above);
        a->is_full = a->is_full || inner < 0;
        if (inner > 0)
            meet(a, a->program->routines[n->index], inner);
        break;
    case TSR_OP_RETURN:
        a->may_end = a->may_end || above == 0;
        if (above > 0)
            meet(a, a->frames[above].node, a->frames[above].above);
        break;
    case TSR_OP_NEVER:
    default:
        break;
    }
}

static void begin_step(tsr_automaton *a)
{
    a->step++;
    a->todo_count = 0;
    a->waiting_count = 0;
    a->seen_count = 0;
    a->may_end = false;
    a->is_full = false;
}

static void follow(tsr_automaton *a)
{
    while (a->todo_count > 0 && !a->is_full)
        look_at(a, a->todo[--a->todo_count]);
}

static int by_value(const void *a, const void *b)
{
    const place x = *(const place *)a;
    const place y = *(const place *)b;
    return (x > y) - (x < y);
}

static tsr_state_facts facts_of(const tsr_automaton *a)
{
    tsr_state_facts facts = {.may_end = a->may_end, .goes_on = a->waiting_count > 0};

    for (int32_t i = 0; i < a->waiting_count; i++) {
        const int32_t room = a->program->nodes[(uint32_t)a->waiting[i]].room;
        facts.room = room > facts.room ? room : facts.room;
    }
    return facts;
}

static uint64_t hash_of(const place *places, int32_t count)
{
    uint64_t hash = 0;

    for (int32_t i = 0; i < count; i++)
        hash = mixed(hash ^ places[i]);
    return hash;
}

/* The state of the places that wait, made where it is new. */
static int32_t settle(tsr_automaton *a)
{
    const size_t bytes = (size_t)a->waiting_count * sizeof(place);

    if (a->is_full)
        return TSR_STATE_FULL;
    if (a->waiting_count == 0 && !a->may_end)
        return TSR_STATE_NONE;
    qsort(a->waiting, (size_t)a->waiting_count, sizeof(place), by_value);
    const uint64_t hash = hash_of(a->waiting, a->waiting_count) ^ (uint64_t)a->may_end;
    for (uint64_t at = hash;; at++) {
        int32_t *slot = &a->by_state[at & (2 * STATES - 1)];
        state_row *s = &a->states[*slot];
        if (*slot == 0) {
            if (a->state_count == STATES || a->waiting_count > PLACES - a->place_count)
                return TSR_STATE_FULL;
            *slot = a->state_count++;
            s = &a->states[*slot];
            *s = (state_row){hash, a->place_count, a->waiting_count, facts_of(a), {0}};
            for (int i = 0; i < BYTES; i++)
                s->next[i] = UNKNOWN;
            memcpy(a->places + a->place_count, a->waiting, bytes);
            a->place_count += a->waiting_count;
            return *slot;
        }
        if (s->hash == hash && s->count == a->waiting_count && s->facts.may_end == a->may_end &&
            memcmp(a->places + s->first, a->waiting, bytes) == 0)
            return *slot;
    }
}

static int32_t find_next(tsr_automaton *a, int32_t from, unsigned char byte)
{
    const int32_t first = a->states[from].first;
    const int32_t count = a->states[from].count;

    begin_step(a);
    for (int32_t i = first; i < first + count; i++) {
        const place p = a->places[i];
        const tsr_grammar_node *n = &a->program->nodes[(uint32_t)p];
        if (tsr_byte_in(&a->program->sets[n->index], byte))
            meet(a, n->next, (int32_t)(p >> 32));
    }
    follow(a);
    return settle(a);
}

int32_t tsr_automaton_next(tsr_automaton *automaton, int32_t state, unsigned char byte)
{
    if (state <= TSR_STATE_NONE)
        return state;
    int32_t next = automaton->states[state].next[byte];
    if (next != UNKNOWN)
        return next;
    next = find_next(automaton, state, byte);
    if (next != TSR_STATE_FULL)
        automaton->states[state].next[byte] = next;
    return next;
}

tsr_state_facts tsr_automaton_facts(const tsr_automaton *automaton, int32_t state)
{
    return automaton->states[state].facts;
}

int32_t tsr_automaton_start(const tsr_automaton *automaton)
{
    return automaton->start;
}

uint64_t tsr_automaton_age(const tsr_automaton *automaton)
{
    return automaton->age;
}

void tsr_automaton_rest(tsr_automaton *automaton)
{
    automaton->work = 0;
}

static void forget(tsr_automaton *a)
{
    frame *frames = a->frames;

    a->frames = a->old_frames;
    a->old_frames = frames;
    memset(a->by_state, 0, (size_t)2 * STATES * sizeof(*a->by_state));
    memset(a->by_frame, 0, (size_t)2 * FRAMES * sizeof(*a->by_frame));
    a->state_count = 1;
    a->frame_count = 1;
    a->place_count = 0;
    a->age++;
    begin_step(a);
    meet(a, a->program->start, 0);
    follow(a);
    a->start = settle(a);
}

/* A frame of before, from the outermost it lies in to itself. */
static int32_t frame_again(tsr_automaton *a, int32_t old)
{
    int32_t nodes[TSR_GRAMMAR_DEPTH + 1];
    int depth = 0;
    int32_t above = 0;

    for (; old != 0 && depth <= TSR_GRAMMAR_DEPTH; old = a->old_frames[old].above)
        nodes[depth++] = a->old_frames[old].node;
    while (depth > 0)
        above = frame_of(a, nodes[--depth], above);
    return above;
}

int32_t tsr_automaton_reset(tsr_automaton *automaton, int32_t kept)
{
    tsr_automaton *a = automaton;
    const state_row *s = &a->states[kept];
    const bool may_end = s->facts.may_end;
    const int32_t count = s->count;

    if (count > MOST_PLACES)
        return TSR_STATE_FULL;
    memcpy(a->kept, a->places + s->first, (size_t)count * sizeof(place));
    forget(a);
    begin_step(a);
    for (int32_t i = 0; i < count; i++)
        a->waiting[a->waiting_count++] =
            place_of((int32_t)(uint32_t)a->kept[i], frame_again(a, (int32_t)(a->kept[i] >> 32)));
    a->may_end = may_end;
    return settle(a);
}

tsr_status tsr_automaton_open(const tsr_grammar_program *program, tsr_automaton **ret_automaton)
{
    tsr_automaton *a = calloc(1, sizeof(*a));
    if (a == NULL)
        return TSR_ERR_MEMORY;

    /* Pages that never come to be used are never touched. */
    a->program = program;
    a->states = calloc(STATES, sizeof(*a->states));
    a->frames = calloc(FRAMES, sizeof(*a->frames));
    a->old_frames = calloc(FRAMES, sizeof(*a->old_frames));
    a->kept = calloc(MOST_PLACES, sizeof(*a->kept));
    a->by_state = calloc((size_t)2 * STATES, sizeof(*a->by_state));
    a->by_frame = calloc((size_t)2 * FRAMES, sizeof(*a->by_frame));
    a->places = calloc(PLACES, sizeof(*a->places));
    a->todo = calloc(MOST_PLACES, sizeof(*a->todo));
    a->waiting = calloc(MOST_PLACES, sizeof(*a->waiting));
    a->seen = calloc(SEEN, sizeof(*a->seen));
    a->seen_at = calloc(SEEN, sizeof(*a->seen_at));
    tsr_status st = TSR_OK;
    if (a->states == NULL || a->frames == NULL || a->by_state == NULL || a->by_frame == NULL ||
        a->places == NULL || a->todo == NULL || a->waiting == NULL || a->seen == NULL ||
        a->seen_at == NULL || a->old_frames == NULL || a->kept == NULL)
        st = TSR_ERR_MEMORY;
    if (st == TSR_OK) {
        forget(a);
        if (a->start <= TSR_STATE_NONE)
            st = TSR_ERR_CAPACITY;
    }
    if (st != TSR_OK) {
        tsr_automaton_close(a);
        return st;
    }
    *ret_automaton = a;
    return TSR_OK;
}

void tsr_automaton_close(tsr_automaton *automaton)
{
    if (automaton == NULL)
        return;
    free(automaton->states);
    free(automaton->frames);
    free(automaton->old_frames);
    free(automaton->kept);
    free(automaton->by_state);
    free(automaton->by_frame);
    free(automaton->places);
    free(automaton->todo);
    free(automaton->waiting);
    free(automaton->seen);
    free(automaton->seen_at);
    free(automaton);
}
