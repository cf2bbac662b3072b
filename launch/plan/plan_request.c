/* From the command line's words to what the plan is asked. */
#include "launch/plan/plan_request.h"

#include "launch/cli/option_table.h"

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

/* Memory alone stands for the device that computes here, with so much of it. */
static tsr_status read_memory(const char *target_name, tsr_plan_request *request)
{
    char choices[TSR_CHOICES_BYTES];
    int64_t bytes = 0;

    if (!tsr_config_read_size(target_name, &bytes)) {
        tsr_log(TSR_LOG_ERROR,
                "--target %s: expected one of %s or an amount of memory such as 24GiB", target_name,
                tsr_option_choices("target", choices));
        return TSR_ERR_ARG;
    }
    request->memory_bytes = (uint64_t)bytes;
    return TSR_OK;
}

tsr_status tsr_plan_request_read(const tsr_config *config, const tsr_backend *backend,
                                 const char *target_name, int32_t ranks,
                                 tsr_plan_request *ret_request)
{
    const char *own = backend->target();
    if (own == NULL)
        return TSR_ERR_DEVICE;
    const tsr_target *here = tsr_target_find(own);
    const tsr_target *named = target_name != NULL ? tsr_target_find(target_name) : here;
    const char *as_on = config->activations_of;
    tsr_plan_request request = {
        .ranks = ranks,
        .target = named != NULL ? named : here,
        .activations_of = as_on != NULL ? tsr_target_find(as_on) : NULL,
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
    const tsr_status st = named == NULL ? read_memory(target_name, &request) : TSR_OK;
    if (st == TSR_OK)
        *ret_request = request;
    return st;
}
