/*
 * A checkpoint, planned and run: what every test of this folder stands on. Ranks are threads of
 * this process; a step is the same list of sequences on all of them.
 */
#ifndef TSR_TESTS_MODEL_SERVED_H
#define TSR_TESTS_MODEL_SERVED_H

#include "kernels/device.h"
#include "proto/plan.h"
#include "runtime/base/status.h"

#include <stddef.h>
#include <stdint.h>

/* What activations are computed in. */
typedef enum served_mode {
    SERVED_WEIGHT_ONLY,
    SERVED_DECLARED,
    SERVED_HOPPER, /* what an H200 would */
    SERVED_MODES
} served_mode;

/* "weight_only", "declared", "hopper": as expected.safetensors spells them. */
const char *served_mode_name(served_mode mode);

/* Zero stands for the default of each field. */
typedef struct served_setup {
    const char *folder;
    served_mode mode;
    int32_t ranks;           /* 1 */
    int32_t exchange_tokens; /* 64 */
    int32_t block_tokens;    /* 16 */
} served_setup;

/* What the devices of a run are. */
typedef struct served_device {
    tsr_cpu_isa isa;
    int32_t threads; /* 0: 1 */
} served_device;

typedef struct served_sequence {
    const int32_t *tokens; /* [count] */
    int32_t count;
    int32_t rank;
    int32_t start; /* step of its first chunk */
    int32_t chunk; /* positions of a step, 0: all at once */
    float *logits; /* [count, V] set by served_run; the caller frees it */
} served_sequence;

enum { SERVED_MODEL_LEN = 64, SERVED_SEQUENCES = 8, SERVED_STEP_TOKENS = 128 };

/* Opens the checkpoint and plans it; problems are logged. Close *ret_plan. */
tsr_status served_plan(const served_setup *setup, tsr_plan **ret_plan);

/*
 * Opens the model on every rank and runs the sequences to their ends.
 *
 *   ret_of_rank  [ranks] or NULL: how each rank ended
 *
 * The first status that is not TSR_OK and not TSR_ERR_PEER, else TSR_ERR_PEER where there was one.
 */
tsr_status served_run(const tsr_plan *plan, served_device device, served_sequence *sequences,
                      size_t count, tsr_status *ret_of_rank);

/* served_plan and served_run together; every failure fails the test. */
void served(const served_setup *setup, served_device device, served_sequence *sequences,
            size_t count);

void served_free(served_sequence *sequences, size_t count);

/* The two sequences of a fixture, from its expected.safetensors, and their logits. */
typedef struct served_expected {
    int32_t *tokens[2];
    int32_t count[2];
    float *logits[2]; /* [count, V] */
    int32_t vocab;
} served_expected;

served_expected served_expectation(const char *folder, served_mode mode);
void served_expected_free(served_expected *expected);

/* Largest difference of a sequence over its largest logit. */
double served_distance(const float *logits, const float *expected, size_t count);

/* Bytes equal; fails the test with `what` and the first difference. */
void served_same_bits(const char *what, const float *a, const float *b, size_t count);

#endif
