/* Tables of module name to format: `quantized_layers` and `kv_cache_quantized_layers`. Private. */
#ifndef TSR_RUNTIME_CHECKPOINT_QUANT_TABLE_H
#define TSR_RUNTIME_CHECKPOINT_QUANT_TABLE_H

#include "runtime/base/arena.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/json_fields.h"

/*
 * Reads the table `member`, also when it stands once more inside itself. Rows are canonical, sorted
 * by name; two keys that mean one module must agree and become one row. Left out: no rows.
 */
TSR_MUST_USE tsr_status tsr_quant_table_read(const tsr_fields *fields, const char *member,
                                             tsr_arena *memory, tsr_declared **ret_rows,
                                             size_t *ret_count);

/* A name or pattern of a file, as it stands there and canonical. */
typedef struct tsr_quant_name {
    char *original;
    char *canonical;
} tsr_quant_name;

/*
 * Copies a name of the list or table `member`.
 *
 * TSR_ERR_CHECKPOINT  it is unusably long or has control characters; an error was added
 */
TSR_MUST_USE tsr_status tsr_quant_name_read(const tsr_fields *fields, const char *member,
                                            const char *name, tsr_arena *memory,
                                            tsr_quant_name *ret_name);

#endif
