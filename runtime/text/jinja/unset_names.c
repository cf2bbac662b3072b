#include "runtime/text/jinja/unset_names.h"

typedef tsr_jinja_node node;

enum { FIRST_SLOTS = 8, ARENA_BYTES = 16384 };

typedef struct symbol {
    tsr_jinja_text name; /* NULL bytes: a free slot */
    bool unset;          /* begins without a value, whatever the caller gave */
} symbol;

/* The names met so far in a block. */
typedef struct layer {
    const struct layer *around;
    int32_t branches; /* of `if`s that we are in; what one sets begins as the caller gave it */
    symbol *slots;    /* [slot_count] a hash table */
    size_t slot_count;
    size_t count;
} layer;

typedef struct search {
    tsr_arena *results;
    tsr_arena *arena; /* for the time of the search */
} search;

static size_t hash_of(tsr_jinja_text name)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < name.count; i++)
        h = (h ^ (unsigned char)name.bytes[i]) * 0x100000001b3u;
    return (size_t)(h ^ h >> 32);
}

/* The slot that holds a name, or the free one where it would stand. */
static symbol *slot_of(const layer *l, tsr_jinja_text name)
{
    const size_t mask = l->slot_count - 1;
    for (size_t slot = hash_of(name) & mask;; slot = (slot + 1) & mask) {
        symbol *s = &l->slots[slot];
        if (s->name.bytes == NULL || tsr_jinja_text_equal(s->name, name))
            return s;
    }
}

/* Whether the block has met the name, or one around it has. */
static bool is_known(const layer *l, tsr_jinja_text name)
{
    for (; l != NULL; l = l->around) {
        if (l->slot_count > 0 && slot_of(l, name)->name.bytes != NULL)
            return true;
    }
    return false;
}

static tsr_status grow(search *s, layer *l)
{
    layer grown = *l;
    grown.slot_count = l->slot_count ? l->slot_count * 2 : FIRST_SLOTS;
    grown.slots = tsr_arena_array(s->arena, grown.slot_count, sizeof(*grown.slots));
    if (grown.slots == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < l->slot_count; i++) {
        if (l->slots[i].name.bytes != NULL)
            *slot_of(&grown, l->slots[i].name) = l->slots[i];
    }
    *l = grown;
    return TSR_OK;
}

/* Adds a name that the block has not met. */
static tsr_status put(search *s, layer *l, tsr_jinja_text name, bool unset)
{
    if (l->count * 2 >= l->slot_count) {
        const tsr_status st = grow(s, l);
        if (st != TSR_OK)
            return st;
    }
    *slot_of(l, name) = (symbol){.name = name, .unset = unset};
    l->count++;
    return TSR_OK;
}

static tsr_status load(search *s, layer *l, tsr_jinja_text name)
{
    return is_known(l, name) ? TSR_OK : put(s, l, name, false);
}

static tsr_status store(search *s, layer *l, tsr_jinja_text name)
{
    return is_known(l, name) ? TSR_OK : put(s, l, name, l->branches == 0);
}

static tsr_status parameter(search *s, layer *l, tsr_jinja_text name)
{
    const layer alone = {.slots = l->slots, .slot_count = l->slot_count};
    return is_known(&alone, name) ? TSR_OK : put(s, l, name, false);
}

static tsr_status read_expression(search *s, layer *l, const node *n);

static tsr_status read_items(search *s, layer *l, const node *n)
{
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < n->count && st == TSR_OK; i++)
        st = read_expression(s, l, n->items[i]);
    return st;
}

/* Loads every name in it. Long chains (1 + 1 + 1 ...) hang on one child, which takes no depth. */
static tsr_status read_expression(search *s, layer *l, const node *n)
{
    tsr_status st = TSR_OK;
    while (n != NULL && st == TSR_OK) {
        const bool chain_in_b = n->kind == TSR_JINJA_NODE_IF_ELSE;
        if (n->kind == TSR_JINJA_NODE_NAME || n->kind == TSR_JINJA_NODE_TARGET)
            return load(s, l, n->name);
        st = read_expression(s, l, chain_in_b ? n->a : n->b);
        if (st == TSR_OK)
            st = read_expression(s, l, n->c);
        if (st == TSR_OK)
            st = read_items(s, l, n);
        n = chain_in_b ? n->b : n->a;
    }
    return st;
}

typedef tsr_status (*name_step)(search *s, layer *l, tsr_jinja_text name);

static tsr_status assign(search *s, layer *l, const node *target, name_step step)
{
    tsr_status st = TSR_OK;
    if (target->kind == TSR_JINJA_NODE_TARGET)
        return load(s, l, target->name);
    if (target->kind == TSR_JINJA_NODE_NAME)
        return step(s, l, target->name);
    for (size_t i = 0; i < target->count && st == TSR_OK; i++)
        st = assign(s, l, target->items[i], step);
    return st;
}

static tsr_status read_body(search *s, layer *l, const node *body);

