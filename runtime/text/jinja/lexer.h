/* A template's text as tokens, with white space already trimmed as trim_blocks and lstrip_blocks
 * have it. */
#ifndef TSR_RUNTIME_TEXT_JINJA_LEXER_H
#define TSR_RUNTIME_TEXT_JINJA_LEXER_H

#include "runtime/base/arena.h"
#include "runtime/base/problems.h"
#include "runtime/text/jinja/syntax.h"

typedef enum tsr_jinja_token_kind {
    TSR_JINJA_TOKEN_DATA,
    TSR_JINJA_TOKEN_OUTPUT_BEGIN,
    TSR_JINJA_TOKEN_OUTPUT_END,
    TSR_JINJA_TOKEN_BLOCK_BEGIN,
    TSR_JINJA_TOKEN_BLOCK_END,
    TSR_JINJA_TOKEN_NAME,
    TSR_JINJA_TOKEN_TEXT,
    TSR_JINJA_TOKEN_INT,
    TSR_JINJA_TOKEN_FLOAT,
    TSR_JINJA_TOKEN_OPERATOR,
    TSR_JINJA_TOKEN_END,
} tsr_jinja_token_kind;

typedef struct tsr_jinja_token {
    tsr_jinja_token_kind kind;
    int32_t line;
    tsr_jinja_text text; /* as written; a TEXT's is unescaped */
    int64_t integer;
    double number;
} tsr_jinja_token;

/* Zero-initialise; close with tsr_jinja_tokens_close. The last token is always END. */
typedef struct tsr_jinja_tokens {
    tsr_jinja_token *items; /* [count] */
    size_t count;
    size_t capacity;
} tsr_jinja_tokens;

/* Texts point into `arena`. TSR_ERR_CHECKPOINT, TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_jinja_lex(tsr_jinja_source source, tsr_arena *arena,
                                      tsr_problems *problems, tsr_jinja_tokens *tokens);

void tsr_jinja_tokens_close(tsr_jinja_tokens *tokens);

#endif
