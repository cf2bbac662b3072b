#include "launch/plan_request.h"

#include "runtime/base/log.h"

#include <string.h>

static tsr_activations_mode mode_of(const char *name)
{
    if (strcmp(name, "declared") == 0)
        return TSR_ACTIVATIONS_DECLARED;
    if (strcmp(name, "weight-only") == 0)
        return TSR_ACTIVATIONS_WEIGHT_ONLY;
    return TSR_ACTIVATIONS_AUTO;
}

tsr_status tsr_plan_request_read(const tsr_config *config, const char *target_name, int32_t ranks,
                                 tsr_plan_request *ret_request)
{
    tsr_plan_request request = {
        .ranks = ranks,
        .target = tsr_target_find(target_name),
        .activations_of = config->activations_of ? tsr_target_find(config->activations_of) : NULL,
        .activations = mode_of(config->activations),
        .kv_cache_dtype = config->kv_cache_dtype,
        .memory_bytes = (uint64_t)config->memory,
        .max_model_len = (int32_t)config->max_model_len,
        .max_num_seqs = (int32_t)config->max_num_seqs,
        .max_batched_tokens = (int32_t)config->max_batched_tokens,
        .kv_block_tokens = (int32_t)config->block_size,
        .exchange_tokens = (int32_t)config->exchange_tokens,
        .threads = (int32_t)config->threads,
    };
    if (!request.target) {
        int64_t bytes = 0;
        if (!tsr_config_read_size(target_name, &bytes)) {
            tsr_log(TSR_LOG_ERROR,
                    "--target %s: expected h200, b200, cpu or an amount of memory "
                    "such as 24GiB",
                    target_name);
            return TSR_ERR_ARG;
        }
        request.target = tsr_target_find("cpu");
        request.memory_bytes = (uint64_t)bytes;
    }
    *ret_request = request;
    return TSR_OK;
}
