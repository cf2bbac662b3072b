/* JSON from a file or from bytes, with the limits hostile input needs. jansson's types are used as
 * they are. */
#ifndef TSR_RUNTIME_BASE_JSON_FILE_H
#define TSR_RUNTIME_BASE_JSON_FILE_H

#include "runtime/base/problems.h"
#include "runtime/base/status.h"

#include <jansson.h>
#include <stddef.h>

/*
 * The caller releases *ret_json with json_decref. Duplicate keys, trailing bytes and files above
 * `max_bytes` are refused; what is wrong is added to `problems` with the path and the line.
 *
 * TSR_ERR_CHECKPOINT  unreadable, too large or not JSON
 */
TSR_MUST_USE tsr_status tsr_json_load_file(const char *path, size_t max_bytes,
                                           tsr_problems *problems, json_t **ret_json);

/* The same for bytes in memory; `name` stands for the path in messages. */
TSR_MUST_USE tsr_status tsr_json_load_bytes(const char *name, const char *bytes, size_t count,
                                            tsr_problems *problems, json_t **ret_json);

#endif
