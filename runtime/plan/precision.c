/*
 * All claims are made before the first is proven, since experts of a layer are claimed together. KV
 * scales without a declared FP8 cache are not looked for, and so end as leftovers, which are
 * refused.
 */
#include "runtime/plan/precision.h"

#include "runtime/plan/modules.h"
#include "runtime/plan/prove.h"
#include "runtime/plan/resolve.h"

#include <stdlib.h>

/* Keeps the vectors that are stored; a KV scale that is not stands for 1. */
static void prove_vectors(tsr_prover *prover, tsr_precision *p)
{
    int32_t kept = 0, missing = 0;

    for (int32_t i = 0; i < p->vector_count; i++) {
        tsr_vector_plan vector = p->vectors[i];
        if (tsr_role_is_kv_scale(vector.role) && p->kv == TSR_KV_DECLARED_NONE)
            continue;
        if (tsr_prove_vector(prover, &vector))
            p->vectors[kept++] = vector;
        else
            missing += tsr_role_is_kv_scale(vector.role);
    }
    p->vector_count = kept;
    if (missing > 0 && p->kv == TSR_KV_DECLARED_FP8)
        tsr_problems_add(prover->problems, TSR_SEVERITY_NOTE,
                         "%d k_scale and v_scale tensors of the FP8 KV cache are missing; 1.0 is "
                         "used for them",
                         missing);
}

static tsr_status fill_precision(const tsr_checkpoint *checkpoint, tsr_tensor_index *index,
                                 tsr_problems *problems, tsr_precision *p)
{
    tsr_prover prover = {checkpoint, index, problems};
    tsr_status st = tsr_modules_list(&checkpoint->model, &p->linears, &p->linear_count);

    if (st == TSR_OK)
        st = tsr_vectors_list(&checkpoint->model, &p->vectors, &p->vector_count);
    if (st == TSR_OK) {
        p->claims = calloc((size_t)p->linear_count + 1, sizeof(*p->claims));
        st = p->claims == NULL ? TSR_ERR_MEMORY : TSR_OK;
    }
    if (st == TSR_OK)
        st = tsr_resolve(checkpoint, p->linears, p->linear_count, problems, p->claims);
    if (st == TSR_OK)
        st = tsr_tensor_index_open(checkpoint, index);
    if (st != TSR_OK)
        return st;
    tsr_resolve_kv(checkpoint, p);
    for (int32_t i = 0; i < p->linear_count; i++)
        tsr_prove_linear(&prover, &p->linears[i], &p->claims[i]);
    prove_vectors(&prover, p);
    tsr_prove_leftovers(&prover);
    return TSR_OK;
}

tsr_status tsr_precision_read(const tsr_checkpoint *checkpoint, tsr_problems *problems,
                              tsr_precision **ret_precision)
{
    tsr_tensor_index index = {0};
    tsr_precision *p = calloc(1, sizeof(*p));
    const tsr_status st =
        p == NULL ? TSR_ERR_MEMORY : fill_precision(checkpoint, &index, problems, p);

    tsr_tensor_index_close(&index);
    if (st != TSR_OK) {
        tsr_precision_close(p);
        return st;
    }
    *ret_precision = p;
    return TSR_OK;
}

void tsr_precision_close(tsr_precision *precision)
{
    if (precision == NULL)
        return;
    free(precision->linears);
    free(precision->claims);
    free(precision->vectors);
    free(precision);
}
