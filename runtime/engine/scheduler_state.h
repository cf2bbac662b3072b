/* What the scheduler remembers. Private to its files: scheduler.c (requests and results),
 * scheduler_step.c (the next step) and prefix.c (what a prompt need not compute). */
#ifndef TSR_RUNTIME_ENGINE_SCHEDULER_STATE_H
#define TSR_RUNTIME_ENGINE_SCHEDULER_STATE_H

#include "proto/step_state.h"
#include "runtime/base/arena.h"
#include "runtime/engine/kv_blocks.h"
#include "runtime/engine/live.h"
#include "runtime/engine/scheduler.h"

/* Requests one after the other: the queue, or those running on a rank. */
typedef struct tsr_live_list {
    tsr_live *first;
    tsr_live *last;
    int32_t count;
} tsr_live_list;

/* One rank, as the coordinator sees it. */
typedef struct tsr_rank_load {
    tsr_kv_blocks blocks;
    tsr_live_list running; /* by priority, then in order of admission */
    tsr_live **slot;       /* [slots] who has it, NULL: free */
    tsr_live **prompts;    /* [slots] of the step being planned: whose prompts are under way */
    bool *release;         /* [slots] the next step says that the sequence is gone */
    int32_t tokens_left;   /* of the step being planned */
    int32_t rows_left;
    bool preempted; /* in the step being planned: nobody is admitted here */
} tsr_rank_load;

/* One entry of a step in flight. */
typedef struct tsr_step_note {
    tsr_live *live; /* NULL: a release */
    uint32_t slot;
    uint32_t flags;
    int32_t tokens;
    int32_t end; /* position behind the entry's last */
} tsr_step_note;

typedef struct tsr_noted_step {
    tsr_step_note *note; /* [count] by entry */
    uint32_t count;
} tsr_noted_step;

struct tsr_scheduler {
    const tsr_plan *plan;
    tsr_arena *memory; /* holds this struct and its arrays */
    tsr_schedule_options options;
    tsr_step_shape shape;
    tsr_step_state state;
    tsr_rank_load *load; /* [ranks] */
    tsr_live_list queue; /* by priority, then in order of arrival */
    int64_t now_ns;      /* as the step being planned was told */
    tsr_noted_step flight[TSR_STEPS_IN_FLIGHT];
    int32_t flights;
    int32_t oldest_flight;
    /* blocks that sequences may still begin behind in the step being planned */
    int32_t shared_left;
    uint64_t key_seed;
    int32_t next_rank;         /* of round robin */
    tsr_output *outputs;       /* [shape.entries] */
    tsr_prompt_scores *scores; /* [shape.entries] */
    tsr_token_logprob *scored; /* [ranks * logit_rows] what they point to */
    tsr_engine_stats stats;
    uint64_t arrivals;
    char refusal[TSR_REFUSAL_BYTES];
};

/* Takes `live` out of `list`. */
void tsr_live_list_remove(tsr_live_list *list, tsr_live *live);

/* Puts `live` behind the last of its priority, or before the first that arrived later. */
void tsr_live_list_append(tsr_live_list *list, tsr_live *live);
void tsr_live_list_insert(tsr_live_list *list, tsr_live *live);

/* Takes a running request off its rank: its blocks are free, its slot is released in the next
 * step. */
void tsr_scheduler_detach(tsr_scheduler *scheduler, tsr_live *live);

#endif
