/* Where the two files that declare precision disagree. Private. */
#ifndef TSR_RUNTIME_CHECKPOINT_QUANT_COMPARE_H
#define TSR_RUNTIME_CHECKPOINT_QUANT_COMPARE_H

#include "runtime/checkpoint/checkpoint.h"

/* Adds one warning for each kind of difference; `used` is the side that will be followed. */
void tsr_quant_compare(const tsr_declarations *used, const tsr_declarations *other,
                       tsr_problems *problems);

#endif
