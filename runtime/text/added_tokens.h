/*
 * Tokens that are found in the text as they are written, before anything is merged: the leftmost
 * first, and of those that begin at one place the longest.
 */
#ifndef TSR_RUNTIME_TEXT_ADDED_TOKENS_H
#define TSR_RUNTIME_TEXT_ADDED_TOKENS_H

#include "runtime/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tsr_added_token {
    char *content; /* owned */
    size_t count;
    int32_t id;
    bool special;
} tsr_added_token;

/* Zero-initialise; close with tsr_added_tokens_close. */
typedef struct tsr_added_tokens {
    tsr_added_token *tokens; /* [count], sorted by content once sealed */
    size_t count;
    size_t capacity;
    size_t first_with[257]; /* tokens that begin with byte b: [first_with[b], first_with[b + 1]) */
} tsr_added_tokens;

/* `content` is not empty; copied. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_added_tokens_add(tsr_added_tokens *added, const char *content,
                                             size_t count, int32_t id, bool special);

/* After the last addition. False when two have the same content. */
bool tsr_added_tokens_seal(tsr_added_tokens *added);

/* The first token in text[from..count) and where it begins; NULL when there is none. */
const tsr_added_token *tsr_added_tokens_find(const tsr_added_tokens *added, const char *text,
                                             size_t count, size_t from, size_t *ret_first);

void tsr_added_tokens_close(tsr_added_tokens *added);

#endif
