/*
 * What the stored tensors prove. Each linear's tensors must be of the dtype and shape that its
 * claimed format has on disk, none missing and none left over: a scale that nobody reads would load
 * and corrupt every answer.
 */
#ifndef TSR_RUNTIME_PLAN_PROVE_H
#define TSR_RUNTIME_PLAN_PROVE_H

#include "runtime/plan/precision.h"
#include "runtime/plan/tensor_index.h"

typedef struct tsr_prover {
    const tsr_checkpoint *checkpoint;
    tsr_tensor_index *index;
    tsr_problems *problems;
} tsr_prover;

/*
 * Sets algo, format, activation and the places of one linear, and consumes its tensors. A
 * contradiction is added to the problems and marked in the claim. A claim that did not mean this
 * module (a router in a uniform checkpoint) becomes "none" when it is stored so.
 */
void tsr_prove_linear(tsr_prover *prover, tsr_linear_plan *linear, tsr_claim *claim);

/* The same for a vector; false when it is a KV scale that is not stored. */
bool tsr_prove_vector(tsr_prover *prover, tsr_vector_plan *vector);

/* Every tensor that found no use: an error, or a note where it is known to have none. */
void tsr_prove_leftovers(const tsr_prover *prover);

#endif
