/*
 * Counts of answers by custom_id, in two maps while two files are read: what PATH.partial of a
 * resumed run has copied from PATH counts once.
 */
#include "launch/batch/batch_answered.h"

#include "launch/files/line_scan.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct tsr_batch_answered {
    json_t *left;  /* answers that no line has taken */
    json_t *first; /* those of the first file that the second may hold again */
};

tsr_status tsr_batch_answered_open(tsr_batch_answered **ret_answered)
{
    tsr_batch_answered *answered = calloc(1, sizeof(*answered));
    if (answered == NULL)
        return TSR_ERR_MEMORY;
    answered->left = json_object();
    answered->first = json_object();
    if (answered->left == NULL || answered->first == NULL) {
        tsr_batch_answered_close(answered);
        return TSR_ERR_MEMORY;
    }
    *ret_answered = answered;
    return TSR_OK;
}

/* One spelling for all that JSON allows; NULL without memory. A lone surrogate, which no text can
 * hold, keeps its own. */
static char *spell_id(const char *custom_id, size_t bytes)
{
    json_t *id = json_loadb(custom_id, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    char *spelling = id != NULL ? json_dumps(id, JSON_ENCODE_ANY | JSON_ENSURE_ASCII)
                                : strndup(custom_id, bytes);
    json_decref(id);
    return spelling;
}

static json_int_t count_of(const json_t *map, const char *id)
{
    return json_integer_value(json_object_get(map, id));
}

static bool add_count(json_t *map, const char *id, json_int_t more)
{
    return json_object_set_new_nocheck(map, id, json_integer(count_of(map, id) + more)) == 0;
}

static tsr_status keep_answer(void *context, int32_t file, const char *line, size_t count,
                              bool *ret_keep)
{
    tsr_batch_answered *answered = context;
    const tsr_line_scan scan = tsr_line_scan_read(line, count);

    *ret_keep = false;
    if (!scan.whole || scan.answered == scan.failed)
        return TSR_ERR_ARG;
    if (scan.failed || scan.custom_id == NULL)
        return TSR_OK;

    char *id = spell_id(scan.custom_id, scan.custom_id_bytes);
    if (id == NULL)
        return TSR_ERR_MEMORY;
    const bool copy = file > 0 && count_of(answered->first, id) > 0;
    const bool good = copy ? add_count(answered->first, id, -1)
                      : file == 0
                          ? add_count(answered->first, id, 1) && add_count(answered->left, id, 1)
                          : add_count(answered->left, id, 1);
    free(id);
    *ret_keep = !copy;
    return good ? TSR_OK : TSR_ERR_MEMORY;
}

tsr_line_keeper tsr_batch_answered_keeper(tsr_batch_answered *answered)
{
    return (tsr_line_keeper){.keep = keep_answer, .context = answered};
}

bool tsr_batch_answered_take(tsr_batch_answered *answered, const char *custom_id, size_t bytes)
{
    char *id = spell_id(custom_id, bytes);
    const bool found = id != NULL && count_of(answered->left, id) > 0;

    /* the count can be lowered without memory: the entry is there */
    if (found)
        (void)json_integer_set(json_object_get(answered->left, id),
                               count_of(answered->left, id) - 1);
    free(id);
    return found;
}

void tsr_batch_answered_close(tsr_batch_answered *answered)
{
    if (answered == NULL)
        return;
    json_decref(answered->left);
    json_decref(answered->first);
    free(answered);
}
