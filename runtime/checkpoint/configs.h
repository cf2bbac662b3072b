/* What the JSON files of a checkpoint say: the model, its declarations, sampling. Private. */
#ifndef TSR_RUNTIME_CHECKPOINT_CONFIGS_H
#define TSR_RUNTIME_CHECKPOINT_CONFIGS_H

#include "runtime/base/arena.h"
#include "runtime/checkpoint/checkpoint.h"

typedef struct tsr_configs {
    tsr_model_facts model;
    tsr_declarations declared; /* names are owned by the arena */
    tsr_generation_defaults generation;
} tsr_configs;

/* TSR_ERR_CHECKPOINT  errors were added; *ret_configs is not written */
TSR_MUST_USE tsr_status tsr_configs_read(const char *folder, tsr_arena *memory,
                                         tsr_problems *problems, tsr_configs *ret_configs);

#endif
