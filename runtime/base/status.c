/* Made from the one list in status.h: no status can lack its text or its exit code. */
#include "runtime/base/status.h"

#include <errno.h>
#include <stddef.h>

typedef struct status_row {
    const char *name;
    const char *text;
    int exit_code;
} status_row;

static const status_row rows[] = {
#define STATUS_ROW(name, code, text) {#name, text, code},
    TSR_STATUS_LIST(STATUS_ROW)
#undef STATUS_ROW
};

static const status_row *row_of(tsr_status status)
{
    const size_t i = (size_t)status;
    return i < sizeof(rows) / sizeof(rows[0]) ? &rows[i] : &rows[TSR_ERR_INTERNAL];
}

const char *tsr_status_name(tsr_status status)
{
    return row_of(status)->name;
}

const char *tsr_status_text(tsr_status status)
{
    return row_of(status)->text;
}

tsr_status tsr_status_of_error(int error, tsr_status otherwise)
{
    return error == ENOMEM || error == EMFILE || error == ENFILE ? TSR_ERR_MEMORY : otherwise;
}

tsr_status tsr_status_of_two(tsr_status first, tsr_status second)
{
    return first == TSR_OK || second == TSR_ERR_MEMORY ? second : first;
}

int tsr_status_exit_code(tsr_status status)
{
    return row_of(status)->exit_code;
}
