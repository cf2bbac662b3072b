/*
 * What a line of JSON shows without being parsed: whose it is, and how much it would take to parse.
 * For lines that no parser takes, and for lines that are not worth it.
 */
#ifndef TSR_LAUNCH_FILES_LINE_SCAN_H
#define TSR_LAUNCH_FILES_LINE_SCAN_H

#include <stdbool.h>
#include <stddef.h>

typedef struct tsr_line_scan {
    const char *custom_id; /* a JSON string, its quotes included, or a whole number, as it stands in
                              the line; NULL: none that can be read. Of several the last */
    size_t custom_id_bytes;
    bool answered;         /* has a "response" that is not null */
    bool failed;           /* has an "error" that is not null */
    bool whole;            /* begins and ends as one object does */
    size_t longest_string; /* bytes between quotes */
    size_t values;         /* at most so many */
    size_t containers;     /* objects and arrays */
} tsr_line_scan;

/* Any bytes. Fields are those of the outermost object. */
tsr_line_scan tsr_line_scan_read(const char *bytes, size_t count);

#endif
