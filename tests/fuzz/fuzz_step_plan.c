/*
 * Any bytes as steps: each is refused, or followed by a rank without leaving its bounds.
 *
 *   input  | how | entries | blocks | admission bytes | bytes of a step ... | how | ...
 *
 * Where `how` asks for masks, the upper half of the third byte is their words and the lower one blocks.
 * `how` says what is put right before the step is opened, so that inputs get past the digests, and
 * whether the admission is one that holds, made from the fourth byte; the first byte's top bit has
 * the bytes taken as they are.
 */
#include "tests/fuzz/fuzz.h"

#include "proto/admission.h"
#include "proto/step_plan.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"
#include "runtime/engine/rank_batch.h"
#include "runtime/engine/rank_state.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CAPACITY = 8192, HEAD = 4, RANKS = 2, SLOTS = 3, CONTEXT = 24, IMAGE_BYTES = 4096 };
enum { FIX_TOTALS = 1, GO_ON = 2, ADMIT = 4, MASK = 8, AS_IS = 128 };

static const tsr_plan plan = {.model = {.vocab = 64},
                              .limits = {.max_model_len = CONTEXT,
                                         .max_num_seqs = SLOTS,
                                         .max_batched_tokens = 8,
                                         .logit_rows = 4,
                                         .kv_block_tokens = 4,
                                         .kv_blocks = 10},
                              .ranks = RANKS,
                              .digest = 0x5151};

static void quiet(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    (void)level;
    (void)line;
}

/* An entry that goes on where its sequence ends, with the blocks that it takes. */
static void go_on(tsr_step_entry *e, const tsr_rank_state *state)
{
    const uint32_t slots = (uint32_t)state->shape.slots;

    e->rank %= RANKS;
    e->slot %= slots;
    e->flags %= 8;
    if ((e->flags & TSR_ENTRY_RELEASE) != 0) {
        *e = (tsr_step_entry){.rank = e->rank, .slot = e->slot, .flags = TSR_ENTRY_RELEASE};
        return;
    }
    const uint32_t length = state->steps.length[e->rank * slots + e->slot];
    const uint32_t before = (uint32_t)tsr_pieces((int32_t)length, state->shape.block_tokens);
    e->tokens = 1 + e->tokens % (uint32_t)state->shape.max_batched_tokens;
    e->first_position = length;
    e->output_index %= (uint32_t)state->shape.max_model_len;
    e->block_count =
        (uint32_t)tsr_pieces((int32_t)(length + e->tokens), state->shape.block_tokens) - before;
}

/* One mask, of the first entry that samples: ids that go up, or a bit for each. */
static void put_mask(const tsr_step_plan *step)
{
    const uint32_t words = step->header->mask_words;
    uint32_t i = 0;

    while (i < step->header->entries && (step->entry[i].flags & TSR_ENTRY_SAMPLE) == 0)
        i++;
    if (i == step->header->entries || words == 0)
        return;
    step->entry[i].flags |= TSR_ENTRY_MASKED;
    if (words == 3 && step->mask[0] % 2 == 0) {
        step->mask[0] = TSR_MASK_BITS;
        return;
    }
    step->mask[0] = words - 1;
    for (uint32_t w = 1; w < words; w++)
        step->mask[w] = w > 1 ? step->mask[w - 1] + 1 + step->mask[w] % 4 : step->mask[w] % 4;
}

/* What a coordinator would have put into fields that random bytes never hit. */
static void put_right(const tsr_step_plan *step, const tsr_rank_state *state, uint8_t how)
{
    const tsr_step_bounds bounds = tsr_rank_state_bounds(state);
    uint32_t block = 0;
    uint32_t tokens[RANKS] = {0};

    step->header->epoch = bounds.epoch;
    step->header->plan_digest = bounds.plan_digest;
    step->header->state_digest = bounds.state_digest;
    for (uint32_t i = 0; i < step->header->entries; i++) {
        tsr_step_entry *e = &step->entry[i];
        if ((how & GO_ON) != 0)
            go_on(e, state);
        e->first_block = block;
        block += e->block_count;
        tokens[e->rank % RANKS] += e->tokens;
    }
    if ((how & FIX_TOTALS) != 0)
        step->header->max_rank_tokens = tokens[0] > tokens[1] ? tokens[0] : tokens[1];
    for (uint32_t i = 0; i < step->header->blocks && (how & GO_ON) != 0; i++)
        step->block[i] %= bounds.kv_blocks;
    if ((how & MASK) != 0)
        put_mask(step);
    tsr_step_plan_seal(step);
}

/* An admission that holds: to one of the rank's slots, with a prompt of up to its context. */
static tsr_admission admission_from(uint8_t byte)
{
    static const int32_t tokens[24] = {1, 2, 3};
    return (tsr_admission){.rank = 1,
                           .slot = byte % 3,
                           .top_p = 1.0F,
                           .token_count = 1 + byte / 3 % 24,
                           .tokens = tokens};
}

