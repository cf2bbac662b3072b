/* Whether a template goes through the parts of a message's content itself. */
#ifndef TSR_RUNTIME_TEXT_JINJA_TAKES_PARTS_H
#define TSR_RUNTIME_TEXT_JINJA_TAKES_PARTS_H

#include "runtime/text/jinja/syntax.h"

#include <stdbool.h>

/* True where a loop below `root` goes over something called content: a variable, an attribute or an
 * item of that name, filtered or not. */
bool tsr_jinja_takes_parts(const tsr_jinja_node *root);

#endif
