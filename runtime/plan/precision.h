/*
 * The precision of every module: what the declarations claim, and what the stored tensors prove.
 *
 *   modules (model facts) -> claims (resolve.c) -> proofs (prove.c)
 *
 * Contradictions are added to `problems`, each naming the tensor; the precision is there all the
 * same, so that `inspect` can show what is wrong where.
 */
#ifndef TSR_RUNTIME_PLAN_PRECISION_H
#define TSR_RUNTIME_PLAN_PRECISION_H

#include "proto/plan.h"
#include "runtime/base/problems.h"
#include "runtime/checkpoint/checkpoint.h"

/* Which rule gave a module its algorithm. */
typedef enum tsr_origin {
    TSR_ORIGIN_UNDECLARED, /* the checkpoint declares no format at all */
    TSR_ORIGIN_ABSENT,     /* MIXED_PRECISION without a key for it: unquantized */
    TSR_ORIGIN_EXCLUDED,   /* an exclusion speaks for it */
    TSR_ORIGIN_KEY,        /* a key of its own (experts: one per expert and projection) */
    TSR_ORIGIN_BLOCK,      /* the key of the layer's experts */
    TSR_ORIGIN_UNIFORM,    /* the one format of the whole checkpoint */
} tsr_origin;

/* What is claimed of one linear, and whether its tensors bear it out. */
typedef struct tsr_claim {
    tsr_origin origin;
    tsr_algo algo;
    int32_t group_size;
    int32_t row;  /* KEY, BLOCK: index into declared.layers; EXCLUDED: into excludes; else -1 */
    bool refused; /* an algorithm that is not served, or a gap among keys; said already */
    bool contradicted; /* the tensors say otherwise; said already */
} tsr_claim;

/* How the checkpoint declares its keys and values. */
typedef enum tsr_kv_declared {
    TSR_KV_DECLARED_NONE,
    TSR_KV_DECLARED_FP8,
    TSR_KV_DECLARED_REFUSED, /* some other format, or one that differs by layer */
} tsr_kv_declared;

typedef struct tsr_precision {
    tsr_linear_plan *linears; /* [linear_count] with the declared activation */
    tsr_claim *claims;        /* [linear_count] */
    tsr_vector_plan *vectors; /* [vector_count] those that are stored */
    int32_t linear_count;
    int32_t vector_count;
    tsr_kv_declared kv;
    char kv_refused[256]; /* why, where it is; ends a sentence */
} tsr_precision;

/*
 * Resolves and proves. Close *ret_precision.
 *
 * TSR_ERR_MEMORY. A checkpoint that contradicts itself is TSR_OK with errors in `problems`.
 */
TSR_MUST_USE tsr_status tsr_precision_read(const tsr_checkpoint *checkpoint, tsr_problems *problems,
                                           tsr_precision **ret_precision);

/* NULL is allowed. */
void tsr_precision_close(tsr_precision *precision);

#endif
