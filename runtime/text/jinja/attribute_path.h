/* "a.b.0" as filters take it: keys to look up one after another, digits as positions. */
#ifndef TSR_RUNTIME_TEXT_JINJA_ATTRIBUTE_PATH_H
#define TSR_RUNTIME_TEXT_JINJA_ATTRIBUTE_PATH_H

#include "runtime/text/jinja/run.h"

/*
 * The value at `path` in `item`; the item itself when the path is missing or none. `fallback`
 * stands in for what is undefined unless it is missing or none.
 */
TSR_MUST_USE tsr_status tsr_jinja_follow(tsr_jinja_run *run, tsr_jinja_value item,
                                         tsr_jinja_value path, tsr_jinja_value fallback,
                                         tsr_jinja_value *ret_value);

/* Text in lower case, for comparisons that do not care; anything else as it is. */
TSR_MUST_USE tsr_status tsr_jinja_fold(tsr_jinja_run *run, tsr_jinja_value item,
                                       tsr_jinja_value *ret_value);

#endif
