/* The page of `tessera run --report FILE`, in the order of a job's hooks. Rank 0's. */
#ifndef TSR_LAUNCH_REPORT_RUN_REPORT_H
#define TSR_LAUNCH_REPORT_RUN_REPORT_H

#include "launch/report/watch.h"
#include "runtime/engine/engine.h"

typedef struct tsr_run_report tsr_run_report;

/* Both are borrowed. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_run_report_open(const char *path, const char *folder,
                                            tsr_run_report **ret_report);

/* Finds out whether the file can be written. The plan outlives the report's writing.
 * TSR_ERR_OUTPUT, TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_run_report_begin(tsr_run_report *report, const tsr_plan *plan);

/* How fast the device reads its memory, while it holds nothing. */
TSR_MUST_USE tsr_status tsr_run_report_measure(tsr_run_report *report, tsr_device *device);

/* Borrowed until the page is written. */
void tsr_run_report_use(tsr_run_report *report, const tsr_watch *watch);

/* TSR_ERR_OUTPUT, TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_run_report_write(tsr_run_report *report, const tsr_engine_stats *stats);

/* NULL is allowed. A page that was not written leaves nothing behind. */
void tsr_run_report_close(tsr_run_report *report);

#endif
