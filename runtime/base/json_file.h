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

/*
 * jansson's json_loadb, but a number beyond 64 bits, or beyond a double, does not refuse the text:
 * it is an object of one member, tsr_json_beyond, with its digits. Who wants a number refuses it by
 * the name of its field; in a field that nobody reads it does not matter. A text of more than 1000
 * such numbers is refused as jansson does.
 */
json_t *tsr_json_loadb(const char *bytes, size_t count, size_t flags, json_error_t *error);
extern const char tsr_json_beyond[];

/* The same for bytes in memory; `name` stands for the path in messages. */
TSR_MUST_USE tsr_status tsr_json_load_bytes(const char *name, const char *bytes, size_t count,
                                            tsr_problems *problems, json_t **ret_json);

#endif
