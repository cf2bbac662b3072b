/* "experts=nvfp4,fp8,attention=bf16" as a table. Private to this folder. */
#ifndef TSR_RUNTIME_SYNTHETIC_PRECISION_WORDS_H
#define TSR_RUNTIME_SYNTHETIC_PRECISION_WORDS_H

#include "proto/plan.h"

/* What a precision is given to; everything else is never quantized. */
typedef enum tsr_synthetic_module {
    TSR_SYNTHETIC_EXPERTS,
    TSR_SYNTHETIC_ATTENTION,
    TSR_SYNTHETIC_SHARED,
    TSR_SYNTHETIC_DENSE,
    TSR_SYNTHETIC_HEAD,
    TSR_SYNTHETIC_MODULES,
} tsr_synthetic_module;

enum { TSR_SYNTHETIC_MOST_FORMATS = 8 };

typedef struct tsr_synthetic_precision {
    tsr_algo algo[TSR_SYNTHETIC_MODULES][TSR_SYNTHETIC_MOST_FORMATS];
    int32_t count[TSR_SYNTHETIC_MODULES]; /* 0: bf16 */
} tsr_synthetic_precision;

/* NULL reads as "". TSR_ERR_ARG, logged */
TSR_MUST_USE tsr_status tsr_synthetic_precision_read(const char *text,
                                                     tsr_synthetic_precision *ret_precision);

/* TSR_SYNTHETIC_MODULES for a role that is never quantized. */
tsr_synthetic_module tsr_synthetic_module_of(tsr_role role);

/* Of the `ordinal`-th layer that has the module, counted from 0. */
tsr_algo tsr_synthetic_algo(const tsr_synthetic_precision *precision, tsr_synthetic_module module,
                            int32_t ordinal);

#endif
