/* Lengths of sequences, and the digest that ranks compare. */
#include "proto/step_state.h"

#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>

tsr_status tsr_step_state_open(uint32_t ranks, uint32_t max_num_seqs, tsr_step_state *ret_state)
{
    uint32_t *length = calloc((size_t)ranks * max_num_seqs, sizeof(*length));
    if (length == NULL)
        return TSR_ERR_MEMORY;

    *ret_state = (tsr_step_state){
        .length = length, .ranks = ranks, .max_num_seqs = max_num_seqs, .epoch = 1};
    return TSR_OK;
}

void tsr_step_state_close(tsr_step_state *state)
{
    free(state->length);
    *state = (tsr_step_state){0};
}

/* What a sequence adds to the lengths; one without positions adds nothing. */
static uint64_t hash_of(uint64_t rank, uint64_t slot, uint32_t length)
{
    const uint64_t what[3] = {rank, slot, length};
    return length == 0 ? 0 : XXH64(what, sizeof(what), 0);
}

tsr_status tsr_step_state_apply(tsr_step_state *state, const tsr_step_plan *step, uint32_t rank)
{
    for (uint32_t i = 0; i < step->header->entries; i++) {
        const tsr_step_entry *e = &step->entry[i];
        uint32_t *length = &state->length[(size_t)e->rank * state->max_num_seqs + e->slot];
        const bool resumes = (e->flags & TSR_ENTRY_RESUME) != 0 && *length == 0;
        const uint32_t after = tsr_step_entry_computes(e) ? e->first_position + e->tokens : 0;

        if (tsr_step_entry_computes(e) && e->first_position != *length && !resumes) {
            tsr_log(TSR_LOG_ERROR,
                    "step %" PRIu64 " on rank %" PRIu32 ": first_position of rank %" PRIu32
                    " slot %" PRIu32 ": expected %" PRIu32 ", got %" PRIu32
                    "; the ranks no longer agree, start the job again",
                    state->epoch, rank, e->rank, e->slot, *length, e->first_position);
            return TSR_ERR_MISMATCH;
        }
        state->lengths ^= hash_of(e->rank, e->slot, *length) ^ hash_of(e->rank, e->slot, after);
        *length = after;
    }

    const uint64_t chain[3] = {state->digest, state->epoch, state->lengths};
    state->digest = XXH64(chain, sizeof(chain), 0);
    state->epoch++;
    return TSR_OK;
}
