/*
 * A checkpoint made in memory: facts of a small model, what it declares, and tensors stored as the
 * test says. Tests then change one thing.
 */
#ifndef TSR_TESTS_PLAN_MADE_CHECKPOINT_H
#define TSR_TESTS_PLAN_MADE_CHECKPOINT_H

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/plan/plan_build.h"
#include "runtime/plan/precision.h"

enum { MADE_LAYERS = 20, MADE_EXPERTS = 4 };

typedef struct made_checkpoint made_checkpoint;

/* How a linear is stored. */
typedef tsr_algo (*made_storage)(const tsr_linear_plan *linear);

/* MADE_LAYERS layers of MADE_EXPERTS experts, the first layer dense; GLM with a shared expert. */
tsr_model_facts made_model(void);

/* Nothing is declared yet. */
made_checkpoint *made_open(const tsr_model_facts *model, made_storage storage);

void made_close(made_checkpoint *made);

/* Declarations. Names and algorithms must outlive the checkpoint. */
void made_uniform(made_checkpoint *made, const char *algo, int32_t group_size);
void made_mixed(made_checkpoint *made);
void made_key(made_checkpoint *made, const char *name, const char *algo, int32_t group_size);
void made_exclude(made_checkpoint *made, const char *pattern);

/* A key for each projection of each expert of the layer, from expert `first` on. */
void made_expert_keys(made_checkpoint *made, int32_t layer, int32_t first, const char *algo);

/* Keys that say of every linear how it is stored; experts by block. */
void made_keys_as_stored(made_checkpoint *made);

/* Tensors. */
tsr_tensor *made_tensor(made_checkpoint *made, const char *name);
void made_drop(made_checkpoint *made, const char *name);
void made_add(made_checkpoint *made, const char *name, tsr_dtype dtype, int32_t rank,
              const int64_t *shape);

/* Sorted and ready to read; valid until the next change. */
const tsr_checkpoint *made_view(made_checkpoint *made);

/* Storage by layer and role, for the tests. */
tsr_algo stored_plain(const tsr_linear_plan *linear);
tsr_algo stored_nvfp4(const tsr_linear_plan *linear); /* every linear that may be */
tsr_algo stored_nvfp4_experts(const tsr_linear_plan *linear);

/* The claim of a module in a precision; fails the test when there is none. */
const tsr_claim *claim_named(const tsr_precision *precision, const char *module);

/* Fails the test unless a problem of that severity holds every one of the texts (NULL: none). */
void assert_problem(const tsr_problems *problems, tsr_severity severity, const char *first,
                    const char *second);

/* Fails the test, printing them, unless there are exactly that many errors. */
void assert_errors(const tsr_problems *problems, size_t count);

#endif
