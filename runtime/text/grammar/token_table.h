/*
 * The bytes of all tokens as a tree, in the order of a walk through it:
 *
 *   node   byte  depth  behind   tokens        behind: the node after all that this one leads to
 *     0    'a'     1      3      "a"
 *     1    'b'     2      3      "ab"
 *     2 ...
 *
 * There are two: of all tokens, and of those that are not plain. Plain are up to sixteen whole
 * characters that stand for themselves in a JSON string; where so many of any kind may come,
 * all of them may. Special tokens are in neither: they end an answer or are none of its text.
 */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_TOKEN_TABLE_H
#define TSR_RUNTIME_TEXT_GRAMMAR_TOKEN_TABLE_H

#include "runtime/base/status.h"
#include "runtime/text/tokenizer.h"

enum { TSR_PLAIN_CHARACTERS = 16 };

typedef struct tsr_token_node {
    int32_t behind;
    int32_t first; /* of ids[] */
    int32_t count; /* tokens of exactly these bytes */
    uint16_t depth;
    uint8_t byte;
} tsr_token_node;

typedef struct tsr_token_tree {
    tsr_token_node *nodes; /* [count] */
    int32_t *ids;          /* [tokens] by their bytes */
    int32_t count;
    int32_t tokens;
} tsr_token_tree;

/* Zero-initialise; close with tsr_token_table_close. */
typedef struct tsr_token_table {
    const tsr_tokenizer *tokenizer; /* borrowed */
    tsr_token_tree all;
    tsr_token_tree not_plain;
    uint32_t *plain; /* [words] bits */
    int32_t ids;
    int32_t words; /* of a bit for each id */
    size_t longest;
} tsr_token_table;

/* Of the ids below `ids`. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_token_table_open(const tsr_tokenizer *tokenizer, int32_t ids,
                                             tsr_token_table *ret_table);

void tsr_token_table_close(tsr_token_table *table);

#endif
