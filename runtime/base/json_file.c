/* A key that stands twice is refused, for two readers could believe different ones. Zero bytes are
 * let in, so that whoever wants text can refuse them with the field's name. */
#include "runtime/base/json_file.h"

#include "runtime/base/file.h"
#include "runtime/base/json_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

tsr_status tsr_json_load_bytes(const char *name, const char *bytes, size_t count,
                               tsr_problems *problems, json_t **ret_json)
{
    json_error_t error;
    tsr_json_memory_begin();
    json_t *json = tsr_json_loadb(bytes, count, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (json == NULL && tsr_json_memory_ran_out()) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: cannot be read: out of memory", name);
        return TSR_ERR_MEMORY;
    }
    if (json == NULL) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: line %d, column %d: not valid JSON: %s",
                         name, error.line, error.column, error.text);
        return TSR_ERR_CHECKPOINT;
    }
    *ret_json = json;
    return TSR_OK;
}

tsr_status tsr_json_load_file(const char *path, size_t max_bytes, tsr_problems *problems,
                              json_t **ret_json)
{
    char *text = NULL;
    size_t count = 0;
    tsr_status st = tsr_file_read_text(path, max_bytes, &text, &count);
    if (st != TSR_OK) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: cannot be read: %s", path,
                         strerror(errno));
        return st;
    }
    st = tsr_json_load_bytes(path, text, count, problems, ret_json);
    free(text);
    return st;
}
