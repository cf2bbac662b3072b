/*
 * Threads that each read a share of the weights and lay it out themselves while it is in their
 * processor's cache, for a device that computes on the host:
 *
 *   hand 0   | read 0 | lay out 0 | read 2 | lay out 2 | ...
 *   hand 1   | read 1 | lay out 1   | read 3 | ...
 *   caller   waits, says how far it is, gives up when a read does not end
 *
 * Shares are taken in order; of several that fail the first one is told. A disk may never answer,
 * and nothing ends a thread that waits for one: it is then left behind, with all that it may still
 * touch, for a process that is about to end.
 */
#ifndef TSR_RUNTIME_MODEL_LOAD_HANDS_H
#define TSR_RUNTIME_MODEL_LOAD_HANDS_H

#include "runtime/model/load_share.h"
#include "runtime/model/load_take.h"

typedef struct tsr_hands tsr_hands;

/* All pointers are borrowed; they outlive the hands. */
typedef struct tsr_hands_args {
    const tsr_loader_args *loader;
    const tsr_load_targets *targets;
    tsr_load_shares shares;
    unsigned char *rooms; /* [count, slot_bytes + scratch_bytes] on 64 bytes */
    size_t slot_bytes;    /* tsr_load_slot_bytes of the longest share */
    size_t scratch_bytes; /* a multiple of 64 */
    int32_t count;
} tsr_hands_args;

/* Why loading ended early. */
typedef struct tsr_hands_failure {
    const tsr_piece *piece;  /* the first of the share; NULL: it is not about a share */
    tsr_stretch_bytes bytes; /* of a share that was not read */
    bool unread;
    char words[TSR_LOAD_WORDS_BYTES]; /* what is wrong with one that was */
} tsr_hands_failure;

/* Starts them. TSR_ERR_MEMORY, logged when no thread starts */
TSR_MUST_USE tsr_status tsr_hands_open(const tsr_hands_args *args, tsr_hands **ret_hands);

/*
 * Waits until everything is laid out, or the clock has passed `until_ms` and there are more than
 * *bytes laid out. *bytes then says how many.
 *
 * TSR_ERR_CHECKPOINT, TSR_ERR_MEMORY  *ret_failure says why
 * TSR_ERR_TIMEOUT                     the same: a read or the device did not come to an end
 * any other                           the process was asked to end
 */
TSR_MUST_USE tsr_status tsr_hands_wait(tsr_hands *hands, int64_t until_ms, uint64_t *bytes,
                                       bool *ret_done, tsr_hands_failure *ret_failure);

/*
 * Stops wherever they are, within the deadline. NULL is allowed.
 *
 * False: a thread is stuck in a read. What the hands were given, their rooms included, must be left
 * to it as long as the process lives, but for what they lay out into.
 */
bool tsr_hands_close(tsr_hands *hands);

#endif
