/*
 * A page of HTML that stands alone: no script, nothing that is fetched. What is added after memory
 * has run out is dropped, and the page's status says so: it is looked at once, in the end.
 */
#ifndef TSR_LAUNCH_REPORT_PAGE_H
#define TSR_LAUNCH_REPORT_PAGE_H

#include "launch/report/precision_map.h"
#include "runtime/base/status.h"
#include "runtime/base/text_buffer.h"

typedef struct tsr_page {
    tsr_text *text; /* borrowed */
    tsr_status status;
} tsr_page;

/* Up to its first heading; `about` stands below it. Both are text, not HTML. */
void tsr_page_begin(tsr_page *page, const char *title, const char *about);

void tsr_page_end(tsr_page *page);

/* HTML as it is. */
__attribute__((format(printf, 2, 3))) void tsr_page_add(tsr_page *page, const char *format, ...);

/* Text: what HTML would read otherwise is escaped. */
void tsr_page_text(tsr_page *page, const char *text);

/* The precision of every module of every layer as a table with a cell each, and the legend with
 * linears and bytes of each format. */
void tsr_page_map(tsr_page *page, const tsr_precision_map *map);

#endif
