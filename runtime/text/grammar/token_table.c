/* Tokens are sorted by their bytes; what two neighbours share is on the way to both. */
#include "runtime/text/grammar/token_table.h"

#include "runtime/text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { WORD_BITS = 32, MOST_DEPTH = UINT16_MAX };

typedef struct token_text {
    const char *bytes;
    size_t count;
    int32_t id;
} token_text;

static int by_bytes(const void *a, const void *b)
{
    const token_text *x = a;
    const token_text *y = b;
    const int order = memcmp(x->bytes, y->bytes, x->count < y->count ? x->count : y->count);

    if (order != 0)
        return order;
    if (x->count != y->count)
        return x->count < y->count ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static bool is_plain(const token_text *t)
{
    size_t characters = 0;

    for (size_t at = 0; at < t->count; characters++) {
        const unsigned char c = (unsigned char)t->bytes[at];
        tsr_utf8_kind kind;
        if (c < ' ' || c == '"' || c == '\\')
            return false;
        at += tsr_utf8_step(t->bytes + at, t->count - at, &kind);
        if (kind != TSR_UTF8_WHOLE)
            return false;
    }
    return characters <= TSR_PLAIN_CHARACTERS;
}

static size_t shared(const token_text *a, const token_text *b)
{
    size_t n = 0;

    while (n < a->count && n < b->count && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

/* Nodes of a tree: the bytes that each token does not share with the one before it. */
static size_t count_nodes(const token_text *tokens, size_t count)
{
    size_t nodes = 0;

    for (size_t i = 0; i < count; i++)
        nodes += tokens[i].count - (i > 0 ? shared(&tokens[i - 1], &tokens[i]) : 0);
    return nodes;
}

static void fill_tree(const token_text *tokens, size_t count, int32_t *path, tsr_token_tree *tree)
{
    size_t depth = 0;

    for (size_t i = 0; i < count; i++) {
        const size_t kept = i > 0 ? shared(&tokens[i - 1], &tokens[i]) : 0;
        while (depth > kept)
            tree->nodes[path[--depth]].behind = tree->count;
        for (; depth < tokens[i].count; depth++) {
            path[depth] = tree->count;
            tree->nodes[tree->count++] = (tsr_token_node){.first = tree->tokens,
                                                          .depth = (uint16_t)(depth + 1),
                                                          .byte = (uint8_t)tokens[i].bytes[depth]};
        }
        tree->nodes[path[depth - 1]].count++;
        tree->ids[tree->tokens++] = tokens[i].id;
    }
    while (depth > 0)
        tree->nodes[path[--depth]].behind = tree->count;
}

/* `longest`: bytes of the longest token. */
static tsr_status make_tree(const token_text *tokens, size_t count, size_t longest,
                            tsr_token_tree *tree)
{
    int32_t *path = calloc(longest + 1, sizeof(*path));
    tree->nodes = calloc(count_nodes(tokens, count) + 1, sizeof(*tree->nodes));
    tree->ids = calloc(count + 1, sizeof(*tree->ids));
    const bool good = path != NULL && tree->nodes != NULL && tree->ids != NULL;

    if (good)
        fill_tree(tokens, count, path, tree);
    free(path);
    return good ? TSR_OK : TSR_ERR_MEMORY;
}

/* Moves the tokens that are not plain to the front; the others become bits. Returns how many. */
static size_t set_plain_apart(token_text *tokens, size_t count, uint32_t *plain)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        if (is_plain(&tokens[i]))
            plain[tokens[i].id / WORD_BITS] |= 1U << (tokens[i].id % WORD_BITS);
        else
            tokens[kept++] = tokens[i];
    }
    return kept;
}

static size_t read_tokens(tsr_token_table *table, token_text *tokens)
{
    size_t count = 0;

    for (int32_t id = 0; id < table->ids; id++) {
        token_text t = {.id = id};
        bool special = false;
        if (!tsr_tokenizer_bytes(table->tokenizer, id, &t.bytes, &t.count, &special) || special ||
            t.count == 0 || t.count > MOST_DEPTH)
            continue;
        table->longest = t.count > table->longest ? t.count : table->longest;
        tokens[count++] = t;
    }
    qsort(tokens, count, sizeof(*tokens), by_bytes);
    return count;
}

tsr_status tsr_token_table_open(const tsr_tokenizer *tokenizer, int32_t ids,
                                tsr_token_table *ret_table)
{
    const int32_t known = tsr_tokenizer_ids(tokenizer);
    tsr_token_table table = {.tokenizer = tokenizer, .ids = ids < known ? ids : known};
    token_text *tokens = calloc((size_t)table.ids + 1, sizeof(*tokens));

    table.words = (ids + WORD_BITS - 1) / WORD_BITS;
    table.plain = calloc((size_t)table.words + 1, sizeof(*table.plain));
    tsr_status st = tokens != NULL && table.plain != NULL ? TSR_OK : TSR_ERR_MEMORY;
    if (st == TSR_OK) {
        size_t count = read_tokens(&table, tokens);
        st = make_tree(tokens, count, table.longest, &table.all);
        count = set_plain_apart(tokens, count, table.plain);
        if (st == TSR_OK)
            st = make_tree(tokens, count, table.longest, &table.not_plain);
    }
    free(tokens);
    if (st == TSR_OK)
        *ret_table = table;
    else
        tsr_token_table_close(&table);
    return st;
}

void tsr_token_table_close(tsr_token_table *table)
{
    free(table->all.nodes);
    free(table->all.ids);
    free(table->not_plain.nodes);
    free(table->not_plain.ids);
    free(table->plain);
    *table = (tsr_token_table){0};
}
