/*
 * What a fault says. A kernel has no words: it leaves a kind and a few numbers, and whoever lands
 * the step says them here, block by block.
 *
 *   kernel   fault {kind, row, slot, value, limit}  --lands-->  host   one line
 */
#include "kernels/device_ops.h"
#include "runtime/base/log.h"

#include <inttypes.h>

/* Of embed and attention. False: of another block. */
static bool say_rows(const tsr_fault *f)
{
    if (f->kind == TSR_FAULT_TOKEN)
        tsr_log(TSR_LOG_ERROR, "embed: id %" PRId32 " of token %" PRId32 " is not in 0..%" PRId32,
                f->value, f->row, f->limit - 1);
    else if (f->kind == TSR_FAULT_PLACE)
        tsr_log(TSR_LOG_ERROR,
                "embed: slot %" PRId32 ", position %" PRId32 " of token %" PRId32
                " is outside the text",
                f->slot, f->value, f->row);
    else if (f->kind == TSR_FAULT_SEQUENCE)
        tsr_log(TSR_LOG_ERROR,
                "attention: sequence %" PRId32 ", rows up to %" PRId32 ", positions up to %" PRId32
                ", exceeds the step or the %" PRId32 " positions reserved",
                f->row, f->slot, f->value, f->limit);
    else if (f->kind == TSR_FAULT_BLOCK)
        tsr_log(TSR_LOG_ERROR,
                "attention: sequence %" PRId32 " holds block %" PRId32 " of %" PRId32, f->row,
                f->value, f->limit);
    else
        return false;
    return true;
}

static bool say_experts(const tsr_fault *f)
{
    if (f->kind == TSR_FAULT_ROWS)
        tsr_log(TSR_LOG_ERROR, "experts: %" PRId32 " rows, reserved were %" PRId32, f->value,
                f->limit);
    else if (f->kind == TSR_FAULT_EXPERT)
        tsr_log(TSR_LOG_ERROR,
                "experts: row %" PRId32 ", slot %" PRId32 " asks for expert %" PRId32
                ", which is not here",
                f->row, f->slot, f->value);
    else if (f->kind == TSR_FAULT_ANSWERS)
        tsr_log(TSR_LOG_ERROR,
                "experts: row %" PRId32 ", slot %" PRId32
                " asks for one answer more than the %" PRId32 " reserved",
                f->row, f->slot, f->limit);
    else if (f->kind == TSR_FAULT_WIDE)
        tsr_log(TSR_LOG_ERROR,
                "experts: row %" PRId32 ", slot %" PRId32
                ": gate and up were not computed in %" PRId32
                " s: does another program hold this GPU's processors?",
                f->row, f->slot, f->limit);
    else
        return false;
    return true;
}

static void say_predict(const tsr_fault *f)
{
    if (f->kind == TSR_FAULT_X_ROW)
        tsr_log(TSR_LOG_ERROR,
                "predict: logits %" PRId32 " are those of row %" PRId32 ", reserved were %" PRId32,
                f->row, f->value, f->limit);
    else if (f->kind == TSR_FAULT_LOGIT_ROW)
        tsr_log(TSR_LOG_ERROR, "predict: sample %" PRId32 " is of logits %" PRId32 " of %" PRId32,
                f->row, f->value, f->limit);
    else if (f->kind == TSR_FAULT_TOP)
        tsr_log(TSR_LOG_ERROR,
                "predict: sample %" PRId32 " tells of ids up to %" PRId32 " of %" PRId32, f->row,
                f->value, f->limit);
    else if (f->kind == TSR_FAULT_MASK)
        tsr_log(TSR_LOG_ERROR,
                "predict: sample %" PRId32 " is held to mask %" PRId32 " of %" PRId32, f->row,
                f->value, f->limit);
    else
        tsr_log(TSR_LOG_ERROR, "predict: sample %" PRId32 " goes to slot %" PRId32 " of %" PRId32,
                f->row, f->value, f->limit);
}

void tsr_fault_say(const tsr_fault *fault)
{
    if (!say_rows(fault) && !say_experts(fault))
        say_predict(fault);
}
