/*
 * What the files of a checkpoint say, and nothing more: every tensor's dtype, shape, file and
 * offset; the shape of the model; the formats it declares. Nothing is guessed and no weight is
 * read.
 */
#ifndef TSR_RUNTIME_CHECKPOINT_CHECKPOINT_H
#define TSR_RUNTIME_CHECKPOINT_CHECKPOINT_H

#include "runtime/base/model_facts.h"
#include "runtime/base/problems.h"
#include "runtime/base/status.h"
#include "runtime/checkpoint/safetensors.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One row of quantized_layers, or the uniform declaration. */
typedef struct tsr_declared {
    const char *name;     /* canonical module name (module_name.h); owned by the checkpoint */
    const char *original; /* as the file spells it, for messages */
    const char *algo;     /* as the file spells it */
    int32_t group_size;   /* 0: not given */
} tsr_declared;

/* hf_quant_config.json or config.json:quantization_config, parsed and canonical. */
typedef struct tsr_declarations {
    bool quantized;       /* false: neither file declares anything */
    bool mixed;           /* MIXED_PRECISION */
    const char *source;   /* file and field the declarations were taken from */
    tsr_declared uniform; /* algo NULL: none */
    tsr_declared *layers; /* [layer_count] sorted by name */
    char **excludes;      /* [exclude_count] canonical patterns */
    char **exclude_originals;
    const char *kv_algo;     /* NULL: none */
    tsr_declared *kv_layers; /* [kv_layer_count] layerwise KV, sorted by name */
    size_t layer_count;
    size_t exclude_count;
    size_t kv_layer_count;
    bool fp8_block_base; /* quant_method fp8 with weight_block_size: the excluded are FP8 blocks */
} tsr_declarations;

/* generation_config.json, with what it leaves out marked. */
typedef struct tsr_generation_defaults {
    bool has_temperature, has_top_p, has_top_k;
    float temperature; /* 0 where do_sample is false */
    float top_p;
    int32_t top_k;
    float min_p;
    float repetition_penalty; /* 0: not given */
    int32_t max_new_tokens;   /* 0: not given */
    char unserved[160];       /* "num_beams 4, typical_p 0.9": what is not served, or "" */
} tsr_generation_defaults;

typedef struct tsr_checkpoint {
    char *folder;
    char **files;         /* [file_count] names inside the folder */
    tsr_file_mark *marks; /* [file_count] */
    tsr_tensor *tensors;  /* [tensor_count] sorted by name, names canonical (module_name.h) */
    size_t tensor_count;
    size_t file_count;
    tsr_model_facts model;
    tsr_declarations declared;
    tsr_generation_defaults generation;
    void *memory; /* private: what the strings live in */
} tsr_checkpoint;

/*
 * Reads config.json, generation_config.json, the quantization declarations and every header.
 * What is wrong or worth saying is added to `problems`, each with file, tensor or field.
 *
 * TSR_ERR_CHECKPOINT  an error was added; *ret_checkpoint is not written
 */
TSR_MUST_USE tsr_status tsr_checkpoint_open(const char *folder, tsr_problems *problems,
                                            tsr_checkpoint **ret_checkpoint);

/* The tensor of that name, or NULL. */
const tsr_tensor *tsr_checkpoint_find(const tsr_checkpoint *checkpoint, const char *name);

/*
 * True for names that belong to a layer behind the model's last, in families that predict further
 * tokens there. These layers are skipped, wherever their tensors stand.
 */
bool tsr_model_is_mtp_name(const tsr_model_facts *model, const char *name);

/* Another id that ends an answer, which may be there already. False: it is no id of the model, or
 * there are too many. */
bool tsr_model_add_eos(tsr_model_facts *model, int32_t id);

/* NULL is allowed. */
void tsr_checkpoint_close(tsr_checkpoint *checkpoint);

#endif
