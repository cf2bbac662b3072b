/* What is not as it should be on the machines of a job, judged by what their ranks have found. */
#ifndef TSR_LAUNCH_DOCTOR_DOCTOR_FINDINGS_H
#define TSR_LAUNCH_DOCTOR_DOCTOR_FINDINGS_H

#include "launch/doctor/doctor_record.h"
#include "runtime/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* How bytes go between one rank and the next. */
typedef struct tsr_doctor_pair {
    int32_t from;
    int32_t to;
    double latency_s; /* one way, of a few bytes */
    double bandwidth; /* bytes a second, one way, of many */
} tsr_doctor_pair;

/* Of all ranks; owns nothing. */
typedef struct tsr_doctor_facts {
    const tsr_doctor_record *ranks; /* [rank_count] */
    const tsr_doctor_pair *pairs;   /* [pair_count] */
    int32_t rank_count;
    int32_t pair_count;
    int32_t expected_ranks; /* 0: any number */
    int32_t ranks_per_card; /* that are allowed */
    const char *transport;  /* "mpi" */
    bool network_named;     /* MPI was told which interfaces to use */
} tsr_doctor_facts;

enum { TSR_DOCTOR_LINE_BYTES = 768, TSR_DOCTOR_MOST_FINDINGS = 64 };

typedef struct tsr_doctor_finding {
    tsr_status status; /* TSR_OK: it costs something, but nothing fails */
    char what[TSR_DOCTOR_LINE_BYTES];
    const char *why;
    char mend[TSR_DOCTOR_LINE_BYTES];
} tsr_doctor_finding;

typedef struct tsr_doctor_findings {
    int32_t count;
    tsr_doctor_finding of[TSR_DOCTOR_MOST_FINDINGS];
} tsr_doctor_findings;

/* What would make a job fail first. */
void tsr_doctor_judge(const tsr_doctor_facts *facts, tsr_doctor_findings *ret_findings);

/* The first that would make a job fail; TSR_OK: none would. */
tsr_status tsr_doctor_verdict(const tsr_doctor_findings *findings);

#endif
