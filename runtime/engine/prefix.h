/*
 * What a sequence need not compute, because the blocks of its rank hold it: the prefix cache.
 *
 *   tokens   | block 0 | block 1 | block 2 | rest |
 *   keys     k0 = h(salt, tokens)  k1 = h(k0, tokens)  k2 = h(k1, tokens)
 *   rank     knows k0 and k1: the sequence holds their blocks and begins at block 2
 *
 * Keys and values of a position depend on the tokens up to it alone, and have the same bits whoever
 * computes them: what a sequence says does not change. The last token of a prompt is always computed,
 * since its logits are wanted. A block becomes known when the step that fills it has been planned:
 * whoever reads it does so in a later step. Private to the scheduler.
 */
#ifndef TSR_RUNTIME_ENGINE_PREFIX_H
#define TSR_RUNTIME_ENGINE_PREFIX_H

#include "runtime/engine/scheduler_state.h"

/* True when a request may begin behind a prefix: one that wants something of every position of its
 * prompt computes all of them. */
bool tsr_prefix_allowed(const tsr_scheduler *scheduler, const tsr_live *live);

/* Keys of the blocks that its tokens fill by now; none where nothing is shared. */
void tsr_prefix_read(const tsr_scheduler *scheduler, tsr_live *live);

/* What a rank could spare a waiting sequence. */
typedef struct tsr_prefix_match {
    int32_t known;  /* leading blocks that the rank knows */
    int32_t held;   /* of these, by sequences that run: they take none of those free */
    int32_t coming; /* leading blocks that it knows or that prompts under way will fill */
} tsr_prefix_match;

tsr_prefix_match tsr_prefix_match_of(const tsr_scheduler *scheduler, const tsr_rank_load *load,
                                     const tsr_live *live);

/* Lets a sequence that has not begun hold what its rank knows by now, and begin behind it. */
void tsr_prefix_take(tsr_scheduler *scheduler, tsr_live *live);

/* True when a prompt under way on its rank is about to fill the very block it would begin with. */
bool tsr_prefix_waits(const tsr_scheduler *scheduler, const tsr_live *live);

/* Makes known what a running sequence has filled. */
void tsr_prefix_note(tsr_scheduler *scheduler, tsr_live *live);

/* Makes what a running sequence has filled unknown. */
void tsr_prefix_forget(tsr_scheduler *scheduler, const tsr_live *live);

#endif
