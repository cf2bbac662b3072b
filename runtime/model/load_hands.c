/*
 * One lock, over who has which share:
 *
 *   hand   take the next share -> reading -> (stopped? then touch nothing) -> laying out -> next
 *
 * A hand that fails keeps its share and ends; the others then take no more, but finish theirs, so
 * that of all shares that fail the first is among them.
 */
#include "runtime/model/load_hands.h"

#include "runtime/base/clock.h"
#include "runtime/base/ending.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* How often a wait looks whether the process was asked to end. */
enum { SLICE_MS = 50 };

typedef struct hand {
    tsr_hands *hands;
    pthread_t thread;
    tsr_taker taker;
    unsigned char *slot;
    tsr_load_share share;
    tsr_stretch_bytes content;
    int64_t since_ms; /* it reads */
    tsr_status status;
    bool reading;
    bool unread; /* failed while it read */
    bool ended;
    char words[TSR_LOAD_WORDS_BYTES];
} hand;

struct tsr_hands {
    tsr_hands_args args;
    tsr_load_sources *sources;
    tsr_load_cursor next;
    uint64_t bytes; /* laid out */
    int32_t deadline_ms;
    int32_t started;
    int32_t ended;
    bool failed;  /* one of them */
    bool stop;    /* nothing that was lent may be touched after a read */
    bool overdue; /* a read did not end in time */
    pthread_mutex_t lock;
    pthread_cond_t moved; /* a hand failed or ended, stop was set */
    hand hand[];          /* [args.count] */
};

/* With the lock. False: there is none, or no more is to be taken. */
static bool take_share(hand *h)
{
    tsr_hands *all = h->hands;

    if (all->stop || all->failed || !tsr_load_share_next(&all->args.shares, &all->next, &h->share))
        return false;
    h->since_ms = tsr_clock_ms();
    h->reading = true;
    return true;
}

static tsr_status lay_out(const hand *h)
{
    const tsr_load_shares *shares = &h->hands->args.shares;
    const tsr_piece *piece = NULL;
    tsr_status st = TSR_OK;

    for (size_t i = 0; st == TSR_OK && i < h->share.pieces; i++) {
        piece = tsr_load_share_piece(shares, &h->share, i);
        st = tsr_take_piece(&h->taker, piece,
                            h->content.bytes + (piece->place.offset - h->share.place.begin));
    }
    return st == TSR_OK ? tsr_taker_settle(&h->taker, piece) : st;
}

/* With the lock, which is given up meanwhile. False: the hand ends. */
static bool do_share(hand *h)
{
    tsr_hands *all = h->hands;

    (void)pthread_mutex_unlock(&all->lock);
    tsr_status st = tsr_load_sources_read(all->sources, &h->share.place, h->slot, &h->content);
    (void)pthread_mutex_lock(&all->lock);
    h->reading = false;
    if (all->stop)
        return false;
    h->unread = st != TSR_OK;
    if (st == TSR_OK) {
        (void)pthread_mutex_unlock(&all->lock);
        st = lay_out(h);
        (void)pthread_mutex_lock(&all->lock);
    }
    if (st == TSR_OK)
        all->bytes += tsr_load_share_bytes(&all->args.shares, &h->share);
    else
        all->failed = true;
    h->status = st;
    return st == TSR_OK;
}

static void *work(void *context)
{
    hand *h = context;
    tsr_hands *all = h->hands;

    (void)pthread_mutex_lock(&all->lock);
    while (take_share(h) && do_share(h))
        ;
    h->ended = true;
    all->ended++;
    (void)pthread_cond_broadcast(&all->moved);
    (void)pthread_mutex_unlock(&all->lock);
    return NULL;
}

static void free_hands(tsr_hands *all)
{
    for (int32_t i = 0; i < all->args.count; i++)
        tsr_device_mark_close(all->args.loader->device, all->hand[i].taker.mark);
    tsr_load_sources_close(all->sources);
    free(all);
}

static tsr_status set_up(tsr_hands *all)
{
    const tsr_hands_args *args = &all->args;
    const tsr_plan *plan = args->loader->plan;
    tsr_status st = tsr_load_sources_open(plan->folder, plan->files, plan->marks, plan->file_count,
                                          &all->sources);

    for (int32_t i = 0; st == TSR_OK && i < args->count; i++) {
        hand *h = &all->hand[i];
        h->hands = all;
        h->slot = args->rooms + (size_t)i * (args->slot_bytes + args->scratch_bytes);
        h->taker = (tsr_taker){
            .args = args->loader,
            .targets = args->targets,
            .scratch = h->slot + args->slot_bytes,
            .scratch_bytes = args->scratch_bytes,
            .words = h->words,
        };
        st = tsr_device_mark_open(args->loader->device, &h->taker.mark);
    }
    return st;
}

/* False: none. Fewer than asked for are enough. */
static bool start(tsr_hands *all)
{
    (void)pthread_mutex_lock(&all->lock);
    for (int32_t i = 0; i < all->args.count; i++) {
        hand *h = &all->hand[all->started];
        if (pthread_create(&h->thread, NULL, work, h) != 0)
            break;
        all->started++;
    }
    (void)pthread_mutex_unlock(&all->lock);
    return all->started > 0;
}

