/* Whether jansson ran out of memory: where it does, it takes what it reads for wrong. */
#ifndef TSR_RUNTIME_BASE_JSON_MEMORY_H
#define TSR_RUNTIME_BASE_JSON_MEMORY_H

#include <stdbool.h>

/* Before a call of jansson, on this thread. */
void tsr_json_memory_begin(void);

/* Whether there was not enough for it since. */
bool tsr_json_memory_ran_out(void);

#endif
