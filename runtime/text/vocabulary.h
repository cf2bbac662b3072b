/*
 * The tokens: which id a spelling has, and which bytes an id stands for.
 *
 * tokenizer.json spells each byte as a printable character, the space as U+0120 for instance. A
 * token of such characters alone stands for those bytes, any other for its own UTF-8.
 *
 *     id   spelling      bytes        flags
 *     262  Ġthe          " the"
 *     873  <think>       "<think>"
 *     875  <|im_end|>    "<|im_end|>"   special
 */
#ifndef TSR_RUNTIME_TEXT_VOCABULARY_H
#define TSR_RUNTIME_TEXT_VOCABULARY_H

#include "runtime/base/status.h"
#include "runtime/base/text_buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TSR_MAX_TOKEN_ID = (1 << 24) - 1, TSR_MAX_TOKENS = 1 << 22 };

/* A piece of one of the two texts. */
typedef struct tsr_token {
    size_t spelling; /* offset */
    size_t bytes;    /* offset */
    uint32_t spelling_count;
    uint32_t bytes_count;
    bool present;
    bool special;
    bool added; /* not in the model's own vocabulary: no word becomes it */
} tsr_token;

/* Zero-initialise; close with tsr_vocabulary_close. */
typedef struct tsr_vocabulary {
    tsr_token *tokens; /* [ids] */
    int32_t ids;       /* highest id + 1 */
    int32_t count;     /* of present tokens */
    int32_t *slots;    /* [slot_count] a hash table: id or -1 */
    size_t slot_count; /* a power of two above twice the tokens */
    tsr_text spellings;
    tsr_text bytes;
} tsr_vocabulary;

/* Room for `count` tokens with ids below `ids`. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_vocabulary_open(tsr_vocabulary *vocabulary, size_t count, int32_t ids);
void tsr_vocabulary_close(tsr_vocabulary *vocabulary);

/* `id` must be free, and not more tokens may be added than there is room for. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_vocabulary_add(tsr_vocabulary *vocabulary, int32_t id,
                                           const char *spelling, size_t count);

/* The id of a spelling, or -1. */
int32_t tsr_vocabulary_find(const tsr_vocabulary *vocabulary, const char *spelling, size_t count);

/* Appends the spelling of bytes. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_spell(const char *bytes, size_t count, tsr_text *out);

#endif
