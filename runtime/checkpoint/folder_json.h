/* JSON files of a checkpoint's folder. Private. */
#ifndef TSR_RUNTIME_CHECKPOINT_FOLDER_JSON_H
#define TSR_RUNTIME_CHECKPOINT_FOLDER_JSON_H

#include "runtime/base/problems.h"
#include "runtime/base/status.h"

#include <jansson.h>
#include <stdbool.h>

enum { TSR_PATH_BYTES = 4096 };

bool tsr_folder_has(const char *folder, const char *name);

/*
 * The file `name` of the folder, which must hold an object; messages show the name alone. The
 * caller releases *ret_json.
 */
TSR_MUST_USE tsr_status tsr_folder_json_load(const char *folder, const char *name,
                                             tsr_problems *problems, json_t **ret_json);

#endif
