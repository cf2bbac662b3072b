/*
 * Jinja decides before it runs where a name lives. A block (the template, a loop's body, a macro
 * ...) that sets a name without having read it first has a variable of its own, unset until then,
 * unless a block around it knows the name; what the blocks inside read is that variable, even
 * while the caller has given another of that name:
 *
 *     {% for m in messages %}{{ date }}{% endfor %}     nothing: `date` is the template's own
 *     {% set date = 'today' %}{{ date }}                today
 */
#ifndef TSR_RUNTIME_TEXT_JINJA_UNSET_NAMES_H
#define TSR_RUNTIME_TEXT_JINJA_UNSET_NAMES_H

#include "runtime/base/arena.h"
#include "runtime/text/jinja/syntax.h"

/* Fills the `unset` of every block's body in the tree below `root`. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_jinja_find_unset_names(const tsr_jinja_node *root, tsr_arena *arena);

#endif
