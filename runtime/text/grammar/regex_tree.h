/* A regular expression as it was read. Private to regex.c. */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_REGEX_TREE_H
#define TSR_RUNTIME_TEXT_GRAMMAR_REGEX_TREE_H

#include "runtime/text/grammar/program.h"

enum { TSR_REGEX_NODES = 4096, TSR_REGEX_RANGES = 8192, TSR_LAST_CODE = 0x10ffff };

typedef enum tsr_regex_op {
    TSR_REGEX_EMPTY,
    TSR_REGEX_SET,    /* one character of ranges[first ... first + count) */
    TSR_REGEX_JOIN,   /* a, then b */
    TSR_REGEX_EITHER, /* a or b */
    TSR_REGEX_REPEAT, /* a, from least to most times; most -1: any number */
    TSR_REGEX_WHOLE,  /* a, anchored by least at its start and by most at its end; 0 or 1 */
} tsr_regex_op;

typedef struct tsr_regex_node {
    tsr_regex_op op;
    int32_t a;
    int32_t b;
    int32_t least;
    int32_t most;
} tsr_regex_node;

/* Code points. */
typedef struct tsr_code_range {
    int32_t first;
    int32_t last;
} tsr_code_range;

typedef struct tsr_regex_tree {
    tsr_regex_node node[TSR_REGEX_NODES];
    tsr_code_range range[TSR_REGEX_RANGES]; /* of each set ascending and apart */
    int32_t nodes;
    int32_t ranges;
    int32_t root; /* EITHER of WHOLE, or one WHOLE */
} tsr_regex_tree;

/* What is wrong with it, or cannot be had, becomes the program's refusal. */
void tsr_regex_read(tsr_grammar_program *program, const char *pattern, tsr_regex_tree *tree);

#endif
