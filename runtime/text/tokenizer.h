/*
 * Byte-level BPE from tokenizer.json: added tokens are found in the raw text first, the rest is
 * normalised (NFC, when the file says so), split by the file's pattern, and merged by rank.
 *
 * Text is UTF-8; invalid bytes are replaced by U+FFFD, as the reference does. Thread-safe once
 * open.
 */
#ifndef TSR_RUNTIME_TEXT_TOKENIZER_H
#define TSR_RUNTIME_TEXT_TOKENIZER_H

#include "runtime/base/problems.h"
#include "runtime/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tsr_tokenizer tsr_tokenizer;

/*
 * Reads FOLDER/tokenizer.json. What it cannot do exactly (another model type, pattern, normalizer)
 * is refused by name in `problems`.
 *
 * TSR_ERR_CHECKPOINT, TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_tokenizer_open(const char *folder, tsr_problems *problems,
                                           tsr_tokenizer **ret_tokenizer);

/* The same from the bytes of a tokenizer.json; `name` stands for the file in messages. */
TSR_MUST_USE tsr_status tsr_tokenizer_parse(const char *name, const char *bytes, size_t count,
                                            tsr_problems *problems, tsr_tokenizer **ret_tokenizer);

/* NULL is allowed. */
void tsr_tokenizer_close(tsr_tokenizer *tokenizer);

/* Highest id + 1: rows of the vocabulary at and beyond it are padding. */
int32_t tsr_tokenizer_ids(const tsr_tokenizer *tokenizer);

/* The most bytes that one id stands for. */
size_t tsr_tokenizer_longest_token(const tsr_tokenizer *tokenizer);

/* A growing list of ids. Zero-initialise; close with tsr_ids_close. */
typedef struct tsr_ids {
    int32_t *ids; /* [count] */
    size_t count;
    size_t capacity;
    size_t most; /* no more are added than these; 0: any number */
    bool full;   /* there were more */
} tsr_ids;
void tsr_ids_close(tsr_ids *ids);

/*
 * Appends the ids of `count` bytes of text. No token is added that the text does not hold (chat
 * templates write their own). With `plain` the spellings of special tokens are ordinary text; added
 * tokens that are not special ("<think>") are found all the same.
 *
 * TSR_ERR_MEMORY
 * TSR_ERR_CAPACITY: there are more than ids->most, and ids->full says so; a word of 1 GiB, or one that the pattern cannot
 * end in time
 */
TSR_MUST_USE tsr_status tsr_tokenizer_encode(const tsr_tokenizer *tokenizer, const char *text,
                                             size_t count, bool plain, tsr_ids *ids);

/* The same for a text that stands by itself: with the ids that the file's post-processor puts in
 * front of it and behind it. */
TSR_MUST_USE tsr_status tsr_tokenizer_encode_alone(const tsr_tokenizer *tokenizer, const char *text,
                                                   size_t count, tsr_ids *ids);

/*
 * The bytes an id stands for: part of a character, or several. False when there is no such id.
 * The bytes live as long as the tokenizer.
 */
bool tsr_tokenizer_bytes(const tsr_tokenizer *tokenizer, int32_t id, const char **ret_bytes,
                         size_t *ret_count, bool *ret_special);

/* The id of an added or ordinary token by its content, spelled as in the file, or -1. */
int32_t tsr_tokenizer_id(const tsr_tokenizer *tokenizer, const char *content);

#endif