tsr_status tsr_hands_open(const tsr_hands_args *args, tsr_hands **ret_hands)
{
    tsr_hands *all = calloc(1, sizeof(*all) + (size_t)args->count * sizeof(all->hand[0]));
    if (all == NULL)
        return TSR_ERR_MEMORY;
    all->args = *args;
    all->deadline_ms = args->loader->deadline_ms;
    tsr_status st = set_up(all);
    if (st != TSR_OK)
        goto undo_hands;
    st = TSR_ERR_MEMORY;
    if (pthread_mutex_init(&all->lock, NULL) != 0)
        goto undo_hands;
    if (!tsr_clock_condition(&all->moved))
        goto undo_lock;
    if (!start(all))
        goto undo_moved;
    *ret_hands = all;
    return TSR_OK;

undo_moved:
    (void)pthread_cond_destroy(&all->moved);
    tsr_log(TSR_LOG_ERROR, "cannot start a thread that reads the weights: raise the limit on "
                           "threads of this process");
undo_lock:
    (void)pthread_mutex_destroy(&all->lock);
undo_hands:
    free_hands(all);
    return st;
}

static bool comes_before(const hand *a, const hand *b)
{
    if (b == NULL || a->share.first_piece != b->share.first_piece)
        return b == NULL || a->share.first_piece < b->share.first_piece;
    return a->share.part.first < b->share.part.first;
}

/* Of those that failed, or of those that have read for too long, the one with the first share. */
static const hand *first_to_blame(const tsr_hands *all, bool late)
{
    const int64_t before = tsr_clock_ms() - all->deadline_ms;
    const hand *first = NULL;

    for (int32_t i = 0; i < all->started; i++) {
        const hand *h = &all->hand[i];
        const bool blamed = late ? h->reading && h->since_ms <= before : h->status != TSR_OK;
        if (blamed && comes_before(h, first))
            first = h;
    }
    return first;
}

/* With the lock. TSR_OK: all is well so far. */
static tsr_status look(tsr_hands *all, tsr_hands_failure *ret_failure)
{
    const hand *late = first_to_blame(all, true);
    const hand *failed =
        all->ended == all->started || late != NULL ? first_to_blame(all, false) : NULL;
    const hand *h = failed != NULL ? failed : late;

    all->overdue = all->overdue || late != NULL;
    if (h == NULL)
        return tsr_ending_status();
    ret_failure->piece = tsr_load_share_piece(&all->args.shares, &h->share, 0);
    ret_failure->unread = failed == NULL || h->unread;
    if (failed == NULL)
        return TSR_ERR_TIMEOUT;
    ret_failure->bytes = h->content;
    memcpy(ret_failure->words, h->words, sizeof(h->words));
    return h->status;
}

tsr_status tsr_hands_wait(tsr_hands *hands, int64_t until_ms, uint64_t *bytes, bool *ret_done,
                          tsr_hands_failure *ret_failure)
{
    bool over = false;
    tsr_hands_failure failure = {0};

    (void)pthread_mutex_lock(&hands->lock);
    tsr_status st = look(hands, &failure);
    while (st == TSR_OK && hands->ended < hands->started && !over) {
        const int64_t now = tsr_clock_ms();
        over = now >= until_ms && hands->bytes > *bytes;
        if (!over) {
            const int64_t left = tsr_larger_64(until_ms - now, 1);
            const struct timespec a_while =
                tsr_clock_deadline((int32_t)tsr_smaller_64(left, SLICE_MS));
            (void)pthread_cond_timedwait(&hands->moved, &hands->lock, &a_while);
            st = look(hands, &failure);
        }
    }
    *bytes = hands->bytes;
    const bool done = hands->ended == hands->started;
    (void)pthread_mutex_unlock(&hands->lock);

    if (st == TSR_OK)
        *ret_done = done;
    else
        *ret_failure = failure;
    return st;
}

/* With the lock. Waits for all, but not longer for reads than it must. */
static void wait_for_end(tsr_hands *all)
{
    const int64_t until = tsr_clock_ms() + all->deadline_ms;
    int32_t awaited = all->started;

    while (awaited > 0) {
        const bool patient = !all->overdue && tsr_clock_ms() < until;
        awaited = 0;
        for (int32_t i = 0; i < all->started; i++)
            awaited += !all->hand[i].ended && (patient || !all->hand[i].reading) ? 1 : 0;
        if (awaited > 0) {
            const struct timespec a_while = tsr_clock_deadline(SLICE_MS);
            (void)pthread_cond_timedwait(&all->moved, &all->lock, &a_while);
        }
    }
}

bool tsr_hands_close(tsr_hands *hands)
{
    if (hands == NULL)
        return true;
    (void)pthread_mutex_lock(&hands->lock);
    hands->stop = true;
    wait_for_end(hands);
    const bool stuck = hands->ended < hands->started;
    for (int32_t i = 0; stuck && i < hands->started; i++)
        (void)pthread_detach(hands->hand[i].thread);
    (void)pthread_mutex_unlock(&hands->lock);
    if (stuck)
        return false;

    for (int32_t i = 0; i < hands->started; i++)
        (void)pthread_join(hands->hand[i].thread, NULL);
    (void)pthread_cond_destroy(&hands->moved);
    (void)pthread_mutex_destroy(&hands->lock);
    free_hands(hands);
    return true;
}
