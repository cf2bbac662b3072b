/*
 * Decided here, once for each linear, and carried in the plan: a kernel is told what to do with
 * rows and never asks what was declared or which device this is. So a CPU can compute what an H200
 * would.
 */
#include "runtime/plan/activations.h"

#include "runtime/plan/algos.h"
#include "runtime/plan/modules.h"
#include "runtime/plan/targets.h"

#include <string.h>

static const tsr_target *abilities(const tsr_plan_request *request)
{
    return request->activations_of != NULL ? request->activations_of : request->target;
}

/* Missing scales are never guessed: each is named, up to what the list of problems holds. */
static void require_input_scale(const tsr_linear_plan *linear, tsr_problems *problems)
{
    char module[TSR_MODULE_NAME_BYTES];

    if (!tsr_activation_is_static(linear->activation) || linear->input_scale.file != TSR_NO_FILE)
        return;
    tsr_module_name(linear, module);
    tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                     "tensor %s.input_scale is missing, and %s quantizes its activations by it; "
                     "serve the weights alone with --activations weight-only",
                     module, tsr_algo_name(linear->algo));
}

tsr_status tsr_activations_settle(const tsr_plan_request *request, tsr_problems *problems,
                                  tsr_precision *precision)
{
    const tsr_target *target = abilities(request);
    const size_t errors = problems->errors;
    const tsr_linear_plan *cannot = NULL;

    for (int32_t i = 0; i < precision->linear_count; i++) {
        tsr_linear_plan *linear = &precision->linears[i];
        const bool can = tsr_target_can(target, linear->activation);
        if (!can && cannot == NULL)
            cannot = linear;
        if (request->activations == TSR_ACTIVATIONS_WEIGHT_ONLY ||
            (request->activations == TSR_ACTIVATIONS_AUTO && !can))
            linear->activation = TSR_ACTIVATION_NONE;
        else
            require_input_scale(linear, problems);
    }
    if (request->activations == TSR_ACTIVATIONS_DECLARED && cannot != NULL) {
        char module[TSR_MODULE_NAME_BYTES], lack[128];
        tsr_module_name(cannot, module);
        tsr_target_lack(target, cannot->activation, sizeof(lack), lack);
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "--activations declared: %s is declared %s, but %s; use --activations "
                         "auto to compute it with unquantized activations",
                         module, tsr_algo_name(cannot->algo), lack);
        return TSR_ERR_DEVICE;
    }
    return problems->errors > errors ? TSR_ERR_CHECKPOINT : TSR_OK;
}

/* What --kv-cache-dtype says; false when it leaves the choice to the checkpoint. */
static bool read_kv_dtype(const char *text, tsr_kv_format *ret_format, bool *ret_known)
{
    *ret_known = true;
    if (text == NULL || strcmp(text, "auto") == 0)
        return false;
    for (int f = 0; f < TSR_KV_FORMAT_COUNT; f++) {
        if (strcmp(text, tsr_kv_format_name((tsr_kv_format)f)) == 0) {
            *ret_format = (tsr_kv_format)f;
            return true;
        }
    }
    *ret_known = false;
    return false;
}

tsr_status tsr_kv_settle(const tsr_plan_request *request, const tsr_precision *precision,
                         tsr_problems *problems, tsr_kv_format *ret_format)
{
    tsr_kv_format format = request->target->plain_kv;
    bool known, chosen = read_kv_dtype(request->kv_cache_dtype, &format, &known);

    if (!known) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "--kv-cache-dtype %s: %s takes auto, f32, bf16 or fp8",
                         request->kv_cache_dtype, request->target->name);
        return TSR_ERR_ARG;
    }
    if (!chosen && request->activations != TSR_ACTIVATIONS_WEIGHT_ONLY) {
        if (precision->kv == TSR_KV_DECLARED_REFUSED) {
            tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                             "%s, which is not served; choose one with --kv-cache-dtype bf16 or "
                             "fp8",
                             precision->kv_refused);
            return TSR_ERR_CHECKPOINT;
        }
        if (precision->kv == TSR_KV_DECLARED_FP8)
            format = TSR_KV_FP8;
    }
    if (format == TSR_KV_FP8 && precision->kv == TSR_KV_DECLARED_NONE)
        tsr_problems_add(problems, TSR_SEVERITY_NOTE,
                         "--kv-cache-dtype fp8: the checkpoint has no KV scales; 1.0 is used");
    *ret_format = format;
    return TSR_OK;
}
