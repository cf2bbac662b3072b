/* Only objects of bounded size are let through: no reader behind has to ask. */
#include "runtime/checkpoint/folder_json.h"

#include "runtime/base/file.h"
#include "runtime/base/json_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The largest real ones, three keys for each of 15000 experts, take 20 MiB. */
enum { MOST_BYTES = 100 * 1024 * 1024 };

bool tsr_folder_has(const char *folder, const char *name)
{
    char path[TSR_PATH_BYTES];
    return tsr_path_join(folder, name, sizeof(path), path) == TSR_OK && tsr_file_exists(path);
}

static tsr_status refuse_file(const char *name, const char *what, tsr_problems *problems)
{
    tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: %s", name, what);
    return TSR_ERR_CHECKPOINT;
}

tsr_status tsr_folder_json_load(const char *folder, const char *name, tsr_problems *problems,
                                json_t **ret_json)
{
    char path[TSR_PATH_BYTES];
    if (tsr_path_join(folder, name, sizeof(path), path) != TSR_OK)
        return refuse_file(name, "the folder's path is too long", problems);

    char *text = NULL;
    size_t count = 0;
    errno = 0;
    tsr_status st = tsr_file_read_text(path, MOST_BYTES, &text, &count);
    if (st != TSR_OK) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: cannot be read from %s: %s", name,
                         folder, strerror(errno));
        return st;
    }

    json_t *json = NULL;
    st = tsr_json_load_bytes(name, text, count, problems, &json);
    free(text);
    if (st != TSR_OK)
        return st;
    if (!json_is_object(json)) {
        json_decref(json);
        return refuse_file(name, "is not a JSON object", problems);
    }
    *ret_json = json;
    return TSR_OK;
}
