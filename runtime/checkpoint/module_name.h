/*
 * Names of modules and tensors: one canonical spelling, and the patterns of exclusion lists.
 *
 *     as spelled                              canonical
 *     model.layers.3.mlp.experts              the same
 *     language_model.model.layers.3.mlp.gate  model.layers.3.mlp.gate
 *     model.language_model.layers.3.mlp.gate  model.layers.3.mlp.gate
 *     layers.3.mlp.gate                       model.layers.3.mlp.gate
 *     language_model.lm_head                  lm_head
 *
 * A pattern is one of
 *     model.layers.0.mlp.gate     the name itself
 *     model.layers.1*             as fnmatch: * ? [abc] [!a-c], case matters, * crosses dots
 *     model.layers.1.mlp.*        the same, and the parent model.layers.1.mlp as well
 *     re:model\.layers\.\d+\.mlp  a Perl regular expression that covers the whole name
 * and speaks for a module when it matches the module's own name or that of any ancestor. A pattern
 * never matches as a substring: mlp.gate does not speak for mlp.gate_proj.
 */
#ifndef TSR_RUNTIME_CHECKPOINT_MODULE_NAME_H
#define TSR_RUNTIME_CHECKPOINT_MODULE_NAME_H

#include "runtime/base/problems.h"
#include "runtime/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The canonical spelling of a module name, a tensor name or a pattern; expressions (re:) stay as
 * they are. `ret_name` has room for strlen(name) + 7 bytes: "model." may be added in front.
 */
void tsr_name_canonical(const char *name, char *ret_name);

/* The same for a module name or pattern, with ".weight" at its end removed. */
void tsr_name_canonical_module(const char *name, char *ret_name);

/*
 * True for "model.layers.N" and "model.layers.N.REST"; writes N and where REST begins ("" when
 * there is none).
 */
bool tsr_name_layer(const char *name, int32_t *ret_layer, const char **ret_rest);

/* Names end up in messages and lists: they have 1 to `longest` bytes and no control characters. */
bool tsr_name_is_usable(const char *name, size_t longest);

/* Many patterns, made ready for many names. For one thread at a time. */
typedef struct tsr_name_patterns tsr_name_patterns;

/*
 *   patterns      [count] canonical; must stay until close
 *   file          where they stand, for messages
 *   ret_patterns  close it with tsr_name_patterns_close
 *
 * TSR_ERR_CHECKPOINT  a regular expression is malformed; added to `problems`
 */
TSR_MUST_USE tsr_status tsr_name_patterns_open(char *const *patterns, size_t count,
                                               const char *file, tsr_problems *problems,
                                               tsr_name_patterns **ret_patterns);

/* True when a pattern speaks for the module of that name; *ret_index is then one that does. */
bool tsr_name_patterns_match(const tsr_name_patterns *patterns, const char *name,
                             size_t *ret_index);

/* NULL is allowed. */
void tsr_name_patterns_close(tsr_name_patterns *patterns);

#endif