static tsr_status read_if(search *s, layer *l, const node *n)
{
    tsr_status st = TSR_OK;
    l->branches++;
    for (; n != NULL && n->kind == TSR_JINJA_NODE_IF && st == TSR_OK; n = n->c) {
        st = read_expression(s, l, n->a);
        if (st == TSR_OK)
            st = read_body(s, l, n->b);
    }
    if (n != NULL && st == TSR_OK)
        st = read_body(s, l, n);
    l->branches--;
    return st;
}

static tsr_status read_statement(search *s, layer *l, const node *n)
{
    tsr_status st = TSR_OK;
    switch ((int)n->kind) {
    case TSR_JINJA_NODE_OUTPUT:
        return read_expression(s, l, n->a);
    case TSR_JINJA_NODE_IF:
        return read_if(s, l, n);
    case TSR_JINJA_NODE_FOR:
    case TSR_JINJA_NODE_FILTER_BLOCK:
        return read_expression(s, l, n->b);
    case TSR_JINJA_NODE_SET:
        st = read_expression(s, l, n->b);
        return st == TSR_OK ? assign(s, l, n->a, store) : st;
    case TSR_JINJA_NODE_SET_BLOCK:
        return assign(s, l, n->a, store);
    case TSR_JINJA_NODE_MACRO:
        return store(s, l, n->name);
    default:
        return TSR_OK;
    }
}

static tsr_status read_body(search *s, layer *l, const node *body)
{
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < body->count && st == TSR_OK; i++)
        st = read_statement(s, l, body->items[i]);
    return st;
}

/* Writes down which names the block begins without. */
static tsr_status publish(search *s, const layer *l, const node *body)
{
    size_t count = 0;
    for (size_t i = 0; i < l->slot_count; i++)
        count += l->slots[i].unset ? 1 : 0;
    if (count == 0)
        return TSR_OK;
    body->unset->items = tsr_arena_array(s->results, count, sizeof(tsr_jinja_text));
    if (body->unset->items == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < l->slot_count; i++) {
        if (l->slots[i].unset)
            body->unset->items[body->unset->count++] = l->slots[i].name;
    }
    return TSR_OK;
}

static tsr_status search_inside(search *s, const layer *l, const node *body);

/* A block of its own inside the one of `l`, of which everything is known by now. */
static tsr_status search_block(search *s, layer *l, const node *body)
{
    tsr_status st = read_body(s, l, body);
    if (st == TSR_OK)
        st = publish(s, l, body);
    return st == TSR_OK ? search_inside(s, l, body) : st;
}

static tsr_status search_for(search *s, const layer *around, const node *n)
{
    layer body = {.around = around};
    layer other = {.around = around};
    tsr_status st = parameter(s, &body, tsr_jinja_text_of("loop"));
    if (st == TSR_OK)
        st = assign(s, &body, n->a, parameter);
    if (st == TSR_OK)
        st = search_block(s, &body, n->items[0]);
    if (st == TSR_OK && n->items[1] != NULL)
        st = search_block(s, &other, n->items[1]);
    return st;
}

static tsr_status search_macro(search *s, const layer *around, const node *n)
{
    layer l = {.around = around};
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < n->name_count && st == TSR_OK; i++)
        st = parameter(s, &l, n->names[i]);
    if (st == TSR_OK)
        st = read_items(s, &l, n);
    return st == TSR_OK ? search_block(s, &l, n->a) : st;
}

static tsr_status search_statement(search *s, const layer *around, const node *n)
{
    layer l = {.around = around};
    tsr_status st = TSR_OK;
    switch ((int)n->kind) {
    case TSR_JINJA_NODE_IF:
        for (; n != NULL && n->kind == TSR_JINJA_NODE_IF && st == TSR_OK; n = n->c)
            st = search_inside(s, around, n->b);
        return st == TSR_OK && n != NULL ? search_inside(s, around, n) : st;
    case TSR_JINJA_NODE_FOR:
        return search_for(s, around, n);
    case TSR_JINJA_NODE_MACRO:
        return search_macro(s, around, n);
    case TSR_JINJA_NODE_SET_BLOCK:
        return search_block(s, &l, n->b);
    case TSR_JINJA_NODE_SCOPE:
    case TSR_JINJA_NODE_FILTER_BLOCK:
        return search_block(s, &l, n->a);
    default:
        return TSR_OK;
    }
}

static tsr_status search_inside(search *s, const layer *l, const node *body)
{
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < body->count && st == TSR_OK; i++)
        st = search_statement(s, l, body->items[i]);
    return st;
}

tsr_status tsr_jinja_find_unset_names(const node *root, tsr_arena *arena)
{
    search s = {.results = arena};
    layer l = {0};
    tsr_status st = tsr_arena_open(ARENA_BYTES, &s.arena);
    if (st != TSR_OK)
        return st;
    st = search_block(&s, &l, root);
    tsr_arena_close(s.arena);
    return st;
}
