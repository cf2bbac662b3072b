/* What a doctor has found, as text or JSON. */
#ifndef TSR_LAUNCH_DOCTOR_DOCTOR_REPORT_H
#define TSR_LAUNCH_DOCTOR_DOCTOR_REPORT_H

#include "launch/doctor/doctor_findings.h"

#include <stdbool.h>
#include <stdio.h>

/* TSR_ERR_OUTPUT, logged */
TSR_MUST_USE tsr_status tsr_doctor_report(const tsr_doctor_facts *facts,
                                          const tsr_doctor_findings *findings, bool json,
                                          FILE *out);

#endif
