/*
 * Finds stop strings in text that comes in pieces. What could still become one is held back (the
 * longest suffix that begins one); everything else goes out at once. The result does not depend on
 * where the text is cut. One matcher, shared by batch and gateway.
 */
#ifndef TSR_RUNTIME_TEXT_STOP_STRINGS_H
#define TSR_RUNTIME_TEXT_STOP_STRINGS_H

#include "runtime/base/status.h"
#include "runtime/base/text_buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tsr_stop_strings tsr_stop_strings;

/*
 *   stops    [count] UTF-8, none empty; copied
 *   include  the stop string itself is part of the output
 *
 * TSR_ERR_ARG (one is empty), TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_stop_strings_open(const char *const *stops, size_t count, bool include,
                                              tsr_stop_strings **ret_stops);
void tsr_stop_strings_close(tsr_stop_strings *stops);

/*
 * Appends to `out` what may be shown. *ret_matched: index of the stop string that ended the text,
 * or -1; after a match nothing more comes out. The match that is complete first wins, and of those
 * complete at the same byte the longest: the text ends as soon as it can.
 */
TSR_MUST_USE tsr_status tsr_stop_strings_push(tsr_stop_strings *stops, const char *bytes,
                                              size_t count, tsr_text *out, int32_t *ret_matched);

/* The end without a match: what was held back goes out. After a match: nothing. */
TSR_MUST_USE tsr_status tsr_stop_strings_finish(tsr_stop_strings *stops, tsr_text *out);

#endif
