/* Everything of a checkpoint that is text: configs, the index, a tokenizer. Private. */
#ifndef TSR_RUNTIME_SYNTHETIC_CONFIG_FILES_H
#define TSR_RUNTIME_SYNTHETIC_CONFIG_FILES_H

#include "runtime/base/text_buffer.h"
#include "runtime/synthetic/shape_table.h"
#include "runtime/synthetic/tensor_set.h"

/* The highest ids of the vocabulary, in this order: end of text, and of a turn's start and end. */
enum { TSR_SYNTHETIC_ADDED_TOKENS = 3 };

/* TSR_ERR_OUTPUT, logged; TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_config_files_write(const char *folder, const tsr_synthetic_shape *shape,
                                               const tsr_tensor_set *set);

/* The text of tokenizer.json: a token for each byte, then words that nothing is made of, so that
 * there are `vocab` of them and any that a model samples can be shown. */
TSR_MUST_USE tsr_status tsr_tokenizer_text(int32_t vocab, tsr_text *text);

#endif
