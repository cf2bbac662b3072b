/*
 * The table of declared algorithms: what a checkpoint may call a format, how such a weight is
 * stored, and what happens to the rows that meet it. Serving another format means a row in algos.c
 * and its kernels.
 */
#ifndef TSR_RUNTIME_PLAN_ALGOS_H
#define TSR_RUNTIME_PLAN_ALGOS_H

#include "proto/plan.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tsr_algo_row {
    const char *name;          /* canonical */
    const char *alias;         /* another spelling, or NULL */
    tsr_weight_format format;  /* of the stored weight; BF16 stands for any plain type */
    tsr_activation activation; /* as the name declares it */
    int32_t group_size;        /* weights that share a scale along `in`; 0: no groups */
    bool may_have_input_scale; /* the exporter writes one beside the weight */
    bool may_have_pre_quant_scale;
} tsr_algo_row;

/* "NVFP4", "FP8_PB_WO"; never NULL. */
const char *tsr_algo_name(tsr_algo algo);

/* Never NULL. */
const tsr_algo_row *tsr_algo_row_of(tsr_algo algo);

/* True and *ret_algo written when the name is served; case does not matter. */
bool tsr_algo_find(const char *name, tsr_algo *ret_algo);

/* True when the name is one that exporters write and Tessera does not serve. */
bool tsr_algo_is_known(const char *name);

/* True when the activation needs the stored input_scale. */
bool tsr_activation_is_static(tsr_activation activation);

#endif
