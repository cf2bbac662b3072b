/* Buckets are vLLM's, so that boards and gateways made for it read ours. */
#include "launch/gateway/metrics.h"

#include <string.h>

static const double first_token_bounds[] = {.001, .005, .01, .02, .04, .06, .08, .1,
                                            .25,  .5,   .75, 1,   2.5, 5,   7.5, 10,
                                            20,   40,   80,  160, 640, 2560};
static const double per_token_bounds[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                          .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
static const double whole_bounds[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                      30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double token_bounds[] = {1,     2,      5,      10,     20,     50,    100,
                                      200,   500,    1000,   2000,   5000,   10000, 20000,
                                      50000, 100000, 200000, 500000, 1000000};
static const double copies_bounds[] = {1, 2, 5, 10, 20};

#define BOUNDS(array) array, sizeof(array) / sizeof((array)[0])

void tsr_metrics_open(tsr_metrics *metrics)
{
    static const struct {
        const double *bounds;
        size_t count;
    } of[TSR_HISTOGRAM_COUNT] = {
        [TSR_HISTOGRAM_FIRST_TOKEN] = {BOUNDS(first_token_bounds)},
        [TSR_HISTOGRAM_INTER_TOKEN] = {BOUNDS(per_token_bounds)},
        [TSR_HISTOGRAM_PER_TOKEN] = {BOUNDS(per_token_bounds)},
        [TSR_HISTOGRAM_WHOLE] = {BOUNDS(whole_bounds)},
        [TSR_HISTOGRAM_QUEUE] = {BOUNDS(whole_bounds)},
        [TSR_HISTOGRAM_PREFILL] = {BOUNDS(whole_bounds)},
        [TSR_HISTOGRAM_DECODE] = {BOUNDS(whole_bounds)},
        [TSR_HISTOGRAM_COMPUTE] = {BOUNDS(whole_bounds)},
        [TSR_HISTOGRAM_PROMPT_TOKENS] = {BOUNDS(token_bounds)},
        [TSR_HISTOGRAM_OUTPUT_TOKENS] = {BOUNDS(token_bounds)},
        [TSR_HISTOGRAM_LONGEST] = {BOUNDS(token_bounds)},
        [TSR_HISTOGRAM_COPIES] = {BOUNDS(copies_bounds)},
        [TSR_HISTOGRAM_MAX_TOKENS] = {BOUNDS(token_bounds)},
    };

    *metrics = (tsr_metrics){0};
    for (int i = 0; i < TSR_HISTOGRAM_COUNT; i++) {
        metrics->histograms[i].bounds = of[i].bounds;
        metrics->histograms[i].bound_count = of[i].count;
    }
}

void tsr_metrics_observe(tsr_metrics *metrics, tsr_histogram_kind kind, double value)
{
    tsr_histogram *histogram = &metrics->histograms[kind];
    size_t at = 0;

    while (at < histogram->bound_count && value > histogram->bounds[at])
        at++;
    histogram->counts[at]++;
    histogram->count++;
    histogram->sum += value;
}

void tsr_metrics_count_http(tsr_metrics *metrics, const char *handler, const char *method,
                            int status)
{
    const size_t most = sizeof(metrics->http) / sizeof(metrics->http[0]);
    size_t at = 0;

    while (at < metrics->http_count &&
           (metrics->http[at].status != status || strcmp(metrics->http[at].handler, handler) != 0 ||
            strcmp(metrics->http[at].method, method) != 0))
        at++;
    if (at == most)
        return;
    if (at == metrics->http_count)
        metrics->http[metrics->http_count++] =
            (tsr_http_count){.handler = handler, .method = method, .status = status};
    metrics->http[at].count++;
}
