/* From a request to a folder: shape and precision, tensors, files. */
#include "runtime/synthetic/synthetic.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"
#include "runtime/synthetic/config_files.h"
#include "runtime/synthetic/shard_files.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { NAMES_BYTES = 256, FOLDER_MODE = 0755, LEAST_VOCAB = 256 + TSR_SYNTHETIC_ADDED_TOKENS };

static const uint64_t file_bytes = (uint64_t)4 << 30;

/* A sixteenth of what is written, within reason, so that small checkpoints are made at once. */
static const uint64_t largest_pool = (uint64_t)64 << 20;

static tsr_status find_shape(const tsr_synthetic_request *request, tsr_synthetic_shape *ret_shape)
{
    const tsr_synthetic_shape *found = tsr_synthetic_shape_find(request->shape);
    char names[NAMES_BYTES] = "";
    size_t used = 0;

    if (found != NULL) {
        *ret_shape = *found;
        return TSR_OK;
    }
    for (size_t i = 0; tsr_synthetic_shape_name(i) != NULL && used < sizeof(names); i++)
        used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", i > 0 ? ", " : "",
                                 tsr_synthetic_shape_name(i));
    tsr_log(TSR_LOG_ERROR, "--shape %s: expected one of %s", request->shape, names);
    return TSR_ERR_ARG;
}

/* The shape that is asked for, fewer layers and ids applied. */
static tsr_status read_shape(const tsr_synthetic_request *request, tsr_synthetic_shape *ret_shape)
{
    tsr_synthetic_shape shape;
    const tsr_status st = find_shape(request, &shape);
    if (st != TSR_OK)
        return st;
    if (request->layers != 0 &&
        (request->layers <= shape.dense_layers || request->layers > shape.layers)) {
        tsr_log(TSR_LOG_ERROR, "--layers %d: %s has %d layers, expected %d to %d", request->layers,
                shape.name, shape.layers, shape.dense_layers + 1, shape.layers);
        return TSR_ERR_ARG;
    }
    if (request->vocab != 0 && (request->vocab < LEAST_VOCAB || request->vocab > shape.vocab)) {
        tsr_log(TSR_LOG_ERROR, "--vocab %d: %s has %d ids, expected %d to %d", request->vocab,
                shape.name, shape.vocab, LEAST_VOCAB, shape.vocab);
        return TSR_ERR_ARG;
    }
    if (request->layers > 0)
        shape.layers = request->layers;
    if (request->vocab > 0)
        shape.vocab = request->vocab;
    *ret_shape = shape;
    return TSR_OK;
}

static bool is_empty(DIR *folder)
{
    int others = 0;

    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
        others += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    return others == 0;
}

/* Nothing is written over, and nothing older stands beside what is written. */
static tsr_status make_folder(const char *folder)
{
    (void)mkdir(folder, FOLDER_MODE);
    DIR *opened = opendir(folder);
    if (opened == NULL) {
        tsr_log(TSR_LOG_ERROR, "%s: cannot be made: %s", folder, strerror(errno));
        return TSR_ERR_OUTPUT;
    }
    const bool empty = is_empty(opened);
    (void)closedir(opened);
    if (empty)
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR, "%s: is not empty; name a new folder", folder);
    return TSR_ERR_ARG;
}

static tsr_status write_files(const tsr_synthetic_request *request,
                              const tsr_synthetic_shape *shape, const tsr_tensor_set *set)
{
    const uint64_t bytes = tsr_smaller_size(set->bytes / 16, largest_pool);
    tsr_random_pool *pool = NULL;

    tsr_status st = make_folder(request->folder);
    if (st == TSR_OK)
        st = tsr_random_pool_open(request->seed, (size_t)bytes, &pool);
    if (st == TSR_OK)
        st = tsr_shard_files_write(request->folder, set, pool, request->seed, request->threads);
    tsr_random_pool_close(pool);
    return st == TSR_OK ? tsr_config_files_write(request->folder, shape, set) : st;
}

tsr_status tsr_synthetic_check(const tsr_synthetic_request *request)
{
    tsr_synthetic_precision precision;
    tsr_synthetic_shape shape;
    const tsr_status st = read_shape(request, &shape);

    return st == TSR_OK ? tsr_synthetic_precision_read(request->precision, &precision) : st;
}

tsr_status tsr_synthetic_write(const tsr_synthetic_request *request,
                               tsr_synthetic_result *ret_result)
{
    const int64_t start = tsr_clock_ns();
    tsr_synthetic_precision precision;
    tsr_synthetic_shape shape;
    tsr_model_facts model;
    tsr_tensor_set set = {0};

    tsr_status st = read_shape(request, &shape);
    if (st == TSR_OK)
        st = tsr_synthetic_precision_read(request->precision, &precision);
    if (st != TSR_OK)
        return st;
    tsr_synthetic_facts(&shape, &model);
    st = tsr_tensor_set_fill(&model, &precision, file_bytes, &set);
    if (st == TSR_OK)
        st = write_files(request, &shape, &set);
    if (st == TSR_OK)
        *ret_result = (tsr_synthetic_result){.bytes = set.bytes,
                                             .tensors = set.count,
                                             .files = set.files,
                                             .ns = tsr_clock_ns() - start};
    tsr_tensor_set_close(&set);
    return st;
}
