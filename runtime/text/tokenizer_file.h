/* What tokenizer.json becomes, and who reads it. Private to the tokenizer. */
#ifndef TSR_RUNTIME_TEXT_TOKENIZER_FILE_H
#define TSR_RUNTIME_TEXT_TOKENIZER_FILE_H

#include "runtime/base/problems.h"
#include "runtime/base/status.h"
#include "runtime/text/added_tokens.h"
#include "runtime/text/bpe.h"
#include "runtime/text/post_processor.h"
#include "runtime/text/split_pattern.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/vocabulary.h"

#include <jansson.h>
#include <stdbool.h>

struct tsr_tokenizer {
    tsr_vocabulary vocabulary;
    tsr_merges merges;
    tsr_split_pattern *pattern;
    tsr_added_tokens raw_added;        /* found in the text as it came */
    tsr_added_tokens normalized_added; /* found in the normalised rest */
    tsr_surround surround;
    bool nfc;
    bool whole_words;     /* a word that is a token is not merged ("ignore_merges") */
    size_t longest_token; /* bytes of it */
};

/*
 * Fills a zeroed tokenizer; on failure it is to be closed all the same.
 *
 *   path  stands in messages
 *
 * TSR_ERR_CHECKPOINT (said in `problems`), TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_tokenizer_file_read(const char *path, const json_t *file,
                                                tsr_problems *problems, tsr_tokenizer *tokenizer);

#endif
