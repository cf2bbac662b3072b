/*
 * A walk through the tree of tokens, which leaves out what begins with bytes that cannot come. In a
 * string nearly all tokens may come, and most of them are plain: these are taken from a list, and the
 * walk is through the others alone.
 */
#include "runtime/text/grammar/token_mask.h"

#include <stdlib.h>
#include <string.h>

enum { KEPT = 64, WORD_BITS = 32 };

struct tsr_token_masks {
    const tsr_token_table *table;
    tsr_automaton *automaton;
    uint64_t age;     /* of the automaton, when these were found */
    uint32_t *bits;   /* [KEPT, words] */
    int32_t of[KEPT]; /* the state of each; 0: none */
    int32_t *path;    /* [longest + 1] states by depth */
    int32_t next;     /* to be overwritten */
};

tsr_status tsr_token_masks_open(const tsr_token_table *table, tsr_automaton *automaton,
                                tsr_token_masks **ret_masks)
{
    tsr_token_masks *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return TSR_ERR_MEMORY;

    m->table = table;
    m->automaton = automaton;
    m->age = tsr_automaton_age(automaton);
    m->bits = calloc((size_t)KEPT * (size_t)table->words, sizeof(*m->bits));
    m->path = calloc(table->longest + 1, sizeof(*m->path));
    if (m->bits == NULL || m->path == NULL) {
        tsr_token_masks_close(m);
        return TSR_ERR_MEMORY;
    }
    *ret_masks = m;
    return TSR_OK;
}

/* False: there was no room for a state. */
static bool walk(tsr_token_masks *m, const tsr_token_tree *tree, int32_t state, uint32_t *bits)
{
    int32_t *path = m->path;
    int32_t i = 0;

    path[0] = state;
    while (i < tree->count) {
        const tsr_token_node *n = &tree->nodes[i];
        const int32_t next = tsr_automaton_next(m->automaton, path[n->depth - 1], n->byte);
        if (next == TSR_STATE_FULL)
            return false;
        if (next == TSR_STATE_NONE) {
            i = n->behind;
            continue;
        }
        path[n->depth] = next;
        for (int32_t t = n->first; t < n->first + n->count; t++)
            bits[tree->ids[t] / WORD_BITS] |= 1U << (tree->ids[t] % WORD_BITS);
        i++;
    }
    return true;
}

static bool find(tsr_token_masks *m, int32_t state, uint32_t *bits)
{
    const tsr_state_facts facts = tsr_automaton_facts(m->automaton, state);
    const size_t bytes = (size_t)m->table->words * sizeof(*bits);

    if (facts.room >= TSR_PLAIN_CHARACTERS) {
        memcpy(bits, m->table->plain, bytes);
        return walk(m, &m->table->not_plain, state, bits);
    }
    memset(bits, 0, bytes);
    return walk(m, &m->table->all, state, bits);
}

static void check_age(tsr_token_masks *m)
{
    if (m->age == tsr_automaton_age(m->automaton))
        return;
    memset(m->of, 0, sizeof(m->of));
    m->age = tsr_automaton_age(m->automaton);
}

bool tsr_token_masks_find(tsr_token_masks *masks, int32_t *state, uint32_t *bits)
{
    tsr_token_masks *m = masks;
    const size_t words = (size_t)m->table->words;
    int kept = 0;

    check_age(m);
    tsr_automaton_rest(m->automaton);
    while (kept < KEPT && m->of[kept] != *state)
        kept++;
    if (kept < KEPT) {
        memcpy(bits, m->bits + (size_t)kept * words, words * sizeof(*bits));
        return true;
    }
    if (!find(m, *state, bits)) {
        *state = tsr_automaton_reset(m->automaton, *state);
        check_age(m);
        tsr_automaton_rest(m->automaton);
        if (*state <= TSR_STATE_NONE || !find(m, *state, bits))
            return false;
    }
    memcpy(m->bits + (size_t)m->next * words, bits, words * sizeof(*bits));
    m->of[m->next] = *state;
    m->next = (m->next + 1) % KEPT;
    return true;
}

void tsr_token_masks_close(tsr_token_masks *masks)
{
    if (masks == NULL)
        return;
    free(masks->bits);
    free(masks->path);
    free(masks);
}
