/* Amounts of memory as people read them. */
#ifndef TSR_RUNTIME_PLAN_BYTE_COUNT_H
#define TSR_RUNTIME_PLAN_BYTE_COUNT_H

#include <stdint.h>

enum { TSR_BYTE_COUNT_BYTES = 32 };

/* "12.3 GiB"; returns ret_text. */
const char *tsr_byte_count_text(uint64_t bytes, char ret_text[TSR_BYTE_COUNT_BYTES]);

#endif
