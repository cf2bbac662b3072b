/*
 * Nodes are added and never taken back. In the end each is told how many calls the shortest way to
 * an ending opens: what has no ending is refused, and a reader that is `depth` calls deep never
 * enters what it could not leave within TSR_GRAMMAR_DEPTH.
 */
#include "runtime/text/grammar/program.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_NODES = 256, NO_ENDING = TSR_GRAMMAR_DEPTH + 1 };

static int32_t add_node(tsr_grammar_program *p, tsr_grammar_node node)
{
    if (p->status != TSR_OK)
        return TSR_NODE_NEVER;
    if (p->count == TSR_GRAMMAR_NODES) {
        tsr_program_refuse(p, "it is larger than %d steps; ask for less, or for shorter ranges",
                           TSR_GRAMMAR_NODES);
        return TSR_NODE_NEVER;
    }
    if (p->count == p->node_room) {
        const int32_t room = p->node_room > 0 ? 2 * p->node_room : FIRST_NODES;
        tsr_grammar_node *grown = realloc(p->nodes, (size_t)room * sizeof(*grown));
        if (grown == NULL) {
            p->status = TSR_ERR_MEMORY;
            return TSR_NODE_NEVER;
        }
        p->nodes = grown;
        p->node_room = room;
    }
    node.need = NO_ENDING;
    p->nodes[p->count] = node;
    return p->count++;
}

void tsr_program_begin(tsr_grammar_program *program)
{
    *program = (tsr_grammar_program){.status = TSR_OK};
    program->sets = calloc(TSR_GRAMMAR_SETS, sizeof(*program->sets));
    program->routines = calloc(TSR_GRAMMAR_ROUTINES, sizeof(*program->routines));
    program->by_set = calloc((size_t)2 * TSR_GRAMMAR_SETS, sizeof(*program->by_set));
    if (program->sets == NULL || program->routines == NULL || program->by_set == NULL)
        program->status = TSR_ERR_MEMORY;
    (void)add_node(program, (tsr_grammar_node){.op = TSR_OP_RETURN});
    (void)add_node(program, (tsr_grammar_node){.op = TSR_OP_NEVER});
}

void tsr_program_close(tsr_grammar_program *program)
{
    free(program->nodes);
    free(program->sets);
    free(program->by_set);
    free(program->routines);
    *program = (tsr_grammar_program){0};
}

void tsr_program_refuse(tsr_grammar_program *program, const char *format, ...)
{
    va_list args;

    if (program->status != TSR_OK)
        return;
    program->status = TSR_ERR_ARG;
    va_start(args, format);
    (void)vsnprintf(program->refusal, sizeof(program->refusal), format, args);
    va_end(args);
}

void tsr_byte_add(tsr_byte_set *set, unsigned first, unsigned last)
{
    for (unsigned byte = first; byte <= last; byte++)
        set->bits[byte >> 5] |= 1U << (byte & 31);
}

static uint32_t hash_of(const tsr_byte_set *set)
{
    uint64_t hash = 0;

    for (int i = 0; i < 8; i++)
        hash = (hash ^ set->bits[i]) * 0x9e3779b97f4a7c15U;
    return (uint32_t)(hash >> 32);
}

static int32_t set_index(tsr_grammar_program *p, const tsr_byte_set *set)
{
    for (uint32_t at = hash_of(set);; at++) {
        int32_t *slot = &p->by_set[at % (2 * TSR_GRAMMAR_SETS)];
        if (*slot > 0 && memcmp(&p->sets[*slot - 1], set, sizeof(*set)) == 0)
            return *slot - 1;
        if (*slot > 0)
            continue;
        if (p->set_count == TSR_GRAMMAR_SETS) {
            tsr_program_refuse(p, "it has more than %d sets of characters", TSR_GRAMMAR_SETS);
            return 0;
        }
        p->sets[p->set_count] = *set;
        *slot = ++p->set_count;
        return *slot - 1;
    }
}

