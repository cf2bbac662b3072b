/*
 * That this process was asked to end, by a signal. Whatever waits in a loop looks here once a turn,
 * and ends with the status it finds, as with any other error.
 */
#ifndef TSR_RUNTIME_BASE_ENDING_H
#define TSR_RUNTIME_BASE_ENDING_H

#include "runtime/base/status.h"

/* For a signal's handler: SIGHUP, SIGINT or SIGTERM has come. The first counts. */
void tsr_ending_ask(int signal_number);

/* TSR_OK: nobody has asked. TSR_ERR_HANGUP, TSR_ERR_INTERRUPT, TSR_ERR_TERMINATED */
TSR_MUST_USE tsr_status tsr_ending_status(void);

#endif
