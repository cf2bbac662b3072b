/* Three digits: enough to compare by, few enough to read. */
#include "runtime/plan/byte_count.h"

#include <stddef.h>
#include <stdio.h>

const char *tsr_byte_count_text(uint64_t bytes, char ret_text[TSR_BYTE_COUNT_BYTES])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes / 1024;
    size_t unit = 0;

    if (bytes < 1024) {
        (void)snprintf(ret_text, TSR_BYTE_COUNT_BYTES, "%d B", (int)bytes);
        return ret_text;
    }
    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(ret_text, TSR_BYTE_COUNT_BYTES, value < 10 ? "%.2f %s" : "%.1f %s", value,
                   units[unit]);
    return ret_text;
}
