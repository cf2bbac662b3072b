/*
 * The pattern that cuts text into words before bytes are merged, run by PCRE2.
 *
 * The reference runs it by another engine, so only constructs that mean the same in both are
 * taken: alternatives, literals, \r \n \t \s \S \p{..} of general categories, classes of these, the
 * quantifiers ? * + {n} {n,} {n,m} on one character, (?: ), (?! ), and the case-insensitive
 * contractions of English. White space is spelled out, since the engines differ about it.
 */
#ifndef TSR_RUNTIME_TEXT_SPLIT_PATTERN_H
#define TSR_RUNTIME_TEXT_SPLIT_PATTERN_H

#include "runtime/base/problems.h"
#include "runtime/base/status.h"

#include <stddef.h>

typedef struct tsr_split_pattern tsr_split_pattern;

/*
 *   path  of the file the pattern stands in, for messages
 *
 * TSR_ERR_CHECKPOINT (said in `problems`), TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_split_pattern_open(const char *path, const char *pattern,
                                               tsr_problems *problems,
                                               tsr_split_pattern **ret_pattern);

/* NULL is allowed. */
void tsr_split_pattern_close(tsr_split_pattern *pattern);

/*
 * A walk over the words of one text. Every byte is in one word: what the pattern matches, or the
 * gap before it. One thread at a time; the pattern may be shared.
 *
 *     text    Hello,   world
 *     words   [Hello][,][  ][ world]
 *             ^first    ^count = 2
 */
typedef struct tsr_splitter tsr_splitter;

TSR_MUST_USE tsr_status tsr_splitter_open(const tsr_split_pattern *pattern,
                                          tsr_splitter **ret_splitter);

/* NULL is allowed. */
void tsr_splitter_close(tsr_splitter *splitter);

/* Starts over with a text: valid UTF-8, which must stay until the walk is over. */
void tsr_splitter_begin(tsr_splitter *splitter, const char *text, size_t count);

/*
 * The next word; *ret_count is 0 at the end.
 *
 * TSR_ERR_CAPACITY  the pattern needs more steps than a text of this length may take
 */
TSR_MUST_USE tsr_status tsr_splitter_next(tsr_splitter *splitter, const char **ret_word,
                                          size_t *ret_count);

#endif