int32_t tsr_add_set(tsr_grammar_program *program, const tsr_byte_set *set, int32_t next)
{
    if (program->status != TSR_OK || next == TSR_NODE_NEVER)
        return TSR_NODE_NEVER;
    return add_node(program, (tsr_grammar_node){
                                 .op = TSR_OP_SET, .index = set_index(program, set), .next = next});
}

int32_t tsr_add_bytes(tsr_grammar_program *program, unsigned first, unsigned last, int32_t next)
{
    tsr_byte_set set = {0};

    tsr_byte_add(&set, first, last);
    return tsr_add_set(program, &set, next);
}

int32_t tsr_add_any_of(tsr_grammar_program *program, const char *bytes, int32_t next)
{
    tsr_byte_set set = {0};

    for (const char *c = bytes; *c != '\0'; c++)
        tsr_byte_add(&set, (unsigned char)*c, (unsigned char)*c);
    return tsr_add_set(program, &set, next);
}

int32_t tsr_add_text(tsr_grammar_program *program, const char *text, size_t count, int32_t next)
{
    for (size_t i = count; i-- > 0;)
        next = tsr_add_bytes(program, (unsigned char)text[i], (unsigned char)text[i], next);
    return next;
}

int32_t tsr_add_word(tsr_grammar_program *program, const char *word, int32_t next)
{
    return tsr_add_text(program, word, strlen(word), next);
}

int32_t tsr_add_split(tsr_grammar_program *program, int32_t a, int32_t b)
{
    if (a == TSR_NODE_NEVER || a == b)
        return b;
    if (b == TSR_NODE_NEVER)
        return a;
    return add_node(program, (tsr_grammar_node){.op = TSR_OP_SPLIT, .next = a, .other = b});
}

int32_t tsr_add_call(tsr_grammar_program *program, int32_t routine, int32_t next)
{
    if (next == TSR_NODE_NEVER)
        return TSR_NODE_NEVER;
    return add_node(program, (tsr_grammar_node){.op = TSR_OP_CALL, .index = routine, .next = next});
}

int32_t tsr_add_hole(tsr_grammar_program *program)
{
    return add_node(
        program,
        (tsr_grammar_node){.op = TSR_OP_SPLIT, .next = TSR_NODE_NEVER, .other = TSR_NODE_NEVER});
}

void tsr_fill_hole(tsr_grammar_program *program, int32_t hole, int32_t a, int32_t b)
{
    if (program->status != TSR_OK)
        return;
    program->nodes[hole].next = a;
    program->nodes[hole].other = b;
}

int32_t tsr_add_routine(tsr_grammar_program *program)
{
    if (program->status != TSR_OK)
        return 0;
    if (program->routine_count == TSR_GRAMMAR_ROUTINES) {
        tsr_program_refuse(program, "it has more than %d parts that are referred to",
                           TSR_GRAMMAR_ROUTINES);
        return 0;
    }
    program->routines[program->routine_count] = TSR_NODE_NEVER;
    return program->routine_count++;
}

void tsr_define_routine(tsr_grammar_program *program, int32_t routine, int32_t start)
{
    if (program->status == TSR_OK)
        program->routines[routine] = start;
}

static int larger(int a, int b)
{
    return a > b ? a : b;
}

static int need_of(const tsr_grammar_program *p, const tsr_grammar_node *n)
{
    const int next = n->op == TSR_OP_RETURN ? 0 : p->nodes[n->next].need;

    switch ((tsr_grammar_op)n->op) {
    case TSR_OP_RETURN:
        return 0;
    case TSR_OP_SET:
        return next;
    case TSR_OP_SPLIT:
        return next < p->nodes[n->other].need ? next : p->nodes[n->other].need;
    case TSR_OP_CALL:
        return larger(p->nodes[p->routines[n->index]].need + 1, next);
    case TSR_OP_NEVER:
    default:
        return NO_ENDING;
    }
}