/* One step from the input; false when the input is used up. */
static bool take_step(const uint8_t **data, size_t *size, const tsr_rank_state *state,
                      unsigned char *buffer, size_t *ret_count)
{
    tsr_step_plan step;

    if (*size < HEAD)
        return false;
    const uint8_t *head = *data;
    const tsr_admission admission = admission_from(head[3]);
    const bool admit = (head[0] & ADMIT) != 0;
    const uint32_t admission_bytes = admit ? (uint32_t)tsr_admission_bytes(&admission) : head[3];
    const bool masks = (head[0] & MASK) != 0;
    const tsr_step_counts counts = {.entries = head[1],
                                    .blocks = masks ? head[2] % 16U : head[2],
                                    .mask_words = masks ? head[2] / 16U : 0,
                                    .admission_bytes = admission_bytes};
    const size_t count = tsr_step_plan_bytes(&counts);
    if (tsr_step_plan_lay_out(buffer, CAPACITY, &counts, &step) != TSR_OK)
        return false;
    *data += HEAD;
    *size -= HEAD;

    const size_t payload = count - sizeof(tsr_step_header) - (admit ? admission_bytes : 0);
    const size_t taken = payload < *size ? payload : *size;
    memcpy(buffer + sizeof(tsr_step_header), *data, taken);
    *data += taken;
    *size -= taken;
    if (admit)
        tsr_admission_pack(&admission, step.admissions);
    put_right(&step, state, head[0]);
    *ret_count = count;
    return true;
}

/* What the sequences of the rank say, as far as anybody wrote it; -1: nobody has. */
typedef struct texts {
    _Alignas(64) unsigned char image[IMAGE_BYTES];
    int32_t id[SLOTS][CONTEXT];
} texts;

/* What a device would do: prompts are written, rows read what was written before, samples are
 * written. Whatever it reads or writes lies within its bounds. */
static void compute(const tsr_batch *b, texts *t)
{
    const int32_t *ids = b->prompt_id;

    for (int32_t i = 0; i < b->count.prompts; i++) {
        for (int32_t p = 0; p < b->prompt[i].count; p++)
            t->id[b->prompt[i].slot][p] = *ids++;
    }
    for (int32_t i = 0; i < b->count.tokens; i++) {
        const int32_t id = t->id[b->slot[i]][b->position[i]];
        if (id < 0 || id >= plan.model.vocab)
            abort();
    }
    for (int32_t i = 0; i < b->count.samples; i++) {
        if ((b->sample[i].flags & TSR_SAMPLE_MASKED) != 0 &&
            (b->sample[i].mask < 0 || b->sample[i].mask >= b->count.masks))
            abort();
        if (b->sample[i].position < CONTEXT)
            t->id[b->sample[i].slot][b->sample[i].position] = i;
    }
}

/* A step that was opened is followed; the batch it makes is no larger than the largest. */
static bool follow(tsr_rank_state *state, texts *t, unsigned char *bytes, size_t count)
{
    const tsr_step_bounds bounds = tsr_rank_state_bounds(state);
    tsr_batch_sizes sizes;
    tsr_step_plan step;

    if (tsr_step_plan_open(bytes, count, &bounds, &step) != TSR_OK ||
        tsr_rank_state_apply(state, &step) != TSR_OK ||
        tsr_rank_batch_count(state, &step, &sizes) != TSR_OK)
        return false;
    if (sizes.prompts > SLOTS || sizes.sequences > SLOTS ||
        sizes.tokens > plan.limits.max_batched_tokens ||
        sizes.prompt_ids > tsr_batch_most(&plan.limits, plan.model.vocab).prompt_ids ||
        tsr_batch_bytes(&sizes) > IMAGE_BYTES)
        abort();
    tsr_batch batch = tsr_batch_over(t->image, &sizes);
    tsr_rank_batch_fill(state, &step, &batch);
    compute(&batch, t);
    return true;
}

static void follow_all(tsr_rank_state *state, texts *t, const uint8_t *data, size_t size)
{
    _Alignas(8) static unsigned char buffer[CAPACITY];
    size_t count = 0;

    if (size > 0 && size <= CAPACITY && (data[0] & AS_IS) != 0) {
        memcpy(buffer, data + 1, size - 1);
        (void)follow(state, t, buffer, size - 1);
        return;
    }
    while (take_step(&data, &size, state, buffer, &count)) {
        if (!follow(state, t, buffer, count))
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static texts t;
    tsr_rank_state state;

    tsr_log_set_sink(quiet, NULL);
    memset(&t, 0xff, sizeof(t));
    if (tsr_rank_state_open(&plan, 1, &state) != TSR_OK)
        abort();
    follow_all(&state, &t, bytes, count);
    tsr_rank_state_close(&state);
    return 0;
}
