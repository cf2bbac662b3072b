/* What is counted of requests, and how long things took: counters and histograms as Prometheus has
 * them. */
#ifndef TSR_LAUNCH_GATEWAY_METRICS_H
#define TSR_LAUNCH_GATEWAY_METRICS_H

#include "runtime/base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { TSR_MOST_BUCKETS = 32, TSR_MOST_HANDLERS = 32, TSR_MOST_STATUSES = 20 };

typedef enum tsr_histogram_kind {
    TSR_HISTOGRAM_FIRST_TOKEN, /* seconds */
    TSR_HISTOGRAM_INTER_TOKEN,
    TSR_HISTOGRAM_PER_TOKEN, /* of a whole request, its first left out */
    TSR_HISTOGRAM_WHOLE,
    TSR_HISTOGRAM_QUEUE,   /* from the engine's having it until it is computed */
    TSR_HISTOGRAM_PREFILL, /* from then until its first token */
    TSR_HISTOGRAM_DECODE,  /* from its first token to its last */
    TSR_HISTOGRAM_COMPUTE, /* both */
    TSR_HISTOGRAM_PROMPT_TOKENS,
    TSR_HISTOGRAM_OUTPUT_TOKENS,
    TSR_HISTOGRAM_LONGEST, /* of the choices of one request */
    TSR_HISTOGRAM_COPIES,
    TSR_HISTOGRAM_MAX_TOKENS,
    TSR_HISTOGRAM_COUNT
} tsr_histogram_kind;

typedef struct tsr_histogram {
    const double *bounds; /* [bound_count] ascending */
    size_t bound_count;
    uint64_t counts[TSR_MOST_BUCKETS + 1]; /* [bound_count + 1], not added up */
    uint64_t count;
    double sum;
} tsr_histogram;

typedef enum tsr_outcome {
    TSR_OUTCOME_STOP,
    TSR_OUTCOME_LENGTH,
    TSR_OUTCOME_ABORT, /* the client left */
    TSR_OUTCOME_ERROR,
    TSR_OUTCOME_COUNT
} tsr_outcome;

typedef struct tsr_http_count {
    const char *handler;
    const char *method;
    int status;
    uint64_t count;
} tsr_http_count;

typedef struct tsr_metrics {
    tsr_histogram histograms[TSR_HISTOGRAM_COUNT];
    uint64_t outcomes[TSR_OUTCOME_COUNT]; /* of choices */
    uint64_t prompt_tokens;
    uint64_t output_tokens;
    uint64_t restarts; /* engines that came after one was lost */
    tsr_http_count http[TSR_MOST_HANDLERS * TSR_MOST_STATUSES]; /* [http_count] */
    size_t http_count;
} tsr_metrics;

void tsr_metrics_open(tsr_metrics *metrics);

void tsr_metrics_observe(tsr_metrics *metrics, tsr_histogram_kind kind, double value);

/* One answer of HTTP. Names are constants. */
void tsr_metrics_count_http(tsr_metrics *metrics, const char *handler, const char *method,
                            int status);

#endif