/* True when the node's need became less. */
static bool lower_need(tsr_grammar_program *p, int32_t i)
{
    tsr_grammar_node *n = &p->nodes[i];
    const int need = need_of(p, n);

    if (need >= n->need)
        return false;
    n->need = (uint8_t)need;
    return true;
}

/* Up and down in turn, since most lead to what was added before them and the rest to what came after. */
static void find_needs(tsr_grammar_program *p)
{
    bool changed = true;

    while (changed) {
        changed = false;
        for (int32_t i = 0; i < p->count; i++)
            changed = lower_need(p, i) || changed;
        for (int32_t i = p->count; i-- > 0 && changed;)
            (void)lower_need(p, i);
    }
}

/* A walk over routines that begin with calls of others. */
typedef struct first_calls {
    const tsr_grammar_program *program;
    uint8_t *routine; /* 0: not seen, 1: under way, 2: done */
    int32_t *seen;    /* of nodes, by whom */
    int32_t *stack;   /* [count] nodes */
} first_calls;

/* Routines that the start of `routine` calls before any byte, into calls[]; spaces may be empty, but
 * no value begins with them. Returns how many. */
static int32_t calls_at_start(first_calls *w, int32_t routine, int32_t *calls, int32_t room)
{
    const tsr_grammar_program *p = w->program;
    int32_t depth = 0;
    int32_t count = 0;

    w->stack[depth++] = p->routines[routine];
    while (depth > 0) {
        const int32_t at = w->stack[--depth];
        const tsr_grammar_node *n = &p->nodes[at];
        if (w->seen[at] == routine + 1)
            continue;
        w->seen[at] = routine + 1;
        if (n->op == TSR_OP_CALL && count < room)
            calls[count++] = n->index;
        if (n->op == TSR_OP_SPLIT) {
            w->stack[depth++] = n->next;
            w->stack[depth++] = n->other;
        }
    }
    return count;
}

/* True where a routine calls itself before it has read anything. Routines are few where they nest
 * like that, so each is looked at again from every one that calls it, down to the depth of calls. */
static bool leads_back(first_calls *w, int32_t routine, int depth)
{
    enum { MOST_CALLS = 256 };
    int32_t calls[MOST_CALLS];

    if (w->routine[routine] != 0)
        return w->routine[routine] == 1;
    if (depth == TSR_GRAMMAR_DEPTH)
        return true;
    w->routine[routine] = 1;
    const int32_t count = calls_at_start(w, routine, calls, MOST_CALLS);
    for (int32_t i = 0; i < count; i++) {
        if (leads_back(w, calls[i], depth + 1))
            return true;
    }
    w->routine[routine] = 2;
    return count == MOST_CALLS;
}

static void refuse_loops(tsr_grammar_program *p)
{
    first_calls w = {.program = p,
                     .routine = calloc((size_t)p->routine_count + 1, sizeof(*w.routine)),
                     .seen = calloc((size_t)p->count, sizeof(*w.seen)),
                     .stack = calloc(2 * (size_t)p->count + 2, sizeof(*w.stack))};
    bool loops = false;

    if (w.routine == NULL || w.seen == NULL || w.stack == NULL) {
        p->status = TSR_ERR_MEMORY;
    } else {
        for (int32_t r = 0; r < p->routine_count && !loops; r++)
            loops = leads_back(&w, r, 0);
        if (loops)
            tsr_program_refuse(p, "a $ref leads back to itself, or through too many others, before "
                                  "anything is written");
    }
    free(w.routine);
    free(w.seen);
    free(w.stack);
}

tsr_status tsr_program_end(tsr_grammar_program *program, int32_t start)
{
    tsr_grammar_program *p = program;

    p->start = start;
    if (p->status == TSR_OK)
        refuse_loops(p);
    if (p->status == TSR_OK) {
        find_needs(p);
        if (p->nodes[start].need > TSR_GRAMMAR_DEPTH)
            tsr_program_refuse(p, "nothing satisfies it");
    }
    return p->status;
}
