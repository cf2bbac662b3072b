/* What tokenizer.json's post_processor puts around the ids of a text. Private to the tokenizer. */
#ifndef TSR_RUNTIME_TEXT_POST_PROCESSOR_H
#define TSR_RUNTIME_TEXT_POST_PROCESSOR_H

#include "runtime/base/problems.h"
#include "runtime/base/status.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum { TSR_SURROUND_MOST = 16 };

/* Ids in front of a text and behind it. */
typedef struct tsr_surround {
    int32_t before[TSR_SURROUND_MOST];
    int32_t after[TSR_SURROUND_MOST];
    size_t before_count;
    size_t after_count;
} tsr_surround;

/*
 *   path  stands in messages
 *   ids   those of the tokenizer are below
 *
 * TSR_ERR_CHECKPOINT (said in `problems`)
 */
TSR_MUST_USE tsr_status tsr_post_processor_read(const char *path, const json_t *post_processor,
                                                int32_t ids, tsr_problems *problems,
                                                tsr_surround *surround);

#endif
